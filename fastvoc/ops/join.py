"""Branches of a model that reach a step at different times."""

from __future__ import annotations

import torch
from torch import Tensor


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
