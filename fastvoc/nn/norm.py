"""Layer norm over channels, plain or adaptive."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import layer_norm as op


class LayerNorm(Layer, nn.Module):
    """layer_norm with its weights: weight and bias [C], or [rows, C] for an adaptive norm."""

    MORE = 1

    def __init__(self, channels: int, rows: int | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        shape = (channels,) if rows is None else (rows, channels)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape))
        self._eps = eps
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def params(self) -> op.LayerNormParams:
        """The op's view of this layer."""
        return op.LayerNormParams(self.weight, self.bias, self._eps)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]

    def width(self) -> int:
        return self.weight.shape[-1]
