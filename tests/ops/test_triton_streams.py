"""Triton's kernels on a signal in chunks, in Triton's interpreter: the bits of one call on the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from op_cases import ATTENTION, MRF, channels, mrf_params
from torch import Tensor
from triton_cases import CASES, STREAMED, Case, places_alike, small_tiles

from fastvoc.kernels import launch
from fastvoc.ops.join import Added
from fastvoc.runtime.registry import OPS
from helpers import need_triton, relative_l2

CUTS = ((1, 12, 23, 34), (3, 30))  # chunks alike, and such that a state moves between
NAMES = (*STREAMED, "conv1d-source-k30-s15", "mrf-reflect", "stft-odd", "nsf_source-drawn")


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    need_triton()
    with torch.inference_mode(), small_tiles(), places_alike():
        yield


def streamed(
    name: str, x: Tensor, params: Any, extra: dict[str, Any], at: tuple[int, ...], *, saved: bool
) -> tuple[Tensor, set[str]]:
    """The joined output of a stream cut at these steps, and the names of the kernels that made it.

    `saved` moves its state to a new one at every cut.
    """
    impl = OPS[name].impls["triton"]
    assert impl.stream is not None
    packed = impl.packed(params, True)

    def opened() -> Any:
        return Added(impl.stream(params, packed)) if "residual" in extra else impl.stream(params, packed)

    stream, parts = opened(), []
    cuts = [0, *(min(cut, x.shape[2]) for cut in at), x.shape[2], x.shape[2]]
    with launch.record() as recording:
        for i, (a, b) in enumerate(pairwise(cuts)):
            more = []
            if "residual" in extra:
                more = [extra["residual"][:, :, :] if i == 0 else extra["residual"][:, :, :0]]
            elif "row" in extra:
                more = [extra["row"]]
            elif name == "nsf_source":
                more = [None, None, extra["seed"], None]
            parts.append(stream.step(x[:, :, a:b], i == len(cuts) - 2, *more))
            if saved:
                moved = opened()
                moved.restore({key: t.clone() for key, t in stream.tensors().items()}, stream.counters)
                stream = moved
    return torch.cat(parts, 2), {each.name for each in recording.launches}


@pytest.mark.parametrize("name", NAMES)
def test_chunks_equal_the_whole(name: str, nan_poison: None) -> None:
    case: Case = CASES[name]()
    op = name.partition("-")[0]
    steps = max(case.lengths[-1] // 2, 40) if op != "stft" else case.lengths[-1] // 4
    x, extra = case.draw(2, steps), case.extra(2, steps)
    whole = case.op(x, case.params, **extra, backend="triton")
    for saved, cuts in enumerate(CUTS):
        made, kernels = streamed(op, x, case.params, extra, cuts, saved=bool(saved))
        assert made.shape == whole.shape
        assert made.dtype == whole.dtype
        assert torch.equal(made, whole), (name, saved)
    assert any(kernel.removesuffix("_kernel") not in ("stream_rows", "stream_sum") for kernel in kernels)
    assert relative_l2(whole, case.ref(x, case.params, **extra)) < 2e-6


WIDE: dict[str, Callable[[], Any]] = {
    "fused": lambda: mrf_params(32, (3, 7), ((1, 3), (1, 2)), 2),
    "single": lambda: mrf_params(20, (3,), ((1, 2),), 1),
    "v3": MRF["v3"],
}


@pytest.mark.parametrize("name", WIDE)
def test_a_stage_reads_what_it_says(name: str) -> None:
    """`reads` is what a NaN reaches; a margin one step shorter would be seen by the test above."""
    params = WIDE[name]()
    impl = OPS["mrf"].impls["triton"]
    assert impl.stream is not None
    packed = impl.packed(params, True)
    x, at = torch.randn(1, channels(params), 150), 75
    x[:, :, at] = torch.nan
    touched = impl.run(x, packed).isnan().any(1)[0].nonzero().flatten()
    stream = impl.stream(params, packed)
    first, last = stream.reads(0, 0)
    assert (int(touched[0]), int(touched[-1])) == (at - last, at - first)
    assert stream.reads(0, 0) == OPS["mrf"].impls["torch"].stream(params, params).reads(0, 0)  # type: ignore[misc]


def test_every_op_that_streams_does_so_by_triton() -> None:
    for op in OPS.values():
        reference, ours = op.impls["torch"].stream, op.impls["triton"]
        if reference is not None and op.name != "lstm":
            assert ours.stream is not None, op.name
            assert ours.stream is not reference, op.name


def test_attention_in_chunks() -> None:
    params = ATTENTION["odd"]()
    impl = OPS["attention_block"].impls["triton"]
    assert impl.stream is not None
    x = torch.randn(1, channels(params), 23)
    packed = impl.packed(params, True)
    stream = impl.stream(params, packed)
    made = torch.cat([stream.step(x[:, :, a:b], b == 23) for a, b in pairwise((0, 1, 9, 23))], 2)
    assert relative_l2(made, impl.run(x, packed)) < 1e-6
