"""adain: adaptive instance norm (Huang & Belongie 2017, arXiv 1703.06868) and the activation behind it.

Each channel of an item is normalised over the item's own steps, scaled and shifted as the item's style says, and
activated: one pass for the moments, one for the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.errors import DeviceError, DtypeError, ShapeError
from fastvoc.ops._channel_norm import ChannelNormParams
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native, like_rows
from fastvoc.runtime.registry import define


class AdaInParams(ChannelNormParams):
    """The norm's own scale `weight` [C] and shift `bias` [C]; `eps` added to variances; `act` on the output."""

    op = "adain"


def _check(x: Tensor, params: AdaInParams, style: Tensor, lengths: Tensor | None = None) -> None:
    check_activations("adain", x, params.weight.shape[0], params.weight, lengths)
    expected = (x.shape[0], 2 * x.shape[1], 1)
    if not isinstance(style, Tensor) or style.shape != expected:
        got = list(style.shape) if isinstance(style, Tensor) else type(style).__name__
        raise ShapeError(f"adain: style: expected {list(expected)}, got {got}")
    wide = torch.promote_types(x.dtype, torch.float32)
    if style.dtype not in (wide, x.dtype):
        raise DtypeError(f"adain: style: expected {wide}, got {style.dtype}")
    if style.device != x.device:
        raise DeviceError(f"adain: style: expected a tensor on {x.device} like x, got {style.device}")


def adain_ref(x: Tensor, params: AdaInParams, style: Tensor, lengths: Tensor | None = None) -> Tensor:
    """y = act((1 + gamma) * ((x - mean) / sqrt(variance + eps) * weight + bias) + beta).

    Mean and biased variance of each channel run over the T steps of an item.

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: weights, eps, activation.
        style: [B, 2 * C, 1], the gamma of each channel, then the beta; of x's dtype or, where x is narrower, float32.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, i: adain_ref(item, params, style[i : i + 1]))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    away = wide - wide.mean(2, keepdim=True)
    normal = away * torch.rsqrt(away.square().mean(2, keepdim=True) + params.eps)
    gamma, beta = style.to(wide.dtype).chunk(2, 1)
    y = (1 + gamma) * (normal * params.weight[:, None] + params.bias[:, None]) + beta
    return params.act(y.to(x.dtype))


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


def _pack(params: AdaInParams) -> _Packed:
    weight, bias = (packing.pad_bias(t, t.shape[0], t).float() for t in (params.weight, params.bias))
    return _Packed(weight, bias, params.eps, *packing.pack_activations((params.act,)))


def _pack_cuda(params: AdaInParams) -> _Packed:
    return _pack(params)._replace(**pack_cuda_activations((params.act,))._asdict())


NATIVE = Native("adain", _Packed, like_rows, adain_ref)


def _run(x: Tensor, packed: _Packed, style: Tensor, lengths: Tensor | None = None) -> Tensor:
    return NATIVE.run(x, packed, style.float(), lengths)


def _work(x: Tensor, *_: object) -> tuple[int, Tensor]:
    return 0, output(x, *x.shape)


OP = adain = define("adain", _check, adain_ref, _work)
register_cpp(OP, NATIVE, _pack, run=_run)
register_cuda(OP, _run, _pack_cuda)
register_triton(OP)
