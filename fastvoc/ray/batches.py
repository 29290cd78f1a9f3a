"""Rows of different lengths in batches: similar ones together, no batch larger than asked for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fastvoc.errors import ArgumentError


def check_frames(frames: int) -> None:
    """Raises ArgumentError unless a batch may have so many frames."""
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ArgumentError(f"frames: expected 1 or more in a batch, got {frames!r}")


def batches(lengths: Sequence[int], frames: int, kinds: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Indices of rows, the longest first: each batch of one kind and of at most `frames` with its padding.

    A row that is longer than that is a batch of its own.
    """
    alike: dict[Hashable, list[int]] = {}
    for i in range(len(lengths)):
        alike.setdefault(None if kinds is None else kinds[i], []).append(i)
    made: list[list[int]] = []
    for members in alike.values():
        members.sort(key=lambda i: -lengths[i])
        begin = 0
        while begin < len(members):
            count = max(1, frames // max(1, lengths[members[begin]]))
            made.append(members[begin : begin + count])
            begin += count
    return made
