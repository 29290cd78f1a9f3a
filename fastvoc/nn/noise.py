"""Noise beside a signal, decided by a seed and by where it lies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastvoc.nn.layer import Plain
from fastvoc.ops.noise import noise_signal, normal_noise

Draw = Callable[[Tensor, int, int | Tensor], Tensor]  # (seeds [B], steps, from step) -> [B, channels, steps]


class NormalNoise(Plain):
    """x [B, C, T] and seeds [B] int64 -> standard normal noise [B, channels, T] of x's dtype."""

    MORE = 1

    def __init__(self, channels: int) -> None:
        self._channels = channels

    def width(self) -> int:
        return self._channels

    def compute(self, x: Tensor, seed: Tensor, lengths: Tensor | None = None) -> Tensor:
        return normal_noise(seed, self._channels, x.shape[2]).to(x.dtype)

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> NoiseStream:
        return NoiseStream(partial(_channels, count=self._channels))


class NoiseSignal(Plain):
    """x [B, C, T] and seeds [B] int64 -> the standard normal noise [B, 1, T] of a number, of x's dtype."""

    MORE = 1

    def __init__(self, number: int) -> None:
        self._number = number

    def compute(self, x: Tensor, seed: Tensor, lengths: Tensor | None = None) -> Tensor:
        return noise_signal(seed, x.shape[2], 0, self._number).to(x.dtype)

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> NoiseStream:
        return NoiseStream(partial(noise_signal, number=self._number))


def _channels(seed: Tensor, steps: int, start: int | Tensor, count: int) -> Tensor:
    return normal_noise(seed, count, steps, start)


class NoiseStream:
    """The noise of a batch of streams, which may have come differently far."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._next: Tensor | None = None  # [B]: the step of every stream that comes next

    @property
    def counters(self) -> tuple[int, ...]:
        return (int(self._next is not None),)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._next is None else {"next": self._next}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._next = tensors.get("next")

    def fits(self, batch: int) -> bool:
        """Whether the steps, if any, are those of so many streams."""
        at = self._next
        return at is None or (at.shape == (batch,) and at.dtype is torch.int64 and bool((at >= 0).all()))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first, last

    def step(self, x: Tensor, final: bool, seed: Tensor) -> Tensor:
        """The noise [B, channels, n] beside x [B, C, n]."""
        at = torch.zeros_like(seed) if self._next is None else self._next
        self._next = at + x.shape[2]
        return self._draw(seed, x.shape[2], at).to(x.dtype)
