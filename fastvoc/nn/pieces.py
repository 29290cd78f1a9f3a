"""Long clips in pieces, so that memory grows with the piece, not with the clip. The samples are those of one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from fastvoc.nn.network import Network
from fastvoc.runtime.lengths import planned
from fastvoc.runtime.registry import requested

# Of a network's widest activation in float32. A piece has two and some smaller ones at a time, on a GPU about eight.
PIECE_BYTES = 12 << 20
GPU_PIECE_BYTES = 256 << 20  # at which the multiprocessors have all they can do

# For batch items (a slice or an index), from frame, to frame -> [b, C, samples].
Run = Callable[[slice | Tensor, int, int], Tensor]


def cuttable(x: Tensor, backend: str | None) -> bool:
    """Whether a long input is cut: not where autograd watches, the torch reference is forced or a graph is recorded."""
    if torch.is_grad_enabled() or (backend or requested("*")) == "torch":
        return False
    kind = _kind(x)
    return kind == "cpu" or (kind == "cuda" and not planned() and not torch.cuda.is_current_stream_capturing())


def _kind(x: Tensor) -> str:
    return x.device.type


def _piece_bytes(device: str) -> int:
    return PIECE_BYTES if device == "cpu" else GPU_PIECE_BYTES


@dataclass(frozen=True)
class Pieces:
    """How a model may be run on parts of its input.

    frames: of a piece, over all items of a batch; before, after: frames beside a part on which it depends, with all
    that its tiles read; grain: a part begins at a multiple of so many frames, where the tiles of the whole begin too;
    hop: output steps per frame.
    """

    frames: int
    before: int
    after: int
    grain: int
    hop: int

    @classmethod
    def of(cls, network: Network, device: str = "cpu") -> Pieces:
        """The rule for a network on a kind of device, by the size of its widest value and by what an output reads."""
        first, last = network.reads(0, network.hop - 1)
        grain, slack = network.tiles()
        before, after = max(-first, 0) + slack, max(last, 0) + slack
        least = 10 * (before + after + grain)  # so that what is computed twice stays a tenth
        return cls(max(_piece_bytes(device) // (4 * network.widest), least), before, after, grain, network.hop)

    def run(self, batch: int, frames: int, lengths: Tensor | None, samples: Callable[[int], int], run: Run) -> Tensor:
        """Runs a model piece by piece; `lengths` are valid frames, `samples(frames)` is the output's length."""
        counts = [frames] * batch if lengths is None else lengths.tolist()
        together = max(self.frames // frames, 1)
        out: Tensor | None = None
        for first in range(0, batch, together):
            items = range(first, min(first + together, batch))
            longest = max(counts[i] for i in items)
            for begin, end in self._cuts(longest, self.frames // len(items)):
                alive = [i for i in items if counts[i] > begin]
                rows = slice(items[0], items[-1] + 1) if len(alive) == len(items) else torch.tensor(alive, device="cpu")
                low = max(begin - self.before, 0)
                high = min(end + self.after, longest)
                y = run(rows, low, high)
                if out is None:
                    out = y.new_zeros((batch, y.shape[1], samples(frames)))
                start = begin * self.hop
                stop = samples(longest) if end == longest else end * self.hop
                out[rows, :, start:stop] = y[:, :, start - low * self.hop : stop - low * self.hop]
        assert out is not None
        return out

    def _cuts(self, frames: int, most: int) -> Iterator[tuple[int, int]]:
        """Parts of about equal length, about `most` frames each; with what comes before, they begin at tiles."""
        share = ceil(frames / ceil(frames / max(most, 1)))
        step = ceil(share / self.grain) * self.grain
        begin = 0
        while begin < frames:
            end = min((begin or self.before) + step, frames)
            yield begin, end
            begin = end


@dataclass(frozen=True)
class Stretch:
    """A part of a network between two that remember the past, and how it is cut: in pieces, by items, or not at all."""

    network: Network
    pieces: Pieces | None
    by_items: bool
    bytes: int = PIECE_BYTES

    @classmethod
    def of(cls, network: Network, device: str = "cpu") -> Stretch:
        reaches = {part.REACH for _, part in network.parts()}
        rule = Pieces.of(network, device) if reaches == {"near"} else None
        return cls(network, rule, "past" not in reaches, _piece_bytes(device))

    def run(self, values: Sequence[Tensor | None], lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        network, x = self.network, values[0]
        assert x is not None
        unit = network.per_frame[0]
        frames = -(-x.shape[2] // unit)
        if self.pieces is None and self.by_items:
            return _by_items(network, values, lengths, backend, max(self.bytes // (4 * frames * network.widest), 1))
        if self.pieces is None or x.shape[0] * frames <= self.pieces.frames:
            return network(*values, lengths=lengths, backend=backend)
        counts = None if lengths is None else -(-lengths // unit)

        def run(rows: slice | Tensor, low: int, high: int) -> Tensor:
            parts = []
            for value, rate in zip(values, network.per_frame, strict=True):
                part = None if value is None else value[rows]
                parts.append(part[..., low * rate : high * rate] if rate and part is not None else part)
            valid = None if lengths is None else (lengths[rows] - low * unit).clamp(max=(high - low) * unit)
            return network(*parts, lengths=valid, backend=backend)

        def made(count: int) -> int:
            return network.length(min(count * unit, x.shape[2]))  # the last frame may not be whole

        return self.pieces.run(x.shape[0], frames, counts, made, run)


def in_pieces(
    network: Network, values: Sequence[Tensor | None], lengths: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """`network` on whole signals; long ones in pieces as far as an output depends on what is near it only."""
    x = values[0]
    assert x is not None
    if torch.compiler.is_compiling() or not cuttable(x, backend):
        return network(*values, lengths=lengths, backend=backend)
    kind = _kind(x)
    stretches = network.cut.get(kind)
    if stretches is None:
        stretches = network.cut[kind] = [Stretch.of(part, kind) for part in network.stretches()]
    first, *rest = stretches
    y: Tensor = first.run(values, lengths, backend)
    for before, part in zip(stretches, rest, strict=False):
        lengths = None if lengths is None else before.network.length(lengths)
        y = part.run((y,), lengths, backend)
    return y


def _by_items(
    network: Network, values: Sequence[Tensor | None], lengths: Tensor | None, backend: str | None, together: int
) -> Tensor:
    """So many items at a time, each of them whole."""
    cuts = [slice(first, first + together) for first in range(0, len(values[0]), together)]  # type: ignore[arg-type]
    made = []
    for cut in cuts:
        part = [None if value is None else value[cut] for value in values]
        made.append(network(*part, lengths=None if lengths is None else lengths[cut], backend=backend))
    return made[0] if len(made) == 1 else torch.cat(made)
