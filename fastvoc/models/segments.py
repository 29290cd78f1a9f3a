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
        at = torch.arange(1, first + 1, dtype=torch.float64, device=device or "cpu") / (first + 1)
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


class Blend:
    """A batch of signals put together from their segments, which come in any order.

    sizes: samples of each segment of each item. What one has beyond its own samples is 0.
    """

    def __init__(self, sizes: list[list[int]], stride: int, device: torch.device | None = None) -> None:
        self._fades = [Fade(row[0], stride, device) for row in sizes]
        self._ends = [(stride * (len(row) - 1), row[-1]) for row in sizes]
        self._early: list[dict[int, Tensor]] = [{} for _ in sizes]  # those that wait for one before them
        self._given = [0] * len(sizes)
        self._stride = stride
        self._out: Tensor | None = None

    def add(self, item: int, index: int, piece: Tensor) -> None:
        """Segment number `index` [C, n] of an item."""
        if self._out is None:
            self._out = piece.new_zeros((len(self._ends), len(piece), max(sum(end) for end in self._ends)))
        early = self._early[item]
        early[index] = piece
        while (number := self._given[item]) in early:
            before = self._fades[item].push(early.pop(number))
            start = max(number - 1, 0) * self._stride
            self._out[item, :, start : start + before.shape[1]] = before
            self._given[item] += 1

    def whole(self) -> Tensor:
        """[B, C, S], of the segments' dtype, once all are there."""
        assert self._out is not None
        for item, (start, size) in enumerate(self._ends):
            self._out[item, :, start : start + size] = self._fades[item].rest()
        return self._out
