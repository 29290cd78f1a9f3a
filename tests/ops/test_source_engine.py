"""What istft_head, stft and nsf_source share in C++: no bit depends on threads, batch or instruction set's lanes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.ops import istft_head, nsf_source, stft
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import Op
from helpers import batches_with, run_under

pytestmark = pytest.mark.native


def window(size: int) -> Tensor:
    return torch.hann_window(size)


def source(kind: str, noise: str) -> nsf_source.NsfSourceParams:
    weight = torch.linspace(-1, 2, 9)
    return nsf_source.NsfSourceParams(weight, torch.zeros(1), 24000, 37, kind, noise=noise)  # type: ignore[arg-type]


CASES: dict[str, tuple[Op, Any, int, int]] = {
    "istft-hift": (istft_head.OP, istft_head.IstftHeadParams(16, 4, window(16), phase="sin"), 18, 1031),
    "istft-vocos": (istft_head.OP, istft_head.IstftHeadParams(1280, 320, window(1280), "same"), 1282, 150),
    "stft-complex": (stft.OP, stft.StftParams(16, 4, window(16)), 1, 4003),
    "stft-polar": (stft.OP, stft.StftParams(20, 3, window(20), "polar"), 1, 2003),
    "source-sample": (nsf_source.OP, source("sample", "normal"), 1, 301),
    "source-linear": (nsf_source.OP, source("frame_linear", "uniform"), 1, 301),
    "source-nearest": (nsf_source.OP, source("frame_nearest", "normal"), 1, 301),
}
each_case = pytest.mark.parametrize(("op", "params", "channels", "steps"), CASES.values(), ids=CASES.keys())


def signal(op: Op, batch: int, channels: int, steps: int) -> Tensor:
    x = torch.randn(batch, channels, steps)
    return 200 + 150 * x if op.name == "nsf_source" else x


@each_case
def test_threads_batch_and_position_do_not_change_a_bit(op: Op, params: Any, channels: int, steps: int) -> None:
    x = signal(op, 1, channels, steps)
    results = [
        op(stacked, params, backend="cpp")[i]
        for stacked, i in batches_with(
            x,
            ((1, 1, 0), (2, 1, 0), (3, 1, 0), (7, 1, 0), (4, 3, 1), (2, 8, 7)),
            others=lambda count: signal(op, count, channels, steps),
        )
    ]
    assert all(torch.equal(results[0], other) for other in results[1:])


@each_case
def test_fake_tensors_have_the_real_shapes(op: Op, params: Any, channels: int, steps: int) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    impl = op.impls["cpp"]
    packed = impl.pack(params)
    real = op(signal(op, 2, channels, steps), params, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, channels, steps), packed)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@each_case
def test_calls_no_torch_compute_op(op: Op, params: Any, channels: int, steps: int) -> None:
    impl = op.impls["cpp"]
    packed = impl.pack(params)
    x = signal(op, 2, channels, steps)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        impl.run(x, packed)
    called = {event.name for event in profile.events() if event.name.startswith("aten::")}
    assert called <= {"aten::empty", "aten::transpose", "aten::as_strided"}


SCRIPT = """
import torch
from test_source_engine import CASES, signal
torch.manual_seed(5)
worst = 0.0
for op, params, channels, steps in CASES.values():
    x = signal(op, 1, channels, min(steps, 60))
    meant = op(x, params, backend="torch").double()
    error = (op(x, params, backend="cpp") - meant).norm() / meant.norm()
    worst = max(worst, error.item())
print(worst)
"""


@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    assert float(run_under(isa, SCRIPT)) < 3e-6


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8])
def test_sources_of_any_number_of_sines_draw_the_same_noise(rows: int) -> None:
    """The noise of a harmonic does not depend on how many there are."""
    few = nsf_source.NsfSourceParams(torch.eye(rows)[0], torch.zeros(1), 24000, 10)
    many = nsf_source.NsfSourceParams(torch.eye(9)[0], torch.zeros(1), 24000, 10)
    f0 = torch.zeros(1, 1, 30)
    assert torch.equal(nsf_source.nsf_source(f0, few, backend="cpp"), nsf_source.nsf_source(f0, many, backend="cpp"))
