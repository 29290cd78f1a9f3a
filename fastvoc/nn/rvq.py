"""Residual vector quantiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer, OfCodes
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import rvq_decode, rvq_encode
from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.ops.stream import PointStream


class ResidualVectorQuantizer(Wide):
    """rvq_encode and rvq_decode with their codebooks: `codebooks.{k}` [entries, channels].

    They stay in float32 where the network around them is cast to less: a rounded codebook names other entries.
    name: what its parts are called in a network.
    """

    def __init__(self, num_codebooks: int, entries: int, channels: int, name: str = "quantizer") -> None:
        super().__init__()
        self.name = name
        self.codebooks = nn.ParameterList(nn.Parameter(torch.empty(entries, channels)) for _ in range(num_codebooks))
        self.encoder = Prepared(rvq_encode.OP, self.params, self._tensors)
        self.decoder = Prepared(rvq_decode.OP, self.params, self._tensors)
        self.decoding = Decode(self)
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

    def encoding(self, count: int) -> Encode:
        """The part that makes `count` codes of every step."""
        return Encode(self, count)

    def encode(self, x: Tensor, n_q: int, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, channels, T] -> codes [B, n_q, T] int64."""
        return self.encoder(x.to(self.codebooks[0].dtype), n_q, lengths, backend=backend)

    def decode(self, codes: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """Codes [B, K, T] int64, K up to the number of codebooks -> [B, channels, T] in the codebooks' dtype."""
        return self.decoder(codes, lengths, backend=backend)


class Encode(Layer):
    """[B, channels, T] -> codes [B, count, T] int64."""

    def __init__(self, quantizer: ResidualVectorQuantizer, count: int) -> None:
        self.name = f"{quantizer.name}.encode"
        self._quantizer, self._count, self.prepared = quantizer, count, quantizer.encoder

    def owners(self) -> list[nn.Module]:
        return [self._quantizer]

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        run, _ = super().bound(backend)
        count = self._count
        return lambda x, lengths: run(x, count, lengths), False

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        run, _ = self.bound(backend)
        return PointStream(lambda x: run(x, None), self._count, dtype=torch.int64)

    def __call__(
        self, x: Tensor, *more: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        return self.prepared(x, self._count, lengths, backend=backend)


class Decode(OfCodes):
    """Codes [B, K, T] int64, K up to the number of codebooks -> [B, channels, T] in the codebooks' dtype."""

    def __init__(self, quantizer: ResidualVectorQuantizer) -> None:
        self.name = f"{quantizer.name}.decode"
        self._quantizer, self.prepared = quantizer, quantizer.decoder

    def width(self) -> int:
        return int(self._quantizer.codebooks[0].shape[1])

    def owners(self) -> list[nn.Module]:
        return [self._quantizer]

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        run, _ = self.prepared.bound(torch.int64, backend)
        return PointStream(lambda codes: run(codes, None), self.width(), dtype=self._quantizer.codebooks[0].dtype)

    __call__ = Layer.forward
