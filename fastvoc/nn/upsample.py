"""Upsampling layer: activation and transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer, Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import QuantizedInput
from fastvoc.nn.wide import Wide
from fastvoc.ops import upsample as op
from fastvoc.ops.activation import IDENTITY, Activation


class Upsample(Layer, QuantizedInput):
    """upsample with its weights: weight [in, out, K], bias [out]; padding as in torch's ConvTranspose1d."""

    OUTPUTS = 1

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
        self.prepared = Prepared(op.OP, self.params, self.held)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.01, as HiFi-GAN starts its training; bias 0."""
        nn.init.normal_(self.weight, 0.0, 0.01)
        nn.init.zeros_(self.bias)

    def params(self) -> op.UpsampleParams:
        """The op's view of this layer."""
        return op.UpsampleParams(self.weight, self.bias, self._stride, self._crop, self._pre, self.input_range)

    def activate(self, pre: Activation) -> None:
        """Puts another activation in front, from the next call on."""
        self._pre = pre
        self.prepared.prepare(self.weight.device, self.weight.dtype)

    def width(self) -> int:
        return self.weight.shape[1]

    def saved_by_bytes(self) -> float:
        return 0.75 * self.weight.numel() / self._stride

    def tiles(self) -> tuple[int, int]:
        return (2 * self._stride if op.paired(self.params()) else 1), 0

    def output_lengths(self, lengths: Steps) -> Steps:
        return (lengths - 1) * self._stride + self.weight.shape[2] - sum(self._crop)


class WideUpsample(Wide, Upsample):
    """Upsample that stays in float32 or float64 where the network around it is cast to less."""


class NearestUpsample(Layer, nn.Module):
    """Activation, every step repeated `stride` times, and a convolution that sees the past only.

    weight [out, in, K], bias [out]. It runs as the transposed convolution that it equals: the taps which read the same
    input step are added up once.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, pre: Activation = IDENTITY
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self._stride, self._pre = stride, pre
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.01, bias 0."""
        nn.init.normal_(self.weight, 0.0, 0.01)
        nn.init.zeros_(self.bias)

    def params(self) -> op.UpsampleParams:
        """The op's view of this layer."""
        stride, kernel = self._stride, self.weight.shape[2]
        # Tap k makes output phase p from the input step (kernel - 1 - k - p) / stride before it, rounded up.
        back = torch.arange(kernel - 1, -1, -1, device="cpu")
        phase = torch.arange(stride, device="cpu")[:, None]
        steps = (back - phase + stride - 1) // stride
        reach = -(-(kernel - 1) // stride) + 1
        target = (steps * stride + phase).to(self.weight.device)
        folded = self.weight.new_zeros((*self.weight.shape[:2], reach * stride), dtype=torch.float64)
        for row in target:
            folded = folded.index_add(2, row, self.weight.double())
        weight = folded.transpose(0, 1).to(self.weight.dtype)
        return op.UpsampleParams(weight, self.bias, stride, (0, (reach - 1) * stride), self._pre)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]

    def width(self) -> int:
        return self.weight.shape[0]

    def tiles(self) -> tuple[int, int]:
        return (2 * self._stride if op.paired(self.params()) else 1), 0

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * self._stride
