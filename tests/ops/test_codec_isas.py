"""The codec's ops under every instruction set, each in a process that FASTVOC_ISA forces."""

from __future__ import annotations

import json

import pytest

from fastvoc.runtime import library as _library
from helpers import run_under

pytestmark = pytest.mark.native

SCRIPT = """
import json
import torch
from fastvoc.runtime import library as _library
from fastvoc.nn.group_norm import GroupNormAct
from fastvoc.nn.lstm import Lstm
from fastvoc.nn.rvq import ResidualVectorQuantizer
from fastvoc.nn.seanet import SeanetBlock
from fastvoc.nn.snake_aa import SnakeAa
from fastvoc.ops.lvc import LvcParams, lvc
from fastvoc.ops.activation import elu

torch.manual_seed(3)
torch.set_grad_enabled(False)
errors = {}


def compare(name, run):
    ours, meant = run("cpp").double(), run("torch").double()
    errors[name] = ((ours - meant).norm() / meant.norm()).item()


lengths = torch.tensor([41, 7, 60, 1, 33])
for channels in (24, 64):
    x = torch.randn(5, channels, 60)
    less = x.to(torch.bfloat16)
    lstm = Lstm(channels, channels, 2, skip=True)
    both = Lstm(channels, 19, 2, bidirectional=True)
    compare(f"lstm {channels}", lambda b: lstm(x, lengths=lengths, backend=b))
    compare(f"both ways {channels}", lambda b: both(x, lengths=lengths, backend=b))
    half = Lstm(channels, channels, 2, skip=True).to(torch.bfloat16)
    compare(f"bfloat16 lstm {channels}", lambda b: half(less, lengths=lengths, backend=b))
    for causal in (False, True):
        block = SeanetBlock(channels, channels // 2, causal=causal)
        compare(f"seanet_block {channels} {causal}", lambda b: block(x, lengths=lengths, backend=b))
        half = block.to(torch.bfloat16)
        compare(f"bfloat16 seanet_block {channels} {causal}", lambda b: half(less, lengths=lengths, backend=b))
    for shortcut in (False, True):
        normed = SeanetBlock(channels, channels // 2, causal=False, norm=True, conv_shortcut=shortcut)
        compare(f"seanet_block {channels} normed {shortcut}", lambda b: normed(x, lengths=lengths, backend=b))
        half = normed.to(torch.bfloat16)
        compare(f"bfloat16 seanet_block {channels} normed {shortcut}", lambda b: half(less, lengths=lengths, backend=b))
    norm = GroupNormAct(channels, act=elu())
    compare(f"group_norm_act {channels}", lambda b: norm(x, x, lengths=lengths, backend=b))
    half_norm, half_x = norm.to(torch.bfloat16), x.to(torch.bfloat16)
    compare(f"bfloat16 group_norm_act {channels}", lambda b: half_norm(half_x, half_x, lengths=lengths, backend=b))
    snake = SnakeAa(channels, beta=True, logscale=True).to(torch.bfloat16)
    compare(f"bfloat16 snake_aa {channels}", lambda b: snake(half_x, lengths=lengths, backend=b))
    kernels, biases = torch.randn(2, 3, channels, 2 * channels, 12) / channels**0.5, torch.randn(2, 2 * channels, 12)
    local = [t.to(torch.bfloat16) for t in (x[:2], kernels, biases)]
    compare(f"bfloat16 lvc {channels}", lambda b: lvc(local[0], LvcParams(5, 3), *local[1:], backend=b))
    rvq = ResidualVectorQuantizer(3, 100, channels)
    codes = rvq.encode(x, 3, lengths, "torch")
    compare(f"rvq_encode {channels}", lambda b: rvq.encode(x, 3, lengths, b))
    compare(f"rvq_decode {channels}", lambda b: rvq.decode(codes, lengths, b))
print(json.dumps(errors))
"""


@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    errors = json.loads(run_under(isa, SCRIPT))
    assert len(errors) == 34
    for name, error in errors.items():
        allowed = {"rvq_encode": 0.0, "rvq_decode": 0.0, "bfloat16": 8e-3}.get(name.split()[0], 2e-6)
        assert error <= allowed, name
