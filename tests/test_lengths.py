"""Lengths on their way to a device: what a forward pass without a host makes of them."""

from __future__ import annotations

import pytest
import torch

from fastvoc.errors import BackendError
from fastvoc.ops.conv1d import Conv1dParams, conv1d
from fastvoc.runtime.lengths import LengthPlan, on_device

CPU = torch.device("cpu")


def plan(batch: int = 2, lowest: int = 3, highest: int = 9) -> LengthPlan:
    return LengthPlan(batch, lowest, highest, CPU)


def test_arithmetic_is_that_of_a_tensor() -> None:
    x = torch.zeros(1)
    given = plan(3)
    with given.running():
        lengths = given.lengths()
        rows = [lengths * 4, 1 + lengths // 2, -(-lengths // 4), 7 - lengths, (lengths - 1) * 8 + 3, lengths % 2]
        for row in rows:
            on_device(row, x)
        given.freeze()
        given.set((3, 9, 5))
        given.fill()
        real = torch.tensor([3, 9, 5])
        expected = [real * 4, 1 + real // 2, -(-real // 4), 7 - real, (real - 1) * 8 + 3, real % 2]
        for row, wanted in zip(rows, expected, strict=True):
            assert on_device(row, x).tolist() == wanted.tolist()


def test_equal_lengths_share_a_row_that_stays_in_place() -> None:
    x = torch.zeros(1)
    given = plan()
    on_device(given.lengths() * 2, x)
    on_device(given.lengths() + given.lengths().shape[0] - 2, x)
    given.freeze()
    first = on_device(given.lengths() * 2, x)
    given.set((3, 4))
    given.fill()
    again = on_device(given.lengths() + 3 - 3, x)
    assert (first.tolist(), again.tolist()) == ([6, 8], [3, 4])
    assert first.data_ptr() == on_device(given.lengths() * 2, x).data_ptr()


def test_bounds_are_those_of_all_items_that_may_come() -> None:
    lengths = plan().lengths()
    assert (int(lengths.min()), int((lengths * 2).max())) == (3, 18)
    assert bool((lengths % 2).any())
    assert not bool((lengths * 4 % 2).any())
    assert (len(lengths), lengths.numel(), lengths.shape) == (2, 2, (2,))


@pytest.mark.parametrize("read", [lambda n: n.tolist(), lambda n: n[0], list, lambda n: n.cpu(), lambda n: n.nonzero()])
def test_reading_an_items_length_is_refused(read: object) -> None:
    with pytest.raises(BackendError, match="read on the host"):
        read(plan().lengths())  # type: ignore[operator]


def test_the_reference_of_an_op_says_that_it_reads_lengths() -> None:
    weight = torch.randn(4, 4, 3)
    with pytest.raises(BackendError, match="read on the host"):
        conv1d(
            torch.randn(2, 4, 9), Conv1dParams(weight, None, padding=(1, 1)), None, plan().lengths(), backend="torch"
        )


@pytest.mark.native
def test_a_kernel_reads_the_lengths_of_each_pass() -> None:
    params = Conv1dParams(torch.randn(4, 4, 3), torch.randn(4), padding=(1, 1))
    x = torch.randn(2, 4, 9)
    given = plan()
    conv1d(x, params, None, given.lengths(), backend="cpp")
    given.freeze()
    for lengths in ((3, 9), (7, 4)):
        given.set(lengths)
        given.fill()
        y = conv1d(x, params, None, given.lengths(), backend="cpp")
        assert torch.equal(y, conv1d(x, params, None, torch.tensor(lengths), backend="cpp"))


def test_a_pass_that_differs_from_the_first_is_refused() -> None:
    given = plan()
    given.freeze()
    with pytest.raises(BackendError, match="did not"):
        on_device(given.lengths(), torch.zeros(1))
    with given.running(), pytest.raises(BackendError, match="did not"):
        on_device(torch.tensor([1, 2]), torch.zeros(1, device="meta"))


def test_other_whole_numbers_stay_what_they_were_in_the_first_pass() -> None:
    given = LengthPlan(2, 1, 4, torch.device("meta"))
    there = torch.zeros(1, device="meta")
    with given.running():
        first = on_device(torch.tensor([1, 2]), there)
        given.freeze()
        assert on_device(torch.tensor([1, 2]), there) is first
    assert on_device(torch.tensor([1, 2]), there) is not first
    assert on_device(None, there) is None
