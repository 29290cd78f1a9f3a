"""istft_head, stft and nsf_source on signals in chunks: the pieces equal one call."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.ops import istft_head, nsf_source, stft
from fastvoc.ops.stream import OpStream
from fastvoc.runtime.registry import Op
from helpers import implementations


def window(size: int) -> Tensor:
    return torch.hann_window(size)


def source(kind: str) -> nsf_source.NsfSourceParams:
    return nsf_source.NsfSourceParams(torch.linspace(-1, 2, 9), torch.zeros(1), 24000, 10, kind)  # type: ignore[arg-type]


CASES: dict[str, tuple[Op, Any, int, int]] = {
    "istft-center": (istft_head.OP, istft_head.IstftHeadParams(16, 4, window(16), clamp=0.99), 2, 41),
    "istft-same": (istft_head.OP, istft_head.IstftHeadParams(40, 10, window(40), "same"), 1, 23),
    "istft-uneven": (istft_head.OP, istft_head.IstftHeadParams(50, 7, window(50)), 5, 30),
    "stft-complex": (stft.OP, stft.StftParams(16, 4, window(16)), 9, 203),
    "stft-polar": (stft.OP, stft.StftParams(20, 3, window(20), "polar"), 11, 150),
    "source-sample": (nsf_source.OP, source("sample"), 1, 29),
    "source-linear": (nsf_source.OP, source("frame_linear"), 1, 29),
    "source-nearest": (nsf_source.OP, source("frame_nearest"), 1, 29),
}
each_case = pytest.mark.parametrize(
    ("op", "params", "shortest", "steps", "impl"),
    [
        pytest.param(*case, impl.values[0], marks=impl.marks, id=f"{name}-{impl.values[0]}")
        for name, case in CASES.items()
        for impl in implementations(case[0].name)
    ],
)


def stream_of(op: Op, params: Any, impl: str) -> OpStream:
    chosen = op.impls[impl]
    assert chosen.stream is not None
    stream: OpStream = chosen.stream(params, chosen.pack(params))
    return stream


def signal(op: Op, params: Any, batch: int, steps: int) -> Tensor:
    if op.name == "nsf_source":
        return 100 + 100 * torch.randn(batch, 1, steps)
    return torch.randn(batch, params.n_fft + 2 if op.name == "istft_head" else 1, steps)


def assert_same(pieces: Tensor, whole: Tensor, impl: str) -> None:
    assert pieces.shape == whole.shape
    if impl == "cpp":
        assert torch.equal(pieces, whole)
    else:
        torch.testing.assert_close(pieces, whole, rtol=0, atol=2e-5)


@each_case
def test_chunks_equal_one_call(op: Op, params: Any, shortest: int, steps: int, impl: str, nan_poison: None) -> None:
    generator = random.Random(3)
    for length in (*range(shortest, shortest + 4), steps, steps + 1, steps + 2):
        x = signal(op, params, 2, length)
        whole = op(x, params, backend=impl)
        for count in (0, 1, 3, 8, length):
            cuts = sorted(generator.choices(range(length + 1), k=count)) if count < length else range(length)
            stream = stream_of(op, params, impl)
            parts = [stream.step(x[:, :, a:b], False) for a, b in pairwise((0, *cuts, length))]
            parts.append(stream.step(x[:, :, length:], True))
            assert_same(torch.cat(parts, 2), whole, impl)


@each_case
def test_a_stream_goes_on_in_another(op: Op, params: Any, shortest: int, steps: int, impl: str) -> None:
    x = signal(op, params, 3, steps)
    whole = op(x, params, backend=impl)
    for cut in (0, 1, 2, steps // 2, steps - 1):
        first, second = stream_of(op, params, impl), stream_of(op, params, impl)
        head = first.step(x[:, :, :cut], False)
        second.restore(first.tensors(), first.counters)
        tail = second.step(x[:, :, cut:], True)
        assert_same(torch.cat([head, tail], 2), whole, impl)
        again = first.step(x[:, :, cut:], True)
        assert torch.equal(again, tail)


@each_case
def test_streams_at_the_same_point_share_a_batch(op: Op, params: Any, shortest: int, steps: int, impl: str) -> None:
    x = signal(op, params, 1, steps)
    whole = op(x, params, backend=impl)
    early, late = stream_of(op, params, impl), stream_of(op, params, impl)
    stride = 12 if op.name == "stft" else 1  # of either transform
    lag = stride * 4 + (16 if op.name == "stft" else 4)
    rest_early = [early.step(x[:, :, :lag], False)]
    rest_late = [late.step(x[:, :, : lag + stride], False)]
    assert early.counters == late.counters
    both = stream_of(op, params, impl)
    other = late.tensors()
    both.restore({name: torch.cat([t, other[name]]) for name, t in early.tensors().items()}, early.counters)
    size = steps - lag - stride
    chunk = torch.cat([x[:, :, lag : lag + size], x[:, :, lag + stride :]])
    joined = both.step(chunk, False)
    rest_early.append(joined[:1])
    rest_late.append(joined[1:])
    assert joined.shape[2] > 0
    for parts in (rest_early, rest_late):
        y = torch.cat(parts, 2)
        assert_same(y, whole[:, :, : y.shape[2]], impl)


@each_case
def test_reads_are_what_nan_reaches(op: Op, params: Any, shortest: int, steps: int, impl: str) -> None:
    x = signal(op, params, 1, 3 * steps)
    middle = x.shape[2] // 2
    x[:, :, middle] = torch.nan
    touched = op(x, params, backend=impl)[0].isnan().any(0).nonzero().flatten().tolist()
    stream = stream_of(op, params, impl)
    low, high = touched[0], touched[-1]
    for output, inside in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
        first, last = stream.reads(output, output)
        assert (first <= middle <= last) == inside, output


def test_a_source_stream_keeps_its_seed_and_start_phase() -> None:
    params = source("sample")
    f0, seed, phase = signal(nsf_source.OP, params, 2, 20), torch.tensor([5, 6]), torch.randn(2, 9)
    for given in (None, phase):
        whole = nsf_source.nsf_source(f0, params, None, given, seed, backend="torch")
        first, second = stream_of(nsf_source.OP, params, "torch"), stream_of(nsf_source.OP, params, "torch")
        head = first.step(f0[:, :, :7], False, None, given, seed)
        second.restore(first.tensors(), first.counters)
        pieces = torch.cat([head, second.step(f0[:, :, 7:], True, None, given, seed)], 2)
        torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)
