"""Two residual vector quantisers of one signal, each between projections of its own (Mimi, arXiv 2410.00037, 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.layer import Part
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.rvq import ResidualVectorQuantizer
from fastvoc.ops.stream import PointStream
from fastvoc.runtime.lengths import on_device


class ProjectedQuantizer(nn.Module):
    """A residual quantiser between two projections, or alone: `rvq`, `input_proj` and `output_proj`."""

    def __init__(self, count: int, entries: int, channels: int, width: int | None, name: str) -> None:
        super().__init__()
        self.rvq = ResidualVectorQuantizer(count, entries, channels, name)
        self.input_proj = None if width is None else Conv1d(width, channels, 1, bias=False)
        self.output_proj = None if width is None else Conv1d(channels, width, 1, bias=False)

    def ops(self) -> dict[str, Prepared]:
        """What decoding runs."""
        output = {} if self.output_proj is None else {"output_proj": self.output_proj.prepared}
        return {"rvq": self.rvq.decoder, **output}

    def encode(self, run: Trace, x: Value, count: int) -> Value:
        """[B, width, T] -> codes [B, count, T]."""
        x = x if self.input_proj is None else run(self.input_proj, x)
        return run(self.rvq.encoding(count), x)

    def decoder(self, backend: str | None) -> Callable[[Tensor, Tensor | None], Tensor]:
        """What makes [B, width, T] of codes [B, K, T] and lengths."""
        decode, _ = self.rvq.decoding.bound(backend)
        if self.output_proj is None:
            return decode
        project, dtype = self.output_proj.bound(backend)[0], self.output_proj.dtype

        def run(codes: Tensor, lengths: Tensor | None) -> Tensor:
            return project(decode(codes, lengths).to(dtype), None, on_device(lengths, codes))

        return run

    def watched(self, codes: Tensor, lengths: Tensor | None, backend: str | None) -> Tensor:
        """The same by way of the layers, where autograd or a hook must see them."""
        x = self.rvq.decode(codes, lengths, backend)
        if self.output_proj is None:
            return x
        y: Tensor = self.output_proj(x.to(self.output_proj.dtype), lengths=lengths, backend=backend)
        return y


class SplitQuantizer(nn.Module):
    """The first `semantic` codebooks quantise one projection of a signal, the others what remains of another one.

    `semantic` and `acoustic` hold them; width: channels of the signal, None where it is not projected.
    """

    def __init__(self, num_codebooks: int, semantic: int, entries: int, channels: int, width: int | None) -> None:
        super().__init__()
        self.first = semantic
        self.semantic = ProjectedQuantizer(semantic, entries, channels, width, "quantizer.semantic")
        self.acoustic = ProjectedQuantizer(num_codebooks - semantic, entries, channels, width, "quantizer.acoustic")
        self.width = channels if width is None else width
        self.decoding = SplitDecode(self)

    def encode(self, run: Trace, x: Value, count: int) -> Value:
        """[B, width, T] -> codes [B, count, T]."""
        codes = self.semantic.encode(run, x, min(count, self.first))
        if count <= self.first:
            return codes
        return run.join(_together, codes, self.acoustic.encode(run, x, count - self.first))


class SplitDecode(Part):
    """Codes [B, K, T] int64, K up to the number of codebooks -> [B, width, T]."""

    name = "quantizer.decode"

    def __init__(self, quantizer: SplitQuantizer) -> None:
        self._quantizer = quantizer

    def width(self) -> int:
        return self._quantizer.width

    def owners(self) -> list[nn.Module]:
        return [self._quantizer]

    def ops(self) -> dict[str, Prepared]:
        both = {"semantic": self._quantizer.semantic, "acoustic": self._quantizer.acoustic}
        return {f"{name}.{op}": prepared for name, part in both.items() for op, prepared in part.ops().items()}

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        semantic, acoustic = (q.decoder(backend) for q in (self._quantizer.semantic, self._quantizer.acoustic))
        return lambda codes, lengths: self._sum(codes, semantic, acoustic, lengths), False

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        run, _ = self.bound(backend)
        projection = self._quantizer.semantic.output_proj
        dtype = self._quantizer.semantic.rvq.codebooks[0].dtype if projection is None else projection.dtype
        return PointStream(lambda codes: run(codes, None), self.width(), dtype=dtype)

    def __call__(
        self, codes: Tensor, *_: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        q = self._quantizer
        semantic, acoustic = (
            lambda part, valid, of=of: of.watched(part, valid, backend) for of in (q.semantic, q.acoustic)
        )
        return self._sum(codes, semantic, acoustic, lengths)

    def _sum(
        self,
        codes: Tensor,
        semantic: Callable[[Tensor, Tensor | None], Tensor],
        acoustic: Callable[[Tensor, Tensor | None], Tensor],
        lengths: Tensor | None,
    ) -> Tensor:
        first = self._quantizer.first
        y = semantic(codes[:, :first], lengths)
        return y if codes.shape[1] <= first else y + acoustic(codes[:, first:], lengths)


def _together(*codes: Tensor) -> Tensor:
    return torch.cat(codes, 1)
