"""Long clips in pieces, so that memory grows with the piece, not with the clip. The samples are those of one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil, gcd, lcm

import torch
from torch import Tensor

from fastvoc.nn.mrf import MrfStage
from fastvoc.registry import requested

# Of a model's widest activation in float32, unless it says otherwise. A piece has two and some smaller ones at a time.
PIECE_BYTES = 16 << 20

Reads = Callable[[int, int], tuple[int, int]]
# For batch items (a slice or an index), from frame, to frame, valid frames of each in between -> [b, C, samples].
Run = Callable[[slice | Tensor, int, int, Tensor | None], Tensor]


def cuttable(x: Tensor, backend: str | None) -> bool:
    """Whether a long input is cut: on the CPU, but not where autograd watches or the torch reference is forced."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and (backend or requested("*")) != "torch"


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
    def of(
        cls,
        reads: Reads,
        stages: Iterable[tuple[MrfStage, int]],
        hop: int,
        floats: int,
        most: int = PIECE_BYTES,
    ) -> Pieces:
        """The rule for a model.

        reads: the first and last frame that the output steps from one to another read; stages: its residual stages,
        and the steps per frame at each; floats: per frame, of the widest activation; most: bytes of that in float32.
        """
        first, last = reads(0, hop - 1)
        grain, slack = 1, 0
        for stage, rate in stages:
            tile, reach = stage.tiles()
            grain = lcm(grain, tile // gcd(tile, rate))
            slack += -(-reach // rate)
        before, after = max(-first, 0) + slack, max(last, 0) + slack
        least = 10 * (before + after + grain)  # so that what is computed twice stays a tenth
        return cls(max(most // (4 * floats), least), before, after, grain, hop)

    def fit(self, batch: int, frames: int) -> bool:
        """Whether so many items of so many frames are no longer than a piece."""
        return batch * frames <= self.frames

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
                valid = (
                    None if lengths is None else torch.tensor([min(counts[i], high) - low for i in alive], device="cpu")
                )
                y = run(rows, low, high, valid)
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
