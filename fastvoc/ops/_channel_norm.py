"""What norms with a scale and a shift of each channel, and an activation behind them, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from fastvoc.ops._checks import check_channel_norm
from fastvoc.ops._cuda import pack_cuda_activations
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.runtime import packing


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


class Packed(NamedTuple):
    """A norm as native ops take it, in float32."""

    weight: Tensor
    bias: Tensor
    eps: float
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


def pack(params: ChannelNormParams) -> Packed:
    """A norm for the CPU."""
    weight, bias = (packing.pad_bias(t, t.shape[0], t).float() for t in (params.weight, params.bias))
    return Packed(weight, bias, params.eps, *packing.pack_activations((params.act,)))


def pack_cuda(params: ChannelNormParams) -> Packed:
    """A norm for CUDA."""
    return pack(params)._replace(**pack_cuda_activations((params.act,))._asdict())
