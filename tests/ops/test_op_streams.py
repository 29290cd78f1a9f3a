"""Ops on a signal in chunks against one call on the whole of it, under every implementation."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from op_cases import (
    CONV1D,
    DEPTHWISE,
    MRF,
    NARROW_MRF,
    UPSAMPLE,
    channels,
    conv1d_params,
    mrf_params,
    upsample_params,
    with_snakes,
)
from torch.nn import functional as F

from fastvoc.runtime.registry import OPS
from helpers import implementations, relative_l2

CASES = [
    pytest.param(op, make, impl.values[0], marks=impl.marks, id=f"{op}-{name}-{impl.values[0]}")
    for op, table in (("conv1d", CONV1D), ("upsample", UPSAMPLE), ("mrf", MRF | NARROW_MRF), ("depthwise", DEPTHWISE))
    for name, make in table.items()
    for impl in implementations(op)
]


def apart(chunk: torch.Tensor) -> torch.Tensor:
    """A chunk with NaN, and not the signal that it was cut from, before and behind it."""
    return F.pad(chunk, (80, 80), value=torch.nan)[:, :, 80:-80]


def chunked(op: str, impl: str, params: Any, x: torch.Tensor, cuts: list[int], *, saved: bool = False) -> torch.Tensor:
    """The joined output of a stream cut at these steps; `saved` moves its state to a new one at every cut."""
    chosen = OPS[op].impls[impl]
    packed = chosen.packed(params, exact=True)
    stream = chosen.stream(params, packed)
    parts = []
    for a, b in pairwise([0, *cuts, x.shape[2]]):
        parts.append(stream.step(apart(x[:, :, a:b]), False))
        if saved:
            moved = chosen.stream(params, packed)
            moved.restore({name: t.clone() for name, t in stream.tensors().items()}, stream.counters)
            stream = moved
    parts.append(stream.step(x[:, :, :0], True))
    return torch.cat(parts, 2)


@pytest.mark.parametrize(("op", "make", "impl"), CASES)
def test_chunks_equal_the_whole(op: str, make: Callable[[], Any], impl: str, nan_poison: None) -> None:
    params = make()
    rng = random.Random(0)
    for steps in (60, 61, 137, 400) if impl == "cpp" else (61, 137):
        x = torch.randn(2, channels(params), steps)
        whole = OPS[op].impls[impl].run(x, OPS[op].impls[impl].packed(params, exact=True))
        few = [sorted(rng.choices(range(steps + 1), k=k)) for k in (6, 3)]
        every = [[], [1, 1, 2], list(range(1, min(steps, 137))), *few]
        slow = {61: [[*range(1, 9), *range(52, 61)], few[0]], 137: [[], [1, 1, 2], few[1]]}  # new sizes, in torch
        for cuts in every if impl == "cpp" else slow[steps]:
            y = chunked(op, impl, params, x, cuts, saved=len(cuts) > 3)
            assert y.shape == whole.shape
            assert torch.equal(y, whole) if impl == "cpp" else relative_l2(y, whole) < 1e-6, (steps, cuts)


@pytest.mark.parametrize(("op", "make", "impl"), [case for case in CASES if case.values[2] == "cpp"])
def test_few_steps_are_the_same_for_any_number_of_threads(
    op: str, make: Callable[[], Any], impl: str, threads: Callable[[int], None], nan_poison: None
) -> None:
    params = make()
    x = torch.randn(2, channels(params), 131)
    for batch in (x, x[:1]):
        threads(1)
        whole = OPS[op].impls[impl].run(batch, OPS[op].impls[impl].packed(params, exact=True))
        for count in (2, 3, 4, 7):
            threads(count)
            assert torch.equal(chunked(op, impl, params, batch, [50, 58, 80, 99]), whole), count


@pytest.mark.native
def test_few_steps_of_wide_layers_are_the_same_for_any_number_of_threads(threads: Callable[[int], None]) -> None:
    wide = (
        ("conv1d", conv1d_params(130, 275, 3, pad=(1, 1))),
        ("upsample", upsample_params(66, 147, 8, 4, (2, 2))),
        ("mrf", with_snakes(mrf_params(104, (7,), ((1, 3, 5),), 2))),
        ("mrf", mrf_params(72, (3, 5), ((1, 3),) * 2, 1)),
    )
    for op, params in wide:
        impl = OPS[op].impls["cpp"]
        packed = impl.packed(params, True)
        for steps in (11, 17, 30):
            x = torch.randn(1, channels(params), steps)
            threads(1)
            whole = impl.run(x, packed)
            for count in (2, 3, 5):
                threads(count)
                assert torch.equal(impl.run(x, packed), whole), (op, steps, count)
                assert torch.equal(chunked(op, "cpp", params, x, [4, 7]), whole), (op, steps, count)


LONG = {
    "snakes": lambda: with_snakes(mrf_params(35, (7,), ((1, 3, 5),), 2)),
    "reflect": lambda: mrf_params(20, (3,), ((1, 3),), 2, "reflect"),
    "causal": lambda: mrf_params(40, (5,), ((2, 4),), 1, "causal"),
    "two-blocks": lambda: mrf_params(50, (3, 7), ((1, 2), (3, 1)), 2),
}


@pytest.mark.native
@pytest.mark.parametrize("pad_mode", ["zeros", "reflect", "causal"])
def test_threads_share_out_no_steps_of_a_block_that_waits_for_another(
    pad_mode: str, threads: Callable[[int], None], nan_poison: None
) -> None:
    """A block that sees less than the others computes steps whose input an earlier chunk brought."""
    params = mrf_params(104, (3, 1, 7), ((1,), (1,), (12,)), 1, pad_mode)
    impl = OPS["mrf"].impls["cpp"]
    packed, x = impl.packed(params, True), torch.randn(1, channels(params), 420)
    threads(1)
    whole = impl.run(x, packed)
    for count in (1, 4):
        threads(count)
        for size in (4, 38, 60, 150, 210):
            assert torch.equal(chunked("mrf", "cpp", params, x, [*range(size, 420, size)]), whole), (count, size)


@pytest.mark.native
@pytest.mark.parametrize("name", LONG)
def test_threads_share_out_the_steps_of_long_chunks(
    name: str, threads: Callable[[int], None], nan_poison: None
) -> None:
    params = LONG[name]()
    impl = OPS["mrf"].impls["cpp"]
    assert impl.stream is not None
    x = torch.randn(1, channels(params), 3100)
    for exact in (True, False):
        packed = impl.packed(params, exact)
        threads(1)
        whole = impl.run(x, packed)
        for cuts in ([1500], [3, 1700, 1705], [], [3099]):
            for count in (2, 3, 5):
                threads(count)
                stream = impl.stream(params, packed)
                parts = [stream.step(apart(x[:, :, a:b]), False) for a, b in pairwise([0, *cuts])]
                y = torch.cat([*parts, stream.step(apart(x[:, :, cuts[-1] if cuts else 0 :]), True)], 2)
                assert torch.equal(y, whole) if exact else relative_l2(y, whole) < 2e-6, (cuts, count)


@pytest.mark.parametrize(("op", "make", "impl"), CASES)
def test_reads_is_what_a_nan_reaches(op: str, make: Callable[[], Any], impl: str) -> None:
    params = make()
    chosen = OPS[op].impls[impl]
    packed = chosen.packed(params, exact=True)
    stream = chosen.stream(params, packed)
    x = torch.randn(1, channels(params), 700)
    at = 351
    x[:, :, at] = torch.nan
    touched = chosen.run(x, packed).isnan().any(1)[0].nonzero().flatten().tolist()
    first = min(o for o in range(max(touched[0] - 40, 0), touched[0] + 1) if stream.reads(o, o)[1] >= at)
    last = max(o for o in range(touched[-1], touched[-1] + 40) if stream.reads(o, o)[0] <= at)
    assert (touched[0], touched[-1]) == (first, last)
