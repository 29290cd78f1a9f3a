"""Adaptive instance norms of a network, and the layer that gives all of them their styles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.snake import Snake
from fastvoc.nn.wide import Wide
from fastvoc.ops import adain as op
from fastvoc.ops import conv1d as conv1d_op
from fastvoc.ops.activation import Activation


class WideLinear(Wide, nn.Linear):
    """A linear layer that stays in float32 or float64 where the network around it is cast to less."""


class _Scale(nn.Module):
    """Scale `weight` [C] and shift `bias` [C] of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)


class AdaIn(Layer, nn.Module):
    """adain and the activation behind it: `norm` (its own scale and shift) and `fc`, which makes its part of a style.

    The further input is what `Styles` gives, of which each norm takes its own rows. act: the activation, a Snake of its
    own (`snake`) when None. An item's result depends on all of its steps.
    """

    MORE = 1
    REACH = "all"

    def __init__(self, channels: int, style_dim: int, act: Activation | None = None) -> None:
        super().__init__()
        self.norm = _Scale(channels)
        self.fc = WideLinear(style_dim, 2 * channels)
        self.snake = Snake(channels, eps=0.0) if act is None else None
        self._act, self._channels = act, channels
        self.first = 0  # of its rows in a style
        self.prepared = Prepared(op.OP, self.params, self._tensors)

    def params(self) -> op.AdaInParams:
        """The op's view of this layer."""
        act = self._act if self.snake is None else self.snake.activation()
        assert act is not None
        return op.AdaInParams(self.norm.weight, self.norm.bias, act=act)

    def _tensors(self) -> list[Tensor]:
        alpha = [] if self.snake is None else [self.snake.alpha]
        return [self.norm.weight, self.norm.bias, *alpha]

    def width(self) -> int:
        return self._channels

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        run, either = super().bound(backend)
        return lambda x, styles, lengths: run(x, self._own(styles), lengths), either

    def forward(
        self, x: Tensor, *more: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """x [B, C, T] and the styles [B, rows, 1] of all norms -> [B, C, T]; `lengths` are valid steps of x."""
        (styles,) = more
        assert styles is not None
        return self.prepared(x, self._own(styles), lengths, backend=backend)

    def _own(self, styles: Tensor) -> Tensor:
        return styles[:, self.first : self.first + 2 * self._channels]


class Styles(Layer):
    """A style [B, style_dim, 1] -> the rows [B, rows, 1] of all norms, by the `fc` of each, in one product."""

    name = "styles"

    def __init__(self, norms: Sequence[AdaIn]) -> None:
        self._norms = list(norms)
        self._rows = 0
        for norm in self._norms:
            norm.first, self._rows = self._rows, self._rows + norm.fc.out_features
        self.prepared = Prepared(conv1d_op.OP, self.params, self._tensors)

    def params(self) -> conv1d_op.Conv1dParams:
        """The op's view of this layer: a convolution of kernel 1."""
        weight, bias = (torch.cat([getattr(norm.fc, name) for norm in self._norms]) for name in ("weight", "bias"))
        return conv1d_op.Conv1dParams(weight[:, :, None], bias)

    def _tensors(self) -> list[Tensor]:
        return [tensor for norm in self._norms for tensor in (norm.fc.weight, norm.fc.bias)]

    def width(self) -> int:
        return self._rows

    def owners(self) -> list[nn.Module]:
        return [norm.fc for norm in self._norms]

    __call__ = Layer.forward
