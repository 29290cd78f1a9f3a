"""Depthwise convolution layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import depthwise as op


class DepthwiseConv(nn.Module):
    """The weights of a convolution of every channel with itself alone: weight [C, 1, K], bias [C]."""

    input_range = None

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))
        self.dilation = dilation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(K), torch's default for convolutions."""
        bound = self.weight.shape[2] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def held(self) -> list[Tensor]:
        """Weight and bias."""
        return [self.weight, self.bias]


class Depthwise(Layer, DepthwiseConv):
    """depthwise with its weights."""

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__(channels, kernel_size, dilation)
        self.prepared = Prepared(op.OP, self.params, self.held)

    def params(self) -> op.DepthwiseParams:
        """The op's view of this layer."""
        return op.DepthwiseParams(self.weight, self.bias, self.dilation)

    def width(self) -> int:
        return self.weight.shape[0]
