"""group_norm_act: group norm with one group (Wu & He 2018, arXiv 1803.08494), addition and activation in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.registry import Impl, Spec, define


@dataclass(frozen=True)
class GroupNormParams:
    """Scale `weight` [C] and shift `bias` [C] of each channel, `eps` added to the variance, `act` on the output."""

    weight: Tensor
    bias: Tensor
    eps: float = 1e-5
    act: Activation = IDENTITY

    def __post_init__(self) -> None:
        if self.weight.dim() != 1 or self.bias.shape != self.weight.shape:
            raise ShapeError(
                "group_norm_act: weight and bias: expected [C] and [C], got"
                f" {list(self.weight.shape)} and {list(self.bias.shape)}"
            )
        if not self.eps > 0:
            raise ArgumentError(f"group_norm_act: eps: expected a positive number, got {self.eps}")
        self.act.check("group_norm_act", self.weight.shape[0], self.weight)

    def tensors(self) -> list[Tensor]:
        """The weights and the activation's parameters."""
        return [self.weight, self.bias, *self.act.tensors()]


def group_norm_act(
    x: Tensor,
    params: GroupNormParams,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = act((x - mean) / sqrt(variance + eps) * weight + bias + residual).

    Mean and biased variance run over all C x T values of an item.

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: weights, eps, activation.
        residual: [B, C, T], added before the activation.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        backend: implementation to force.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
        BackendError: the forced backend refuses.
    """
    return OP(x, params, residual, lengths, backend=backend)


def _check(x: Tensor, params: GroupNormParams, residual: Tensor | None = None, lengths: Tensor | None = None) -> None:
    check_activations("group_norm_act", x, params.weight.shape[0], params.weight)
    check_lengths("group_norm_act", lengths, x.shape[0], x.shape[2])
    if residual is not None and residual.shape != x.shape:
        raise ShapeError(f"group_norm_act: residual: expected {list(x.shape)}, got {list(residual.shape)}")


def group_norm_act_ref(
    x: Tensor, params: GroupNormParams, residual: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """The op's meaning in torch."""
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            return group_norm_act_ref(
                item, params, None if residual is None else residual[i : i + 1, :, : item.shape[2]]
            )

        return by_item(x, lengths, x.shape[2], one)
    y = F.group_norm(x, 1, params.weight, params.bias, params.eps)
    return params.act(y if residual is None else y + residual)


@dataclass(frozen=True)
class _Packed:
    weight: Tensor
    bias: Tensor
    eps: float
    acts: packing.Activations


def _pack(params: GroupNormParams) -> _Packed:
    weight, bias = (packing.pad_bias(t, t.shape[0], t).float() for t in (params.weight, params.bias))
    return _Packed(weight, bias, params.eps, packing.pack_activations((params.act,)))


def _pack_cuda(params: GroupNormParams) -> _Packed:
    return replace(_pack(params), acts=pack_cuda_activations((params.act,)))


def _run_native(x: Tensor, p: _Packed, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    y: Tensor = torch.ops._fastvoc.group_norm_act(x, p.weight, p.bias, p.eps, residual, on_device(lengths, x), *p.acts)
    return y


def _supports_cpp(spec: Spec) -> str | None:
    return _library.cpu_refusal(spec.dtype, (torch.float32, torch.bfloat16))


_library.define(
    "group_norm_act(Tensor x, Tensor weight, Tensor bias, float eps, Tensor? residual, Tensor? lengths, int[] acts,"
    " float[] slopes, Tensor? curves) -> Tensor"
)


@torch.library.register_fake("_fastvoc::group_norm_act")
def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    residual: Tensor | None,
    lengths: Tensor | None,
    acts: list[int],
    slopes: list[float],
    curves: Tensor | None,
) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[1])).transpose(1, 2)


OP = define("group_norm_act", _check, group_norm_act_ref)
OP.register(Impl("cpp", _run_native, frozenset({"cpu"}), priority=10, pack=_pack, supports=_supports_cpp))
register_cuda(OP, _run_native, _pack_cuda)
register_triton(OP)
