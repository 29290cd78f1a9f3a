"""SEANet's layers between two recurrent ones, piece by piece where a signal is long."""

from __future__ import annotations

from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

from fastvoc.nn.pieces import Pieces, cuttable
from fastvoc.nn.seanet import SeanetBlock, SeanetConv, SeanetUpsample

# The widest activation in float32 of a piece, or of items that go together where none can be cut: a piece reads little
# beside itself, and larger activations come from fresh pages at each call.
_PIECE_BYTES = 12 << 20


class SeanetChain:
    """Layers that run one after the other; they belong to the model that made them."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._convs = [x for x in layers if isinstance(x, SeanetConv | SeanetUpsample | SeanetBlock)]
        self._down = prod(x.stride for x in layers if isinstance(x, SeanetConv))
        self._up = prod(x.stride for x in layers if isinstance(x, SeanetUpsample))

    def __call__(
        self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, in, T] -> [B, out, T_out] and the lengths that follow from those given."""
        batch, _, steps = x.shape
        frames = -(-steps // self._down)
        if not self._convs or not cuttable(x, backend):
            return self._whole(x, lengths, backend)
        if not self._local:
            return self._by_items(x, lengths, backend, max(_PIECE_BYTES // (4 * frames * self._widest), 1))
        if self._pieces.fit(batch, frames):
            return self._whole(x, lengths, backend)
        counts = None if lengths is None else -(-lengths // self._down)

        def run(rows: slice | Tensor, low: int, high: int, _: Tensor | None) -> Tensor:
            begin, end = low * self._down, min(high * self._down, steps)
            valid = None if lengths is None else (lengths[rows] - begin).clamp(max=end - begin)
            return self._whole(x[rows, :, begin:end], valid, backend)[0]

        y = self._pieces.run(batch, frames, counts, lambda n: n * self._up, run)
        return y, None if counts is None else counts * self._up

    def _whole(self, x: Tensor, lengths: Tensor | None, backend: str | None) -> tuple[Tensor, Tensor | None]:
        for layer in self._layers:
            x = layer(x, lengths, backend)
            if isinstance(layer, SeanetConv | SeanetUpsample):
                lengths = layer.output_lengths(lengths)
        return x, lengths

    def _by_items(
        self, x: Tensor, lengths: Tensor | None, backend: str | None, together: int
    ) -> tuple[Tensor, Tensor | None]:
        """So many items at a time, each of them whole."""
        cuts = [slice(first, first + together) for first in range(0, len(x), together)]
        made = [self._whole(x[cut], None if lengths is None else lengths[cut], backend) for cut in cuts]
        counts = [n for _, n in made if n is not None]
        return torch.cat([y for y, _ in made]), torch.cat(counts) if counts else None

    @property
    def _local(self) -> bool:
        """Whether an output reads a few steps only, and not, as by a group norm, all of them."""
        return len(self._convs) == len(self._layers) and not any(x.normed for x in self._convs)

    @cached_property
    def _pieces(self) -> Pieces:
        streams = [layer.stream("torch") for conv in self._convs for layer in conv.layers().values()]

        def reads(first: int, last: int) -> tuple[int, int]:
            for stream in reversed(streams):
                first, last = stream.reads(first, last)
            return first // self._down, last // self._down

        return Pieces.of(reads, (), self._up, self._widest, _PIECE_BYTES)

    @cached_property
    def _widest(self) -> int:
        """Floats per frame of the widest activation."""
        rate, widest = self._down, 0
        for conv in self._convs:
            rate = rate * conv.stride if isinstance(conv, SeanetUpsample) else rate // conv.stride
            widest = max(widest, rate * conv.channels)
        return widest
