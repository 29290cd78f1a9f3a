"""rvq_decode: exact sums in the codebooks' order, and codes out of range."""

from __future__ import annotations

import pytest
import torch

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode
from fastvoc.runtime.registry import OPS
from helpers import implementations

each_impl = pytest.mark.parametrize("impl", implementations("rvq_decode"))


@each_impl
@pytest.mark.parametrize("size", [(32, 1024, 128), (3, 37, 19), (1, 1, 1), (2, 50, 16)])
def test_adds_the_entries_in_order(size: tuple[int, int, int], impl: str, nan_poison: None) -> None:
    books = torch.randn(size)
    for batch, count, steps in ((1, 1, 1), (2, size[0], 7), (3, (size[0] + 1) // 2, 150)):
        codes = torch.randint(size[1], (batch, count, steps))
        expected = torch.zeros(batch, steps, size[2])
        for k in range(count):
            expected += books[k][codes[:, k]]
        assert torch.equal(rvq_decode(codes, RvqParams(books), backend=impl), expected.transpose(1, 2))


@each_impl
def test_ragged_batch_ignores_what_lies_beyond(impl: str, nan_poison: None) -> None:
    params = RvqParams(torch.randn(4, 60, 20))
    lengths = torch.tensor([3, 11, 1])
    codes = torch.randint(60, (3, 4, 11))
    expected = rvq_decode(codes, params, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        codes[i, :, n:] = torch.tensor([-1, 10**12])[i % 2]
        expected[i, :, n:] = 0
    assert torch.equal(rvq_decode(codes, params, lengths, backend=impl), expected)


@each_impl
@pytest.mark.parametrize("bad", [-1, 60, 2**40, -(2**63)])
def test_codes_out_of_range_are_errors(impl: str, bad: int) -> None:
    params = RvqParams(torch.randn(4, 60, 20))
    codes = torch.randint(60, (3, 4, 11))
    codes[1, 2, 3] = bad
    with pytest.raises(ArgumentError, match=r"codes: expected values in 0\.\.59"):
        rvq_decode(codes, params, backend=impl)
    with pytest.raises(ArgumentError, match="codes"):
        rvq_decode(codes, params, torch.tensor([1, 4, 1]), backend=impl)
    rvq_decode(codes, params, torch.tensor([11, 3, 11]), backend=impl)


@pytest.mark.native
@pytest.mark.parametrize("bad", [-1, 60, 2**40, -(2**63)])
def test_the_kernel_itself_refuses_codes_out_of_range(bad: int) -> None:
    """As compiled graphs call it, in which nothing checks values before."""
    impl = OPS["rvq_decode"].impls["cpp"]
    packed = impl.pack(RvqParams(torch.randn(4, 60, 20)))
    codes = torch.randint(60, (3, 4, 11))
    codes[0, 0, 0], codes[1, 2, 3] = 59, bad
    with pytest.raises(RuntimeError, match=rf"codes: expected values in 0\.\.59, got {bad}\b"):
        impl.run(codes, packed)
    impl.run(codes, packed, torch.tensor([11, 3, 11]))


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = RvqParams(torch.randn(4, 60, 20))
    codes = torch.randint(60, (3, 4, 11))
    for error, bad in (
        (ShapeError, codes[0]),
        (ShapeError, torch.cat([codes, codes], 1)),
        (ShapeError, codes[:, :, :0]),
        (ShapeError, codes[:, :0]),
        (DtypeError, codes.int()),
        (DtypeError, codes.float()),
        (DtypeError, codes.numpy()),
    ):
        with pytest.raises(error, match="codes: expected"):
            rvq_decode(bad, params, backend=impl)
    with pytest.raises(ArgumentError, match="lengths"):
        rvq_decode(codes, params, torch.tensor([1, 2, 12]), backend=impl)
