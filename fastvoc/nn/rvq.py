"""Residual vector quantiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import rvq_decode, rvq_encode
from fastvoc.ops.rvq_decode import RvqParams


class ResidualVectorQuantizer(Wide):
    """rvq_encode and rvq_decode with their codebooks: `codebooks.{k}` [entries, channels].

    They stay in float32 where the network around them is cast to less: a rounded codebook names other entries.
    """

    def __init__(self, num_codebooks: int, entries: int, channels: int) -> None:
        super().__init__()
        self.codebooks = nn.ParameterList(nn.Parameter(torch.empty(entries, channels)) for _ in range(num_codebooks))
        self.encoder = Prepared(rvq_encode.OP, self.params, self._tensors)
        self.decoder = Prepared(rvq_decode.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Standard normal entries."""
        for codebook in self.codebooks:
            nn.init.normal_(codebook)

    def params(self) -> RvqParams:
        """The ops' view of the codebooks."""
        return RvqParams(torch.stack(self._tensors()))

    def _tensors(self) -> list[Tensor]:
        return list(self.codebooks)

    def encode(self, x: Tensor, n_q: int, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, channels, T] -> codes [B, n_q, T] int64."""
        return self.encoder(x.to(self.codebooks[0].dtype), n_q, lengths, backend=backend)

    def decode(self, codes: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """Codes [B, K, T] int64, K up to the number of codebooks -> [B, channels, T] in the codebooks' dtype."""
        return self.decoder(codes, lengths, backend=backend)
