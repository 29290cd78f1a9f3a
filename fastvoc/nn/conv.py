"""Convolution layer with fused activations and padding."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer, Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import QuantizedInput
from fastvoc.nn.wide import Wide
from fastvoc.ops import conv1d as op
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.join import Added
from fastvoc.ops.stream import OpStream, TailStream


class Conv1d(Layer, QuantizedInput):
    """conv1d with its weights: weight [out, in, K], bias [out] or None.

    `padding` is (left, right) in samples; dilation * (K - 1) // 2 on each side when None.
    """

    MORE = 1
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: tuple[int, int] | None = None,
        bias: bool = True,
        pad_mode: str = "zeros",
        pre: Activation = IDENTITY,
        post: Activation = IDENTITY,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        even = dilation * (kernel_size - 1) // 2
        self._stride, self._dilation = stride, dilation
        self._padding = (even, even) if padding is None else padding
        self._pad_mode, self._pre, self._post = pad_mode, pre, post
        self.prepared = Prepared(op.OP, self.params, self.held)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan in), torch's default for convolutions."""
        bound = self.weight[0].numel() ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def params(self) -> op.Conv1dParams:
        """The op's view of this layer."""
        return op.Conv1dParams(
            self.weight,
            self.bias,
            self._stride,
            self._dilation,
            self._padding,
            self._pad_mode,
            self._pre,
            self._post,
            self.input_range,
        )

    def width(self) -> int:
        return self.weight.shape[0]

    def saved_by_bytes(self) -> float:
        return 0.75 * self.weight.numel()

    def output_lengths(self, lengths: Steps) -> Steps:
        reach = self._dilation * (self.weight.shape[2] - 1) + 1
        return (lengths + sum(self._padding) - reach) // self._stride + 1

    def tiles(self) -> tuple[int, int]:
        return (2 if op.paired(self.params()) else 1), 0

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> OpStream:
        stream = super().opened(backend, exact=exact)
        return Added(cast(TailStream, stream)) if further else stream


class WideConv1d(Wide, Conv1d):
    """Conv1d that stays in float32 or float64 where the network around it is cast to less."""
