"""Branches of a model that reach a step at different times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ShapeError
from fastvoc.ops.stream import Cut, TailStream, cut_rows
from fastvoc.runtime.native import Native, Nothing


class Join:
    """Brings branches of different delay together: holds back what the others have not reached yet."""

    def __init__(self, branches: int) -> None:
        self._held: list[Tensor | None] = [None] * branches

    def __call__(self, *parts: Tensor) -> list[Tensor]:
        """The next chunk of every branch [B, C, n_i] -> those steps of every branch that all of them have."""
        whole = [
            part if held is None or not held.shape[2] else torch.cat([held, part], 2)
            for held, part in zip(self._held, parts, strict=True)
        ]
        count = min(part.shape[2] for part in whole)
        self._held = [part[:, :, count:] for part in whole]
        return [part[:, :, :count] for part in whole]

    @property
    def counters(self) -> tuple[int, ...]:
        """Steps held back of every branch."""
        return tuple(0 if held is None else held.shape[2] for held in self._held)

    def tensors(self) -> dict[str, Tensor]:
        """What is held back, batch first."""
        return {str(i): held for i, held in enumerate(self._held) if held is not None}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Continues from another one's `tensors`."""
        self._held = [tensors.get(str(i)) for i in range(len(counters))]


class Sum:
    """Two branches of different delay, added up as far as both have come.

    by: the native op that does it, that of C++ where it takes them; torch's when None.
    """

    def __init__(self, by: Native[Any] | None = None) -> None:
        self._by = by
        self._held: list[Tensor] | None = None  # of each branch [B, steps, C]

    def step(self, x: Tensor, final: bool, y: Tensor) -> Tensor:
        """The next chunk of either branch [B, C, n_i] -> the sum of the next steps that both have, [B, C, n]."""
        held = (
            [part.new_empty((part.shape[0], 0, part.shape[1])) for part in (x, y)] if self._held is None else self._held
        )
        by = self._by
        if by is not None and (by is not NATIVE or all(_takes(part) for part in (x, y))):
            total, *self._held = by.fast(x, y, *held)
            result: Tensor = total
            return result
        rows = [torch.cat([kept, part.transpose(1, 2)], 1) for kept, part in zip(held, (x, y), strict=True)]
        count = min(part.shape[1] for part in rows)
        self._held = [part[:, count:].clone() for part in rows]
        first, second = (part[:, :count] for part in rows)
        return (first + second).transpose(1, 2)

    @property
    def counters(self) -> tuple[int, ...]:
        """Steps held back of either branch."""
        return (0, 0) if self._held is None else tuple(held.shape[1] for held in self._held)

    def tensors(self) -> dict[str, Tensor]:
        """What is held back, batch first."""
        return {} if self._held is None else {str(i): held for i, held in enumerate(self._held)}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Continues from another one's `tensors`."""
        self._held = [tensors[str(i)].contiguous() for i in range(2)] if tensors else None


class Added:
    """An op stream whose op adds a residual; the residual's steps come no later than the outputs they are added to."""

    def __init__(self, stream: TailStream) -> None:
        self._stream, self.reads, self.either = stream, stream.reads, stream.either
        self._held: Tensor | None = None  # the residual's steps [B, n, C] whose outputs are still to come

    @property
    def counters(self) -> tuple[int, ...]:
        """Those of the op, and the steps held back."""
        return (*self._stream.counters, 0 if self._held is None else self._held.shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """What both keep, batch first."""
        held = {} if self._held is None else {"residual": self._held}
        return {**self._stream.tensors(), **held}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Continues from another one's `tensors`."""
        self._held = tensors.get("residual")
        self._stream.restore({key: t for key, t in tensors.items() if key != "residual"}, counters[:-1])

    def step(self, x: Tensor, final: bool, residual: Tensor) -> Tensor:
        """The next chunk of either -> the outputs that are complete, the residual added as in one call.

        Raises ShapeError where the residual has fewer steps.
        """
        held = self._held
        have = residual.shape[2] + (0 if held is None else held.shape[1])
        count = self._stream.due(x.shape[2], final)
        if have < count:
            raise ShapeError(f"residual: {have} steps where {count} are due")
        due, rest = cut_rows(residual, held, Cut(0, 0, count, 0, count), self._stream.rows)
        y = self._stream.step(x, final, due.transpose(1, 2))
        self._held = rest
        return y


def _takes(x: Tensor) -> bool:
    return x.dtype is torch.float32 and (x.stride(1) == 1 or not x.shape[2])


def _fake(_: Nothing, x: Tensor, y: Tensor, kept_x: Tensor, kept_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    have = kept_x.shape[1] + x.shape[2], kept_y.shape[1] + y.shape[2]
    count, channels = min(have), x.shape[1]
    rest = [x.new_empty((x.shape[0], steps - count, channels)) for steps in have]
    return x.new_empty((x.shape[0], count, channels)).transpose(1, 2), rest[0], rest[1]


NATIVE = Native("stream_sum", Nothing, _fake)
