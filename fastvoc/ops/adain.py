"""adain: adaptive instance norm (Huang & Belongie 2017, arXiv 1703.06868) and the activation behind it.

Each channel of an item is normalised over the item's own steps, scaled and shifted as the item's style says, and
activated: one pass for the moments, one for the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.errors import DeviceError, DtypeError, ShapeError
from fastvoc.ops._channel_norm import ChannelNormParams, Packed, pack, pack_cuda
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import without_products
from fastvoc.ops._triton import register_triton
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


NATIVE = Native("adain", Packed, like_rows, adain_ref)


def _run(x: Tensor, packed: Packed, style: Tensor, lengths: Tensor | None = None) -> Tensor:
    return NATIVE.run(x, packed, style.float(), lengths)


OP = adain = define("adain", _check, adain_ref, without_products)
register_cpp(OP, NATIVE, pack, run=_run)
register_cuda(OP, _run, pack_cuda)
register_triton(OP)
