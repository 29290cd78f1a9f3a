"""upsample: activation and transposed convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc import _library, packing
from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.lengths import on_device
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._reference import full_float32
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.stream import PolyphaseStream
from fastvoc.registry import Impl, Spec, define


@dataclass(frozen=True)
class UpsampleParams:
    """Weights and shape of a transposed convolution.

    weight [C_in, C_out, K], bias [C_out] or None; the full result of (T - 1) * stride + K steps loses `crop` (left,
    right) steps; a negative right crop appends steps that hold the bias.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int
    crop: tuple[int, int] = (0, 0)
    pre: Activation = IDENTITY

    def __post_init__(self) -> None:
        if self.weight.dim() != 3:
            raise ShapeError(f"upsample: weight: expected [C_in, C_out, K], got {list(self.weight.shape)}")
        if self.stride < 1:
            raise ArgumentError(f"upsample: stride: expected 1 or more, got {self.stride}")
        self.pre.check("upsample", self.weight.shape[0], self.weight)

    def tensors(self) -> list[Tensor]:
        """The weights and the activation's parameters."""
        weights = [self.weight] if self.bias is None else [self.weight, self.bias]
        return [*weights, *self.pre.tensors()]

    def output_length(self, steps: int) -> int:
        """Output steps made from a number of input steps."""
        return (steps - 1) * self.stride + self.weight.shape[2] - sum(self.crop)


def upsample(x: Tensor, params: UpsampleParams, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
    """y = crop(conv_transpose(pre(x))) + bias.

    Args:
        x: [B, C_in, T], dtype and device of the weights.
        params: weights and shape.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        backend: implementation to force.

    Returns:
        [B, C_out, T_out] with T_out = `params.output_length(T)`.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
        BackendError: the forced backend refuses.
    """
    return OP(x, params, lengths, backend=backend)


def _check(x: Tensor, params: UpsampleParams, lengths: Tensor | None = None) -> None:
    check_activations("upsample", x, params.weight.shape[0], params.weight)
    check_lengths("upsample", lengths, x.shape[0], x.shape[2])
    shortest = x.shape[2] if lengths is None else int(lengths.min())
    if params.output_length(shortest) < 1:
        raise ShapeError(f"upsample: x: nothing is left of {shortest} steps after the crop {params.crop}")


def upsample_ref(x: Tensor, params: UpsampleParams, lengths: Tensor | None = None) -> Tensor:
    """The op's meaning in torch."""
    if lengths is not None:
        steps = params.output_length(x.shape[2])
        return by_item(x, lengths, steps, lambda item, _: upsample_ref(item, params))
    with full_float32(x):
        full = F.conv_transpose1d(params.pre(x), params.weight, None, params.stride)
    left, right = params.crop
    full = F.pad(full, (-left, -right))
    return full if params.bias is None else full + params.bias[:, None]


@dataclass(frozen=True)
class _Packed:
    weight: Tensor
    bias: Tensor
    shape: list[int]
    acts: packing.Activations


def _pack(params: UpsampleParams) -> _Packed:
    cin, cout, kernel = params.weight.shape
    weight = packing.pack_upsample(params.weight, params.stride)
    bias = packing.pad_bias(params.bias, cout, params.weight)
    return _Packed(
        weight, bias, [cout, cin, kernel, params.stride, *params.crop], packing.pack_activations((params.pre,))
    )


def _pack_cpp(params: UpsampleParams) -> _Packed:
    packed = _pack(params)
    if params.weight.dtype is not torch.bfloat16:
        return packed
    weight = packing.pack_upsample(params.weight, params.stride, packing.pack_conv_groups)
    return replace(packed, weight=weight, bias=packed.bias.float())


def _run_native(x: Tensor, packed: _Packed, lengths: Tensor | None = None) -> Tensor:
    valid = on_device(lengths, x)
    y: Tensor = torch.ops._fastvoc.upsample(x, packed.weight, packed.bias, valid, packed.shape, *packed.acts)
    return y


def _supports_cpp(spec: Spec) -> str | None:
    if spec.params.crop[0] < 0:
        return "crops on the left, never appends"
    return _library.cpu_refusal(spec.dtype, (torch.float32, torch.bfloat16))


def _pack_cuda(params: UpsampleParams) -> _Packed:
    return replace(_pack(params), acts=pack_cuda_activations((params.pre,)))


def _supports_device(spec: Spec) -> str | None:
    return "crops on the left, never appends" if spec.params.crop[0] < 0 else None


_library.define(
    "upsample(Tensor x, Tensor weight, Tensor bias, Tensor? lengths, int[] shape, int[] acts, float[] slopes,"
    " Tensor? curves) -> Tensor"
)


@torch.library.register_fake("_fastvoc::upsample")
def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None,
    shape: list[int],
    acts: list[int],
    slopes: list[float],
    curves: Tensor | None,
) -> Tensor:
    cout, _, kernel, stride, left, right = shape
    steps = (x.shape[2] - 1) * stride + kernel - left - right
    return x.new_empty((x.shape[0], steps, cout)).transpose(1, 2)


def _stream_ref(params: UpsampleParams, _: Any) -> PolyphaseStream:
    cout, kernel = params.weight.shape[1:]

    def run(rows: Tensor, left: int, right: int) -> Tensor:
        return upsample_ref(rows, replace(params, crop=(left, right)))

    return PolyphaseStream(kernel, params.stride, params.crop, cout, run)


def _stream_native(params: UpsampleParams, packed: _Packed) -> PolyphaseStream:
    cout, kernel = params.weight.shape[1:]

    def run(rows: Tensor, left: int, right: int) -> Tensor:
        return _run_native(rows, replace(packed, shape=[*packed.shape[:4], left, right]))

    return PolyphaseStream(kernel, params.stride, params.crop, cout, run)


OP = define("upsample", _check, upsample_ref, _stream_ref)
OP.register(
    Impl("cpp", _run_native, frozenset({"cpu"}), priority=10, pack=_pack_cpp, supports=_supports_cpp, stream=_stream_native)
)
register_cuda(OP, _run_native, _pack_cuda, _supports_device)
register_triton(OP, _supports_device)
