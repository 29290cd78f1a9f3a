"""Depthwise convolution layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.snake import Snake
from fastvoc.ops import depthwise as op
from fastvoc.ops.activation import IDENTITY


class Depthwise(Layer, nn.Module):
    """depthwise with its weights: weight [C, 1, K], bias [C]; a Snake before it is a module of the network's own."""

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1, *, snake: Snake | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))
        self._dilation = dilation
        self._before = [] if snake is None else [snake]  # in a list: its parameters are not this module's, too
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(K), torch's default for convolutions."""
        bound = self.weight.shape[2] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def params(self) -> op.DepthwiseParams:
        """The op's view of this layer."""
        pre = self._before[0].activation() if self._before else IDENTITY
        return op.DepthwiseParams(self.weight, self.bias, self._dilation, pre)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias, *(t for snake in self._before for t in snake.parameters())]

    def owners(self) -> list[nn.Module]:
        return [self, *self._before]

    def width(self) -> int:
        return self.weight.shape[0]
