"""Residual vector quantiser in few dimensions: every codebook projects down, looks up by angle, and projects back.

The "factorised codes" of ViT-VQGAN (Yu et al. 2021, arXiv 2110.04627) as DAC (arXiv 2306.06546) and SNAC have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.layer import Layer, OfCodes, Part
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import rvq_decode, rvq_encode
from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.ops.stream import PointStream
from fastvoc.runtime.lengths import on_device

_LEAST_NORM = 1e-12
_Run = Callable[..., Tensor]
# (residual [B, channels, T], lengths) -> codes [B, T], and the entries they name [B, channels, T]
Search = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class Codebook(nn.Module):
    """The entries of one codebook: weight [entries, dimensions]."""

    def __init__(self, entries: int, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(entries, dimensions))
        nn.init.normal_(self.weight)


class FactorisedBook(nn.Module):
    """A codebook between its projections: in_proj and out_proj, convolutions of kernel 1, and codebook.weight.

    The nearest entry is the one at the least angle; the entry goes on as it is, not at unit length.
    """

    def __init__(self, entries: int, dimensions: int, channels: int) -> None:
        super().__init__()
        self.in_proj = Conv1d(channels, dimensions, 1)
        self.codebook = Codebook(entries, dimensions)
        self.out_proj = Conv1d(dimensions, channels, 1)
        self.encoder = Prepared(rvq_encode.OP, self.directions, self._entries)
        self.decoder = Prepared(rvq_decode.OP, self.entries, self._entries)

    def directions(self) -> RvqParams:
        """The entries at unit length, for the search."""
        weight: Tensor = F.normalize(self.codebook.weight, eps=_LEAST_NORM)
        return RvqParams(weight[None])

    def entries(self) -> RvqParams:
        """The entries as they are."""
        return RvqParams(self.codebook.weight[None])

    def table(self) -> Tensor:
        """[entries, channels]: what each entry stands for."""
        entries = self.codebook.weight.t()[None]
        table: Tensor = F.conv1d(entries, self.out_proj.weight, self.out_proj.bias)
        return table[0].t()

    def nearest(self, latent: Tensor) -> Tensor:
        """[B, dimensions, T] -> the codes [B, T] of the entries at the least angle."""
        return self.encoder(_unit(latent), 1, None)[:, 0]

    def tensors(self) -> list[Tensor]:
        """All weights."""
        return [*self._entries(), *self.in_proj.held(), *self.out_proj.held()]

    def _entries(self) -> list[Tensor]:
        return [self.codebook.weight]

    def searching(self) -> dict[str, Prepared]:
        """The ops of `search`, by name."""
        return {"in_proj": self.in_proj.prepared, "search": self.encoder, "out_proj": self.out_proj.prepared}

    def search(self, backend: str | None) -> Search:
        """What finds the codes of a residual, with the weights as they are now."""
        dtype = self.codebook.weight.dtype
        (down, find, up) = (bound_on_device(op, dtype, backend) for op in self.searching().values())
        entries = self.codebook.weight

        def run(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
            codes = find(_unit(down(x, None, lengths)), 1, lengths)[:, 0]
            return codes, up(F.embedding(codes, entries).transpose(1, 2), None, lengths)

        return run


class FactorisedQuantizer(Wide):
    """Codebooks one after the other on what those before left: `quantizers.{k}`.

    They stay in float32 where the network around them is cast to less: a rounded codebook names other entries.
    """

    def __init__(self, entries: int, dimensions: Sequence[int], channels: int) -> None:
        super().__init__()
        self.books = [FactorisedBook(entries, dimension, channels) for dimension in dimensions]
        self.quantizers = nn.ModuleList(self.books)
        self.channels, self._decoder = channels, Prepared(rvq_decode.OP, self._tables, self._tensors)
        self.decoding = FactorisedDecode(self, self._decoder)

    def _tables(self) -> RvqParams:
        return RvqParams(torch.stack([book.table() for book in self.books]))

    def _tensors(self) -> list[Tensor]:
        return [tensor for book in self.books for tensor in book.tensors()]

    def encoding(self, count: int) -> FactorisedEncode:
        """The part that makes `count` codes of every step."""
        return FactorisedEncode(self, self.books, count)


class BooksEncode(Part):
    """The part that looks a quantiser's residuals up in the first `count` of its codebooks."""

    name = "quantizer.encode"

    def __init__(self, quantizer: nn.Module, books: Sequence[FactorisedBook], count: int) -> None:
        self._owner, self._books = quantizer, books[:count]

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._books[0].codebook.weight.dtype
        return dtype

    def owners(self) -> list[nn.Module]:
        return [self._owner]

    def ops(self) -> dict[str, Prepared]:
        return {f"{k}.{name}": op for k, book in enumerate(self._books) for name, op in book.searching().items()}

    @torch.no_grad()
    def __call__(self, x: Tensor, *, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        return self.bound(backend)[0](x, lengths)


class FactorisedEncode(BooksEncode):
    """[B, channels, T] -> codes [B, count, T] int64."""

    def bound(self, backend: str | None) -> tuple[_Run, bool]:
        searches = [book.search(backend) for book in self._books]

        def run(x: Tensor, lengths: Tensor | None) -> Tensor:
            codes = []
            for search in searches:
                code, entry = search(x, lengths)
                codes.append(code)
                x = x - entry
            return torch.stack(codes, 1)

        return run, False

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        run, _ = self.bound(backend)
        return PointStream(lambda x: run(x, None), len(self._books), dtype=torch.int64)


class FactorisedDecode(OfCodes):
    """Codes [B, K, T] int64, K up to the number of codebooks -> [B, channels, T] in the codebooks' dtype."""

    name = "quantizer.decode"

    def __init__(self, quantizer: FactorisedQuantizer, prepared: Prepared) -> None:
        self._quantizer, self.prepared = quantizer, prepared

    def width(self) -> int:
        return self._quantizer.channels

    def owners(self) -> list[nn.Module]:
        return [self._quantizer]

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        run, _ = self.prepared.bound(torch.int64, backend)
        dtype = self._quantizer.books[0].codebook.weight.dtype
        return PointStream(lambda codes: run(codes, None), self.width(), dtype=dtype)

    __call__ = Layer.forward


def _unit(x: Tensor) -> Tensor:
    """x [B, C, T] at length 1 in every step; the length in float64, where no order of the sum shows."""
    wide = x.double()
    return (wide / wide.square().sum(1, keepdim=True).sqrt().clamp_min(_LEAST_NORM)).to(x.dtype)


def bound_on_device(prepared: Prepared, dtype: torch.dtype, backend: str | None) -> _Run:
    """What runs an op on x of `dtype`; lengths, its last argument, may lie on the CPU wherever x does."""
    run, either = prepared.bound(dtype, backend)
    if not either:
        return run
    return lambda x, *more: run(x, *more[:-1], on_device(more[-1], x))
