"""What HiFT networks do between their layers: reflect one step, and leave off what later steps would change."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.nn.layer import Plain, Steps
from fastvoc.nn.streams import Begin
from fastvoc.runtime.lengths import on_device


class Shortened(Plain):
    """x [B, C, T] without the last `count` steps of each item."""

    def __init__(self, count: int) -> None:
        self._count = count

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths - self._count

    def compute(self, x: Tensor, *more: Tensor | None) -> Tensor:
        (lengths,) = more
        return shortened(x, lengths, self._count)


def shortened(x: Tensor, lengths: Tensor | None, count: int) -> Tensor:
    """x [..., T] without the last `count` steps of each item; what then lies beyond the lengths is 0."""
    if count == 0:
        return x
    x = x[..., : x.shape[-1] - count]
    if lengths is None:
        return x
    beyond = torch.arange(x.shape[-1], device=x.device) >= on_device(lengths - count, x)[:, None]
    return x.masked_fill(beyond if x.dim() == 2 else beyond[:, None], 0)


class ReflectOne(Plain):
    """x [B, C, T > 1] with one reflected step before the first."""

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths + 1

    def compute(self, x: Tensor, *more: object) -> Tensor:
        rows = x.transpose(1, 2)  # in its own memory layout
        return torch.cat([rows[:, 1:2], rows], 1).transpose(1, 2)

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> ReflectFirst:
        return ReflectFirst(self)


class ReflectFirst(Begin):
    """The same on a signal in chunks, as soon as the second step is there."""

    def __init__(self, reflect: ReflectOne) -> None:
        super().__init__(2)
        self._reflect = reflect

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - 1, last - 1

    def step(self, x: Tensor, final: bool) -> Tensor:
        """[B, C, n] -> [B, C, n], n + 1 once."""
        if self._begun:
            return x
        x, begun = self.take(x)
        return self._reflect.compute(x, None) if begun else x[:, :, :0]
