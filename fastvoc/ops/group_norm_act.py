"""group_norm_act: group norm with one group (Wu & He 2018, arXiv 1803.08494), addition and activation in one pass."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ShapeError
from fastvoc.ops._channel_norm import ChannelNormParams
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native, like_rows
from fastvoc.runtime.registry import define


class GroupNormParams(ChannelNormParams):
    """Scale `weight` [C] and shift `bias` [C] of each channel, `eps` added to the variance, `act` on the output."""

    op = "group_norm_act"


def _check(x: Tensor, params: GroupNormParams, residual: Tensor | None = None, lengths: Tensor | None = None) -> None:
    check_activations("group_norm_act", x, params.weight.shape[0], params.weight, lengths)
    if residual is not None and residual.shape != x.shape:
        raise ShapeError(f"group_norm_act: residual: expected {list(x.shape)}, got {list(residual.shape)}")


def group_norm_act_ref(
    x: Tensor, params: GroupNormParams, residual: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """y = act((x - mean) / sqrt(variance + eps) * weight + bias + residual).

    Mean and biased variance run over all C x T values of an item.

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: weights, eps, activation.
        residual: [B, C, T], added before the activation.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            return group_norm_act_ref(
                item, params, None if residual is None else residual[i : i + 1, :, : item.shape[2]]
            )

        return by_item(x, lengths, x.shape[2], one)
    y = F.group_norm(x, 1, params.weight, params.bias, params.eps)
    return params.act(y if residual is None else y + residual)


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


def _pack(params: GroupNormParams) -> _Packed:
    weight, bias = (packing.pad_bias(t, t.shape[0], t).float() for t in (params.weight, params.bias))
    return _Packed(weight, bias, params.eps, *packing.pack_activations((params.act,)))


def _pack_cuda(params: GroupNormParams) -> _Packed:
    return _pack(params)._replace(**pack_cuda_activations((params.act,))._asdict())


def _work(x: Tensor, *_: object) -> tuple[int, Tensor]:
    return 0, output(x, *x.shape)


NATIVE = Native("group_norm_act", _Packed, like_rows, group_norm_act_ref)
OP = group_norm_act = define("group_norm_act", _check, group_norm_act_ref, _work)
register_cpp(OP, NATIVE, _pack)
register_cuda(OP, NATIVE.run, _pack_cuda)
register_triton(OP)
