"""group_norm_act: group norm with one group (Wu & He 2018, arXiv 1803.08494), addition and activation in one pass."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ShapeError
from fastvoc.ops._channel_norm import ChannelNormParams, Packed, pack, pack_cuda
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import without_products
from fastvoc.ops._triton import register_triton
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


NATIVE = Native("group_norm_act", Packed, like_rows, group_norm_act_ref)
OP = group_norm_act = define("group_norm_act", _check, group_norm_act_ref, without_products)
register_cpp(OP, NATIVE, pack)
register_cuda(OP, NATIVE.run, pack_cuda)
register_triton(OP)
