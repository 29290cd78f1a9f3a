"""A linear layer over the channels of every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import conv1d as op


class Linear(Layer, nn.Module):
    """conv1d of kernel 1 with a linear layer's weights: weight [out, in], bias [out]."""

    MORE = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.02 cut at 2, bias 0."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def params(self) -> op.Conv1dParams:
        """The op's view of this layer."""
        return op.Conv1dParams(self.weight[:, :, None], self.bias)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]

    def width(self) -> int:
        return self.weight.shape[0]
