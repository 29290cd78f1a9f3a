"""adain: adaptive instance norm (Huang & Belongie 2017, arXiv 1703.06868) and the activation behind it.

Each channel of an item is normalised over the item's own steps, scaled and shifted as the item's style says, and
activated: one pass for the moments, one for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.registry import Impl, Spec, define


@dataclass(frozen=True)
class AdaInParams:
    """The norm's own scale `weight` [C] and shift `bias` [C]; `eps` added to variances; `act` on the output."""

    weight: Tensor
    bias: Tensor
    eps: float = 1e-5
    act: Activation = IDENTITY

    def __post_init__(self) -> None:
        if self.weight.dim() != 1 or self.bias.shape != self.weight.shape:
            raise ShapeError(
                "adain: weight and bias: expected [C] and [C], got"
                f" {list(self.weight.shape)} and {list(self.bias.shape)}"
            )
        if not self.eps > 0:
            raise ArgumentError(f"adain: eps: expected a positive number, got {self.eps}")
        self.act.check("adain", self.weight.shape[0], self.weight)

    def tensors(self) -> list[Tensor]:
        """The weights and the activation's parameters."""
        return [self.weight, self.bias, *self.act.tensors()]


def adain(
    x: Tensor, params: AdaInParams, style: Tensor, lengths: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """y = act((1 + gamma) * ((x - mean) / sqrt(variance + eps) * weight + bias) + beta).

    Mean and biased variance of each channel run over the T steps of an item.

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: weights, eps, activation.
        style: [B, 2 * C, 1], the gamma of each channel, then the beta; of x's dtype or, where x is narrower, float32.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        backend: implementation to force.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
        BackendError: the forced backend refuses.
    """
    return OP(x, params, style, lengths, backend=backend)


def _check(x: Tensor, params: AdaInParams, style: Tensor, lengths: Tensor | None = None) -> None:
    check_activations("adain", x, params.weight.shape[0], params.weight)
    check_lengths("adain", lengths, x.shape[0], x.shape[2])
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
    """The op's meaning in torch."""
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, i: adain_ref(item, params, style[i : i + 1]))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    away = wide - wide.mean(2, keepdim=True)
    normal = away * torch.rsqrt(away.square().mean(2, keepdim=True) + params.eps)
    gamma, beta = style.to(wide.dtype).chunk(2, 1)
    y = (1 + gamma) * (normal * params.weight[:, None] + params.bias[:, None]) + beta
    return params.act(y.to(x.dtype))


@dataclass(frozen=True)
class _Packed:
    weight: Tensor
    bias: Tensor
    eps: float
    acts: packing.Activations


def _pack(params: AdaInParams) -> _Packed:
    weight, bias = (packing.pad_bias(t, t.shape[0], t).float() for t in (params.weight, params.bias))
    return _Packed(weight, bias, params.eps, packing.pack_activations((params.act,)))


def _pack_cuda(params: AdaInParams) -> _Packed:
    return replace(_pack(params), acts=pack_cuda_activations((params.act,)))


def _run_native(x: Tensor, p: _Packed, style: Tensor, lengths: Tensor | None = None) -> Tensor:
    rows = style[:, :, 0].float()
    y: Tensor = torch.ops._fastvoc.adain(x, p.weight, p.bias, rows, p.eps, on_device(lengths, x), *p.acts)
    return y


def _supports_cpp(spec: Spec) -> str | None:
    return _library.cpu_refusal(spec.dtype, (torch.float32, torch.bfloat16))


_library.define(
    "adain(Tensor x, Tensor weight, Tensor bias, Tensor style, float eps, Tensor? lengths, int[] acts, float[] slopes,"
    " Tensor? curves) -> Tensor"
)


@torch.library.register_fake("_fastvoc::adain")
def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    style: Tensor,
    eps: float,
    lengths: Tensor | None,
    acts: list[int],
    slopes: list[float],
    curves: Tensor | None,
) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[1])).transpose(1, 2)


OP = define("adain", _check, adain_ref)
OP.register(Impl("cpp", _run_native, frozenset({"cpu"}), priority=10, pack=_pack, supports=_supports_cpp))
register_cuda(OP, _run_native, _pack_cuda)
register_triton(OP)
