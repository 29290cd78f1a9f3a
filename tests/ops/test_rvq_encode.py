"""rvq_encode: exact codes of golden and random data, ties, and what must not change a code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.nn.rvq import ResidualVectorQuantizer
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode
from fastvoc.ops.rvq_encode import rvq_encode, rvq_encode_ref
from helpers import implementations

each_impl = pytest.mark.parametrize("impl", implementations("rvq_encode"))
SIZES = {"encodec": (8, 1024, 128), "odd": (3, 37, 19), "one-entry": (2, 1, 5), "one-channel": (2, 50, 1)}
each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def exact_codes(x: Tensor, books: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, along the path of the codes: how much farther the chosen entry is than the nearest, and |x|^2."""
    residual = x.double().transpose(1, 2)
    excess, squares = [], []
    for book, index in zip(books.double(), chosen.unbind(1), strict=False):
        distance = (residual[:, :, None] - book).square().sum(-1)
        excess.append(distance.gather(2, index[:, :, None])[:, :, 0] - distance.amin(-1))
        squares.append(residual.square().sum(-1) + book.square().sum(-1).max())
        residual = residual - book[index]
    return torch.stack(excess, 1), torch.stack(squares, 1)


@each_size
@each_impl
def test_takes_the_nearest_entry(size: tuple[int, int, int], impl: str, nan_poison: None) -> None:
    books = torch.randn(size) * 0.7 ** torch.arange(size[0])[:, None, None]
    for batch, steps in ((1, 1), (2, 3), (3, 33)):
        x = torch.randn(batch, size[2], steps)
        codes = rvq_encode(x, RvqParams(books), size[0], backend=impl)
        assert codes.shape == (batch, size[0], steps)
        assert codes.dtype == torch.int64
        excess, squares = exact_codes(x, books, codes)
        assert (excess <= 1e-6 * squares).all()
        same = codes == rvq_encode_ref(x, RvqParams(books), size[0])
        assert same.double().mean() > 0.995


@each_size
@each_impl
def test_recovers_the_codes_of_well_separated_books(size: tuple[int, int, int], impl: str) -> None:
    """Books so far apart in scale that the greedy search must find the codes that made the signal."""
    count, entries, width = size
    grid = torch.stack([torch.randperm(entries) for _ in range(width)], 1).float() - entries // 2
    books = torch.stack([grid * (4.0 * entries) ** -k for k in range(min(count, 2))])
    codes = torch.randint(entries, (2, len(books), 33))
    x = rvq_decode(codes, RvqParams(books), backend="torch")
    assert torch.equal(rvq_encode(x, RvqParams(books), len(books), backend=impl), codes)


@each_impl
def test_the_first_of_equal_entries_wins(impl: str) -> None:
    book = torch.randn(1, 70, 24)
    book[0, 40:] = book[0, 5:35]
    x = book[0, 40:].t()[None].contiguous()
    codes = rvq_encode(x, RvqParams(book), 1, backend=impl)
    assert codes.flatten().tolist() == list(range(5, 35))
    flat = RvqParams(torch.ones(2, 100, 8))
    assert not rvq_encode(torch.randn(1, 8, 9), flat, 2, backend=impl).any()


@pytest.mark.native
def test_threads_share_the_entries_of_few_steps() -> None:
    book = torch.randn(2, 530, 24)
    book[0, 500:] = book[0, 5:35]  # ties between the parts
    x = torch.cat([book[0, 500:].t(), torch.randn(24, 3)], 1)[None, :, -12:].contiguous()
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(rvq_encode(x, RvqParams(book), 2, backend="cpp"))
    torch.set_num_threads(before)
    assert found[0][0, 0, :9].tolist() == list(range(26, 35))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@each_impl
def test_large_offsets_tie_as_in_the_reference(impl: str) -> None:
    """|x|^2 swallows the difference between entries; the sum's order then decides, so it must be the reference's."""
    books = torch.randint(-3, 4, (1, 64, 4)).float()
    x = torch.randint(-3, 4, (1, 4, 50)) * 64.0 + 4096.0  # |x|^2 is exact in float32
    params = RvqParams(books)
    assert torch.equal(rvq_encode(x, params, 1, backend=impl), rvq_encode_ref(x, params, 1))


@each_impl
def test_fewer_codes_are_a_prefix(impl: str) -> None:
    params = RvqParams(torch.randn(5, 33, 12))
    x = torch.randn(2, 12, 21)
    codes = rvq_encode(x, params, 5, backend=impl)
    for n_q in range(1, 5):
        assert torch.equal(rvq_encode(x, params, n_q, backend=impl), codes[:, :n_q])


@each_impl
def test_nan_gives_a_code_in_range(impl: str) -> None:
    params = RvqParams(torch.randn(3, 48, 20))
    x = torch.randn(1, 20, 9)
    clean = rvq_encode(x, params, 3, backend=impl)
    x[0, 4, 4] = torch.nan
    codes = rvq_encode(x, params, 3, backend=impl)
    assert ((codes >= 0) & (codes < 48)).all()
    keep = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(codes[:, :, keep], clean[:, :, keep])


@each_impl
def test_the_layer_goes_there_and_back(impl: str) -> None:
    layer = ResidualVectorQuantizer(3, 40, 6).requires_grad_(False)
    assert list(layer.state_dict()) == ["codebooks.0", "codebooks.1", "codebooks.2"]
    x = torch.randn(2, 6, 11)
    codes = layer.encode(x, 2, backend=impl)
    assert torch.equal(codes, rvq_encode_ref(x, layer.params(), 2))
    expected = sum(layer.codebooks[k][codes[:, k]] for k in range(2)).transpose(1, 2)
    assert torch.equal(layer.decode(codes, backend=impl), expected)


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = RvqParams(torch.randn(3, 48, 20))
    x = torch.randn(2, 20, 5)
    for n_q in (0, 4, -1, 2.0, True, None):
        with pytest.raises(ArgumentError, match="n_q"):
            rvq_encode(x, params, n_q, backend=impl)
    with pytest.raises(ShapeError, match="x: expected"):
        rvq_encode(x[:, 1:], params, 1, backend=impl)
    with pytest.raises(DtypeError, match="x: expected"):
        rvq_encode(x.half(), params, 1, backend=impl)
    with pytest.raises(ShapeError, match="codebooks"):
        RvqParams(torch.randn(3, 48))
