"""Long signals in overlapping segments: where they lie, and how decoded ones are faded into each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """`size` steps from `start` on of an item of a batch; the item's segment number `index`."""

    item: int
    index: int
    start: int
    size: int


def cut(samples: list[int], length: int, stride: int) -> list[Segment]:
    """The segments of each item: one begins every `stride` samples, and is `length` long or ends with the item."""
    return [
        Segment(item, start // stride, start, min(length, total - start))
        for item, total in enumerate(samples)
        for start in range(0, total, stride)
    ]


def frames_of(samples: int, length: int, stride: int, hop: int) -> list[int]:
    """Frames of `hop` samples, the last one filled up, in each segment of a signal."""
    return [-(-piece.size // hop) for piece in cut([samples], length, stride)]


class Fade:
    """Segments [C, n_i] of one signal, one every `stride` samples, faded into each other as they come.

    Each is weighted by a triangle as wide as the first segment is long, `first` samples, and the sum is divided by that
    of the weights (github.com/facebookresearch/encodec, `utils.py`).
    """

    def __init__(self, first: int, stride: int, device: torch.device | None = None) -> None:
        # Whole numbers in float64: the same weights whatever the number of threads.
        at = torch.arange(1, first + 1, dtype=torch.float64, device=device) / (first + 1)
        self._weight = (0.5 - (at - 0.5).abs()).float()
        self._stride = stride
        self._sums: Tensor | None = None  # of the weighted samples, from the last segment's begin on
        self._weights = self._weight[:0]
        self._last = 0

    def push(self, piece: Tensor) -> Tensor:
        """The next segment -> the `stride` samples before it, none before the first; float32."""
        if self._sums is None:
            self._sums = self._weight.new_zeros((len(piece), 0))
        out = self._sums[:, : self._stride] / self._weights[: self._stride]
        self._sums, self._weights = self._sums[:, self._stride :], self._weights[self._stride :]
        size = self._last = piece.shape[1]
        missing = max(0, size - self._sums.shape[1])
        self._sums, self._weights = F.pad(self._sums, (0, missing)), F.pad(self._weights, (0, missing))
        self._sums[:, :size] += self._weight[:size] * piece
        self._weights[:size] += self._weight[:size]
        return out

    def rest(self) -> Tensor:
        """The samples of the last segment; what those before it have beyond its end is cut off."""
        assert self._sums is not None
        return self._sums[:, : self._last] / self._weights[: self._last]


def overlap_add(pieces: list[Tensor], stride: int) -> Tensor:
    """Segments [C, n_i], faded into each other by `Fade` -> [C, stride * (N - 1) + n_last]."""
    fade = Fade(pieces[0].shape[1], stride, pieces[0].device)
    return torch.cat([*(fade.push(piece) for piece in pieces), fade.rest()], 1).to(pieces[0].dtype)
