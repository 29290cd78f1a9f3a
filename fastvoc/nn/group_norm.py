"""Group norm of one group with a fused addition and activation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import group_norm_act as op
from fastvoc.ops.activation import IDENTITY, Activation


class GroupNormAct(Layer, nn.Module):
    """group_norm_act with its weights: weight [C], bias [C]."""

    MORE = 1
    REACH = "all"

    def __init__(self, channels: int, eps: float = 1e-5, act: Activation = IDENTITY) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self._eps, self._act = eps, act
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def params(self) -> op.GroupNormParams:
        """The op's view of this layer."""
        return op.GroupNormParams(self.weight, self.bias, self._eps, self._act)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias, *self._act.tensors()]

    def width(self) -> int:
        return self.weight.shape[0]
