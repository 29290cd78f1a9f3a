"""Upsampling layer: activation and transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Prepared
from fastvoc.ops import upsample as op
from fastvoc.ops.activation import IDENTITY, Activation


class Upsample(nn.Module):
    """upsample with its weights: weight [in, out, K], bias [out]; padding as in torch's ConvTranspose1d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        output_padding: int = 0,
        *,
        pre: Activation = IDENTITY,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self._stride, self._crop, self._pre = stride, (padding, padding - output_padding), pre
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.01, as HiFi-GAN starts its training; bias 0."""
        nn.init.normal_(self.weight, 0.0, 0.01)
        nn.init.zeros_(self.bias)

    def params(self) -> op.UpsampleParams:
        """The op's view of this layer."""
        return op.UpsampleParams(self.weight, self.bias, self._stride, self._crop, self._pre)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]

    def output_lengths(self, lengths: Tensor | None) -> Tensor | None:
        """Valid output steps of each item."""
        if lengths is None:
            return None
        return (lengths - 1) * self._stride + self.weight.shape[2] - sum(self._crop)

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, in, T] -> [B, out, T_out]."""
        return self.prepared(x, lengths, backend=backend)
