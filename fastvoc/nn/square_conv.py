"""Convolution layer that keeps channels and length."""

from __future__ import annotations

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import square_conv as op


class SquareConv(Conv1d):
    """square_conv with its weights: weight [C, C, K], bias [C]. The further input is added to its output."""

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel_size, dilation=dilation)
        self.prepared = Prepared(op.OP, self.params, self.held)

    def params(self) -> op.SquareConvParams:  # type: ignore[override]  # of another op
        """The op's view of this layer."""
        return op.SquareConvParams(self.weight, self.bias, self._dilation)
