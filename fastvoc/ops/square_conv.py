"""square_conv: a convolution that keeps channels and length, by Toom-Cook where the CPU gains by it, and an addend.

On the CPU it runs as a residual block (`mrf`) of the weights without the identity, x + (W - 1) x = W x, which has
those schemes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops import conv1d as conv1d_op
from fastvoc.ops import mrf as mrf_op
from fastvoc.ops._cpp import floats
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY
from fastvoc.ops.mrf_params import MrfConv, MrfParams
from fastvoc.runtime import packing
from fastvoc.runtime.registry import Impl, define


@dataclass(frozen=True)
class SquareConvParams:
    """weight [C, C, K] of an odd K, bias [C] or None, dilation; zeros beside the signal keep its length."""

    weight: Tensor
    bias: Tensor | None
    dilation: int = 1

    def __post_init__(self) -> None:
        shape = list(self.weight.shape)
        if self.weight.dim() != 3 or shape[0] != shape[1] or shape[2] % 2 == 0:
            raise ShapeError(f"square_conv: weight: expected [C, C, K] of an odd K, got {shape}")
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ShapeError(f"square_conv: bias: expected {shape[:1]}, got {list(self.bias.shape)}")
        if self.dilation < 1:
            raise ArgumentError(f"square_conv: dilation: expected 1 or more, got {self.dilation}")

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def conv(self) -> conv1d_op.Conv1dParams:
        """The same as any convolution."""
        half = self.dilation * (self.weight.shape[2] // 2)
        return conv1d_op.Conv1dParams(self.weight, self.bias, 1, self.dilation, (half, half))


def _check(x: Tensor, params: SquareConvParams, residual: Tensor | None = None, lengths: Tensor | None = None) -> None:
    conv1d_op.OP.check(x, params.conv(), residual, lengths)


def square_conv_ref(
    x: Tensor, params: SquareConvParams, residual: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """y = conv(x) + bias + residual.

    Args:
        x: [B, C, T], dtype and device of the weights; any strides, time-major ones are the fast ones.
        params: weights and dilation.
        residual: [B, C, T].
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T]. By Toom-Cook, in float32 on the CPU unless exact, it is about 2e-6 from the direct sum.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    return conv1d_op.conv1d_ref(x, params.conv(), residual, lengths)


@dataclass(frozen=True)
class _Packed:
    """Weights of the one op that runs it."""

    block: Any
    conv: Any


def _pack(params: SquareConvParams) -> _Packed:
    weight = params.weight
    scheme = packing.toom_cook(weight.shape[2], weight.shape[0], weight.dtype, smooth=False)
    # In bfloat16 the ones would cost the weights beside them their digits.
    if weight.dtype is not torch.float32 or scheme is None:
        return _pack_exact(params)
    rest = weight.clone()
    rest[:, :, weight.shape[2] // 2].diagonal().sub_(1)
    conv = MrfConv(rest, params.bias, params.dilation, IDENTITY)
    return _Packed(mrf_op.OP.impls["cpp"].packed(MrfParams((((conv,),),), IDENTITY), False), None)


def _pack_exact(params: SquareConvParams) -> _Packed:
    return _Packed(None, conv1d_op.OP.impls["cpp"].packed(params.conv(), True))


def _run(x: Tensor, p: _Packed, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    if p.block is None:
        y: Tensor = conv1d_op.OP.impls["cpp"].run(x, p.conv, residual, lengths)
        return y
    y = mrf_op.OP.impls["cpp"].run(x, p.block, lengths)
    if residual is None:
        return y
    y += residual
    if lengths is not None:
        for row, valid in zip(y, lengths.tolist(), strict=True):
            row[:, valid:] = 0
    return y


def _pack_cuda(params: SquareConvParams) -> Any:
    return conv1d_op.OP.impls["cuda"].packed(params.conv(), False)


def _work(x: Tensor, params: SquareConvParams, *_: Tensor | None) -> tuple[int, Tensor]:
    return conv1d_op.OP.work(x, params.conv())


OP = square_conv = define("square_conv", _check, square_conv_ref, _work)
OP.register(Impl("cpp", _run, frozenset({"cpu"}), priority=10, pack=_pack, supports=floats, pack_exact=_pack_exact))
register_cuda(OP, conv1d_op.OP.impls["cuda"].run, _pack_cuda)
register_triton(OP)
