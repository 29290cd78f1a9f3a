"""The CUDA kernels on a signal in chunks, emulated on the CPU: what one call on the whole of it gives, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from cuda_emulation import emulated, pack_mrf, set_device
from op_cases import cast
from triton_cases import CASES, STREAMED

from fastvoc.ops.join import Added
from fastvoc.runtime.registry import OPS

CUTS = (1, 12, 23, 34)


@pytest.fixture
def device() -> Iterator[None]:
    yield
    set_device()


@pytest.mark.parametrize("name", STREAMED)
def test_chunks_equal_the_whole(name: str, nan_poison: None) -> None:
    case = CASES[name]()
    op = name.partition("-")[0]
    steps = max(case.lengths[-1] // 2, 40) if op != "stft" else case.lengths[-1] // 4
    x, extra = case.draw(2, steps), case.extra(2, steps)
    with torch.inference_mode(), emulated():
        whole = case.op(x, case.params, **extra, backend="cuda")
        made = streamed(op, x, case.params, extra)
    assert made.shape == whole.shape
    assert torch.equal(made, whole)


@pytest.mark.parametrize(
    ("name", "hopper"), [("conv1d-wide", False), ("mrf-v3", False), ("mrf-v3", True), ("convnext_block-odd", False)]
)
def test_tensor_cores_give_the_same_bits(name: str, hopper: bool, nan_poison: None, device: None) -> None:
    case = CASES[name]()
    set_device(hopper=hopper)
    params, x = cast(case.params, torch.bfloat16), case.draw(1, 45).bfloat16()
    with torch.inference_mode(), emulated():
        whole = case.op(x, params, backend="cuda")
        assert torch.equal(streamed(name.partition("-")[0], x, params, {}), whole)


def test_every_op_that_streams_does_so_by_cuda() -> None:
    for op in OPS.values():
        if op.impls["torch"].stream is not None:
            assert op.impls["cuda"].stream is not None, op.name


def streamed(op: str, x: torch.Tensor, params: Any, extra: dict[str, Any]) -> torch.Tensor:
    impl = OPS[op].impls["cuda"]
    assert impl.stream is not None
    stream = impl.stream(params, pack_mrf(params) if op == "mrf" else impl.packed(params, True))
    if "residual" in extra:
        stream = Added(stream)
    cuts, parts = [0, *(min(cut, x.shape[2]) for cut in CUTS), x.shape[2], x.shape[2]], []
    for i, (a, b) in enumerate(pairwise(cuts)):
        more: list[Any] = []
        if "residual" in extra:
            more = [extra["residual"] if i == 0 else extra["residual"][:, :, :0]]
        elif "row" in extra:
            more = [extra["row"]]
        elif op == "nsf_source":
            more = [None, None, extra["seed"], None]
        parts.append(stream.step(x[:, :, a:b], i == len(cuts) - 2, *more))
    return torch.cat(parts, 2)
