"""What C++ and Triton keep and add between chunks is what torch would."""

from __future__ import annotations

import pytest
import torch

from fastvoc.ops import join, stream
from fastvoc.ops._triton import triton_problem, triton_rows, triton_sum
from fastvoc.ops.join import Sum
from fastvoc.ops.stream import Cut, cut_rows
from helpers import need, need_native

pytestmark = pytest.mark.native


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_rows_are_cut_as_by_torch(dtype: torch.dtype, nan_poison: None) -> None:
    need_native()
    cut_everywhere(stream.NATIVE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_triton_cuts_rows_as_torch(dtype: torch.dtype, nan_poison: None) -> None:
    need("triton", triton_problem())
    cut_everywhere(triton_rows(), dtype, beside=((0, 0), (3, 2)), parts=2)


_BESIDE = ((0, 0), (2, 0), (0, 1), (3, 2))


def cut_everywhere(
    by: stream.Rows, dtype: torch.dtype, beside: tuple[tuple[int, int], ...] = _BESIDE, parts: int = 1
) -> None:
    tail = torch.arange(2 * 3 * 5).reshape(2, 3, 5).to(dtype)
    major = (100 + torch.arange(2 * 5 * 4)).reshape(2, 5, 4).to(dtype)
    wider = (100 + torch.arange(2 * 4 * 8)).reshape(2, 4, 8).to(dtype).transpose(1, 2)[:, :5]  # some channels of rows
    for x in (major, major.transpose(1, 2).contiguous().transpose(1, 2), major[:, :, ::2], major[:, :, :0], wider):
        for kept in (tail, None):
            have = x.shape[2] + (0 if kept is None else 3)
            for low, high in ((0, have), (have // 2, have), (0, have // 2), (have, have)):
                for keep in (0, have // 3, have)[::parts]:
                    for before, after in beside:
                        cut = Cut(before, low, high, after, keep)
                        ours, theirs = (cut_rows(x, kept, cut, rows) for rows in (by, None))
                        for a, b in zip(ours, theirs, strict=True):
                            assert torch.equal(a, b)
                            assert a.is_contiguous()


def test_wrong_rows_are_told() -> None:
    need_native()
    x, tail = torch.randn(1, 4, 3), torch.randn(1, 2, 4)
    for cut in ([0, 0, 6, 0, 0], [0, 3, 2, 0, 0], [-1, 0, 1, 0, 0], [0, 0, 1, 0, 6], [0, -1, 1, 0, 0]):
        with pytest.raises(RuntimeError, match="stream_rows"):
            cut_rows(x, tail, Cut(*cut), stream.NATIVE)
    for wrong in (tail.double(), tail[:, :, :3], torch.randn(2, 2, 4), tail.transpose(1, 2)):
        with pytest.raises(RuntimeError, match="tail: expected"):
            cut_rows(x, wrong, Cut(0, 0, 1, 0, 0), stream.NATIVE)


def test_sums_of_branches_are_torchs_bit_for_bit(nan_poison: None) -> None:
    need_native()
    x, y = torch.randn(2, 37, 90), torch.randn(2, 37, 90)
    whole = x + y
    cuts = [(0, 0), (0, 7), (3, 7), (20, 7), (21, 40), (90, 40), (90, 90)]
    for by in (join.NATIVE, None, None if triton_problem() else triton_sum()):
        for order in (cuts, [(b, a) for a, b in cuts]):
            total, made, at = Sum(by), [], (0, 0)
            for ends in order:
                parts = [
                    signal[:, :, a:b].transpose(1, 2).contiguous().transpose(1, 2)
                    for signal, a, b in zip((x, y), at, ends, strict=True)
                ]
                made.append(total.step(parts[0], False, parts[1]))
                moved = Sum(by)
                moved.restore(total.tensors(), total.counters)
                assert moved.counters == total.counters == (ends[0] - min(ends), ends[1] - min(ends))
                total, at = moved, ends
            assert torch.equal(torch.cat(made, 2), whole)


def test_sums_refuse_what_does_not_fit() -> None:
    need_native()
    x = torch.randn(1, 5, 4).transpose(1, 2)
    held = torch.empty(1, 0, 4)
    for wrong in ((x, x[:, :3], held, held), (x, x, held, torch.empty(1, 0, 5)), (x.double(), x, held, held)):
        with pytest.raises(RuntimeError, match="expected"):
            torch.ops._fastvoc.stream_sum(*wrong)


def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    need_native()
    x, y, kept = torch.randn(2, 6, 3).transpose(1, 2), torch.randn(2, 1, 3).transpose(1, 2), torch.randn(2, 2, 3)
    ops = torch.ops._fastvoc
    calls = ((ops.stream_sum, (x, y, kept, kept)), (ops.stream_rows, (1, 2, 7, 2, 4, x, kept)))
    for op, args in calls:
        real = op(*args)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = op(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
        assert [(t.shape, t.stride(), t.dtype) for t in fake] == [(t.shape, t.stride(), t.dtype) for t in real]
