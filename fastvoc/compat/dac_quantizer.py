"""The quantiser of DAC's packages: latents in, their entries, codes and projections out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.compat.encodec import whole_codes
from fastvoc.compat.upstream import Upstream
from fastvoc.errors import ShapeError
from fastvoc.nn.factorised import FactorisedBook, FactorisedQuantizer


class Quantised(NamedTuple):
    """z [B, D, T], codes [B, K, T], latents [B, sum of the dimensions, T], their mean squared errors [K, B]."""

    z: Tensor
    codes: Tensor
    latents: Tensor
    errors: Tensor


class Quantizer(Upstream):
    """A `FactorisedQuantizer` as `dac.nn.quantize.ResidualVectorQuantize` and Transformers have it."""

    def __init__(self, quantizer: FactorisedQuantizer) -> None:
        super().__init__(quantizer)
        self._books: list[FactorisedBook] = quantizer.books
        self.n_codebooks = len(self._books)
        self.codebook_size = len(self._books[0].codebook.weight)
        self.codebook_dim = [book.codebook.weight.shape[1] for book in self._books]

    def quantised(self, z: Tensor, n_quantizers: int | None = None) -> Quantised:
        """[B, D, T] -> what all codebooks, or the first `n_quantizers`, make of it. Raises ShapeError."""
        self._check(z, self._books[0].in_proj.weight.shape[1], "z")
        count = self.n_codebooks if n_quantizers is None else n_quantizers
        residual, total = z.to(self._books[0].codebook.weight.dtype), torch.zeros_like(z)
        codes, latents, errors = [], [], []
        for book in self._books[: max(count, 1)]:
            latent = book.in_proj(residual)
            index = book.nearest(latent)
            entry = book.codebook.weight[index].transpose(1, 2)
            made = book.out_proj(entry)
            total, residual = total + made, residual - made
            codes.append(index)
            latents.append(latent)
            errors.append((latent - entry).square().mean((1, 2)))
        return Quantised(total, torch.stack(codes, 1), torch.cat(latents, 1), torch.stack(errors))

    def from_codes(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [B, K, T], K up to all -> z [B, D, T], the entries [B, sum of the dimensions, T], and the codes.

        Raises ShapeError, DtypeError or ArgumentError for codes that do not fit.
        """
        codes = whole_codes(codes, "codes")
        z = self._model.decoding(codes)
        entries = [book.codebook.weight[codes[:, k]].transpose(1, 2) for k, book in enumerate(self._books_of(codes))]
        return z, torch.cat(entries, 1), codes

    def from_latents(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B, the dimensions of the first codebooks, T] -> as `from_codes` of the nearest entries."""
        parts, first = [], 0
        for book, dimension in zip(self._books, self.codebook_dim, strict=True):
            if first + dimension > latents.shape[1]:
                break
            parts.append(book.nearest(latents[:, first : first + dimension]))
            first += dimension
        if not parts:
            raise ShapeError(f"latents: expected at least {self.codebook_dim[0]} channels, got {list(latents.shape)}")
        return self.from_codes(torch.stack(parts, 1))

    def _books_of(self, codes: Tensor) -> list[FactorisedBook]:
        return self._books[: codes.shape[1]]

    def _check(self, x: Tensor, channels: int, name: str) -> None:
        if x.dim() != 3 or x.shape[1] != channels or 0 in x.shape:
            raise ShapeError(f"{name}: expected [B > 0, {channels}, T > 0], got {list(x.shape)}")
