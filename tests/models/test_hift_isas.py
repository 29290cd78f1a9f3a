"""HiFTNet's ops under every instruction set, each in a process that FASTVOC_ISA forces."""

from __future__ import annotations

import json

import pytest

from fastvoc.runtime import library as _library
from helpers import run_under

pytestmark = pytest.mark.native

SCRIPT = """
import json
from dataclasses import replace
import torch
from fastvoc.runtime import library as _library
from fastvoc.models.hift_config import CHATTERBOX, COSYVOICE3, HIFTNET
from fastvoc.models.hiftnet import HiftNet
from fastvoc.ops.conv1d import Conv1dParams, conv1d
from fastvoc.ops.conv2d import Conv2dParams, conv2d

torch.manual_seed(3)
torch.set_grad_enabled(False)
errors = {}


def compare(name, run):
    ours, meant = run("cpp").double(), run("torch").double()
    errors[name] = ((ours - meant).norm() / meant.norm()).item()


lengths = torch.tensor([23, 5])
for name, config in {"chatterbox": CHATTERBOX, "cosyvoice3": COSYVOICE3, "hiftnet": HIFTNET}.items():
    model = HiftNet(replace(config, base_channels=24, f0_channels=20)).eval()
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.copy_(torch.randn(parameter.shape) * 0.5 / fan**0.5)
    mel, source = torch.randn(2, 80, 23), torch.randn(2, 1, 23 * config.hop) * 0.1
    compare(f"f0 {name}", lambda b: model.predict_f0(mel, lengths, backend=b))
    if name != "hiftnet":  # angles of small bins are rounding accidents
        compare(f"wav {name}", lambda b: model.decode(mel, source, lengths, backend=b))
x = torch.randn(2, 19, 13, 11)
params = Conv2dParams(torch.randn(37, 19, 3, 3) * 0.1, torch.randn(37), 0.01, 2)
compare("conv2d", lambda b: conv2d(x, params, None, torch.tensor([13, 4]), backend=b))
x = torch.randn(2, 19, 40).double()
wide = Conv1dParams(torch.randn(21, 19, 4).double() * 0.1, torch.randn(21).double(), padding=(3, 0))
compare("wide", lambda b: conv1d(x, wide, None, torch.tensor([40, 17]), backend=b))
print(json.dumps(errors))
"""


@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    errors = json.loads(run_under(isa, SCRIPT))
    assert len(errors) == 7
    for name, error in errors.items():
        allowed = {"wav": 1e-4, "f0": 1e-5, "wide": 1e-14}.get(name.split()[0], 2e-6)
        assert error <= allowed, name
