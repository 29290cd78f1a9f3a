"""Convolution layer with fused activation and padding that keeps the length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Prepared
from fastvoc.ops import conv1d as op
from fastvoc.ops.activation import IDENTITY, Activation


class Conv1d(nn.Module):
    """conv1d with its weights: weight [out, in, K], bias [out] or None, stride 1, (K - 1) // 2 padded on each side."""

    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        pad_mode: str = "zeros",
        pre: Activation = IDENTITY,
        post: Activation = IDENTITY,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self._pad_mode, self._pre, self._post = pad_mode, pre, post
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan in), torch's default for convolutions."""
        bound = self.weight[0].numel() ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def params(self) -> op.Conv1dParams:
        """The op's view of this layer."""
        weight = self.weight
        pad = (weight.shape[2] - 1) // 2
        return op.Conv1dParams(weight, self.bias, 1, 1, (pad, pad), self._pad_mode, self._pre, self._post)

    def _tensors(self) -> list[Tensor]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, in, T] -> [B, out, T]."""
        return self.prepared(x, None, lengths, backend=backend)
