"""The layers of a residual vector quantiser as EnCodec's packages nest them: views of codebooks held elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.ops.rvq_encode import rvq_encode_ref


class Codebook:
    """One codebook, `embed` [bins, D]: the parameter itself, so that what is written into it counts."""

    def __init__(self, books: nn.ParameterList, index: int) -> None:
        self._books, self._index = books, index

    @property
    def embed(self) -> Tensor:
        """[bins, D]."""
        embed: Tensor = self._books[self._index]
        return embed

    @property
    def codebook_size(self) -> int:
        """Entries."""
        return len(self.embed)

    @property
    def inited(self) -> Tensor:
        """[1], always 1: the entries are there."""
        return self.embed.new_ones(1)

    @torch.no_grad()
    def quantize(self, x: Tensor) -> Tensor:
        """[N, D] -> the nearest entries [N] int64."""
        return rvq_encode_ref(x.T[None], RvqParams(self.embed[None]), 1)[0, 0]

    def encode(self, x: Tensor) -> Tensor:
        """[..., D] -> the nearest entries [...] int64."""
        return self.quantize(x.reshape(-1, x.shape[-1])).reshape(x.shape[:-1])

    def dequantize(self, embed_ind: Tensor) -> Tensor:
        """Codes [...] -> entries [..., D]."""
        return nn.functional.embedding(embed_ind, self.embed)

    def decode(self, embed_ind: Tensor) -> Tensor:
        """Codes [...] -> entries [..., D]."""
        return self.dequantize(embed_ind)


class CodebookLayer:
    """One stage of the quantiser: `encode` [B, D, T] -> codes [B, T], `decode` [B, T] -> [B, D, T]."""

    def __init__(self, book: Codebook) -> None:
        self._codebook = book

    def encode(self, x: Tensor) -> Tensor:
        """[B, D, T] -> the nearest entries [B, T] int64."""
        return self._codebook.encode(x.mT)

    def decode(self, embed_ind: Tensor) -> Tensor:
        """Codes [B, T] -> [B, D, T]."""
        return self._codebook.decode(embed_ind).mT


class EncodecLayer(CodebookLayer):
    """A stage under the names of the `encodec` package; `codebook` is the tensor [bins, D]."""

    project_in = project_out = nn.Identity()

    @property
    def codebook(self) -> Tensor:
        """[bins, D]."""
        return self._codebook.embed

    @property
    def codebook_size(self) -> int:
        """Entries."""
        return self._codebook.codebook_size


class TransformersLayer(CodebookLayer):
    """A stage under Transformers' names; `codebook.embed` is the tensor [bins, D]."""

    @property
    def codebook(self) -> Codebook:
        """The stage's codebook."""
        return self._codebook


class Stages:
    """`quantizer.vq` of the `encodec` package: its stages, and codes [K, B, T] of them together."""

    def __init__(self, quantizer: Any) -> None:
        self._quantizer = quantizer
        self.layers = [EncodecLayer(Codebook(quantizer.codebooks, k)) for k in range(len(quantizer.codebooks))]

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """[B, D, T] -> codes [n_q, B, T] int64; all codebooks when None."""
        codes: Tensor = self._quantizer.encode(x, len(self.layers) if n_q is None else n_q)
        return codes.transpose(0, 1)

    def decode(self, q_indices: Tensor) -> Tensor:
        """Codes [K, B, T] -> [B, D, T]."""
        latent: Tensor = self._quantizer.decode(q_indices.transpose(0, 1).long())
        return latent
