"""Convolutions with a Snake of the network's own before them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.snake import Snake
from fastvoc.nn.upsample import Upsample
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.upsample import UpsampleParams


class SnakeConv1d(Conv1d):
    """Conv1d of snake(x); the Snake is a module that the network holds beside it."""

    def __init__(
        self,
        snake: Snake,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: tuple[int, int] | None = None,
        post: Activation = IDENTITY,
    ) -> None:
        super().__init__(snake.alpha.shape[0], out_channels, kernel_size, stride=stride, padding=padding, post=post)
        self._before = [snake]  # in a list, so that its parameters are not this module's, too

    def params(self) -> Conv1dParams:
        return replace(super().params(), pre=self._before[0].activation())

    def held(self) -> list[Tensor]:
        return [*super().held(), *self._before[0].parameters()]

    def owners(self) -> list[nn.Module]:
        return [self, *self._before]


class SnakeUpsample(Upsample):
    """Upsample of snake(x); the Snake is a module that the network holds beside it."""

    def __init__(
        self, snake: Snake, out_channels: int, kernel_size: int, stride: int, padding: int, output_padding: int = 0
    ) -> None:
        super().__init__(snake.alpha.shape[0], out_channels, kernel_size, stride, padding, output_padding)
        self._before = [snake]  # in a list, so that its parameters are not this module's, too

    def params(self) -> UpsampleParams:
        return replace(super().params(), pre=self._before[0].activation())

    def held(self) -> list[Tensor]:
        return [*super().held(), *self._before[0].parameters()]

    def owners(self) -> list[nn.Module]:
        return [self, *self._before]
