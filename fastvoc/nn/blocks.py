"""Parts that work on whole blocks of steps, and their streams."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastvoc.errors import DtypeError


class BlockStream:
    """An op on blocks of `size` input steps, each of which gives `outputs` steps by itself.

    run: [B, C, n * size] -> [B, C_out, n * outputs]. A signal ends with a whole block.
    """

    native = None

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        size: int,
        outputs: int,
        channels_out: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._run, self._size, self._outputs = run, size, outputs
        self._channels_out, self._dtype = channels_out, dtype
        self._tail: Tensor | None = None  # [B, steps, C]

    @property
    def counters(self) -> tuple[int, ...]:
        return (0 if self._tail is None else self._tail.shape[1],)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._tail is None else {"tail": self._tail}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._tail = tensors.get("tail")

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first // self._outputs * self._size, (last // self._outputs + 1) * self._size - 1

    def step(self, x: Tensor, final: bool) -> Tensor:
        """More input -> what the blocks give that it completes."""
        rows = x.transpose(1, 2)
        if self._tail is not None:
            if self._tail.dtype is not rows.dtype:
                raise DtypeError(f"tail: expected {rows.dtype}, got {self._tail.dtype}")
            rows = torch.cat([self._tail, rows], 1)
        whole = rows.shape[1] // self._size * self._size
        left = rows[:, whole:]
        self._tail = left.clone(memory_format=torch.contiguous_format) if left.shape[1] else None
        if not whole:
            return x.new_empty((x.shape[0], self._channels_out, 0), dtype=self._dtype)
        return self._run(rows[:, :whole].transpose(1, 2))
