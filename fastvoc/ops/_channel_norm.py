"""What norms with a scale and a shift of each channel, and an activation behind them, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastvoc.ops._checks import check_channel_norm
from fastvoc.ops.activation import IDENTITY, Activation


@dataclass(frozen=True)
class ChannelNormParams:
    """Scale `weight` [C] and shift `bias` [C], `eps` added to variances, `act` on the output."""

    op: ClassVar[str]

    weight: Tensor
    bias: Tensor
    eps: float = 1e-5
    act: Activation = IDENTITY

    def __post_init__(self) -> None:
        check_channel_norm(self.op, self.weight, self.bias, self.eps)
        self.act.check(self.op, self.weight.shape[0], self.weight)

    def tensors(self) -> list[Tensor]:
        """The weights and the activation's parameters."""
        return [self.weight, self.bias, *self.act.tensors()]
