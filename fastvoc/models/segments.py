"""Long signals in overlapping segments: where they lie, and how decoded ones are faded into each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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


def overlap_add(pieces: list[Tensor], stride: int) -> Tensor:
    """Segments [C, n_i], one every `stride` samples, faded into each other -> [C, stride * (N - 1) + n_last].

    Each is weighted by a triangle as wide as the first segment is long, and the sum is divided by that of the weights
    (github.com/facebookresearch/encodec, `utils.py`). What a segment has beyond the end of the last is cut off.
    """
    first = pieces[0].shape[1]
    # Whole numbers in float64: the same weights whatever the number of threads.
    at = torch.arange(1, first + 1, dtype=torch.float64, device=pieces[0].device) / (first + 1)
    weight = (0.5 - (at - 0.5).abs()).float()
    total = stride * (len(pieces) - 1) + pieces[-1].shape[1]
    sums = weight.new_zeros(total)
    wav = weight.new_zeros((pieces[0].shape[0], total))
    for i, piece in enumerate(pieces):
        start = i * stride
        size = min(piece.shape[1], total - start)
        wav[:, start : start + size] += weight[:size] * piece[:, :size]
        sums[start : start + size] += weight[:size]
    return (wav / sums).to(pieces[0].dtype)
