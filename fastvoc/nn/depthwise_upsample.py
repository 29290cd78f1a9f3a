"""Upsampling of each channel by itself: a few products a step, too few for an op."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.nn.layer import Part, Steps
from fastvoc.ops.stream import OpStream, PolyphaseStream


class DepthwiseUpsample(Part, nn.Module):
    """A transposed convolution of each channel by itself that makes T * stride steps of T and sees the past only.

    weight [C, 1, K] with K a multiple of the stride. Products are added from the newest step to the oldest.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.01."""
        nn.init.normal_(self.weight, 0.0, 0.01)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.weight.dtype
        return dtype

    def width(self) -> int:
        return self.weight.shape[0]

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * self.stride

    def forward(
        self, x: Tensor, *_: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """[B, C, T] -> [B, C, T * stride]; what lies beyond an item's length has no meaning."""
        return self._sum(x)

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        return lambda x, _: self._sum(x), False

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> OpStream:
        kernel, stride = self.weight.shape[2], self.stride

        def run(rows: Tensor, left: int, right: int) -> Tensor:
            return self._sum(rows)[:, :, left : rows.shape[2] * stride - (right - (kernel - stride))]

        return PolyphaseStream(kernel, stride, (0, kernel - stride), self.width(), run)

    def _sum(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2)
        total: Tensor | None = None
        for delay, taps in enumerate(self.weight[:, 0].unflatten(1, (-1, self.stride)).permute(1, 2, 0)):
            late = F.pad(rows, (0, 0, delay, 0))[:, : rows.shape[1]] if delay else rows
            part = late[:, :, None] * taps  # [B, T, stride, C]
            total = part if total is None else total + part
        assert total is not None
        return total.flatten(1, 2).transpose(1, 2)
