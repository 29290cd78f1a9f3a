"""depthwise: activation, zero padding and a convolution of every channel with itself alone, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._reference import full_float32
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.stream import Geometry, TailStream
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.registry import Impl, Spec, define


@dataclass(frozen=True)
class DepthwiseParams:
    """Weights and shape of a depthwise convolution that keeps the length.

    weight [C, 1, K] with K odd, bias [C] or None, `pre` on the input before it is padded with dilation * (K - 1) / 2
    zeros on either side.
    """

    weight: Tensor
    bias: Tensor | None
    dilation: int = 1
    pre: Activation = IDENTITY

    def __post_init__(self) -> None:
        if self.weight.dim() != 3 or self.weight.shape[1] != 1 or self.weight.shape[2] % 2 == 0:
            raise ShapeError(f"depthwise: weight: expected [C, 1, K] with K odd, got {list(self.weight.shape)}")
        if self.dilation < 1:
            raise ArgumentError(f"depthwise: dilation: expected 1 or more, got {self.dilation}")
        self.pre.check("depthwise", self.weight.shape[0], self.weight)

    @property
    def padding(self) -> int:
        """Zeros on either side."""
        return self.dilation * (self.weight.shape[2] - 1) // 2

    def tensors(self) -> list[Tensor]:
        """The weights and the activation's parameters."""
        return [*(t for t in (self.weight, self.bias) if t is not None), *self.pre.tensors()]


def depthwise(x: Tensor, params: DepthwiseParams, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
    """y[b, c] = conv(pad(pre(x[b, c])), weight[c, 0]) + bias[c].

    Args:
        x: [B, C, T], dtype and device of the weights; any strides, time-major ones are the fast ones.
        params: weights and shape.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        backend: implementation to force.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
        BackendError: the forced backend refuses.
    """
    return OP(x, params, lengths, backend=backend)


def _check(x: Tensor, params: DepthwiseParams, lengths: Tensor | None = None) -> None:
    check_activations("depthwise", x, params.weight.shape[0], params.weight)
    check_lengths("depthwise", lengths, x.shape[0], x.shape[2])


def depthwise_ref(x: Tensor, params: DepthwiseParams, lengths: Tensor | None = None) -> Tensor:
    """The op's meaning in torch."""
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: depthwise_ref(item, params))
    return _convolved(F.pad(params.pre(x), (params.padding, params.padding)), params)


def _convolved(x: Tensor, params: DepthwiseParams) -> Tensor:
    with full_float32(x):
        return F.conv1d(x, params.weight, params.bias, dilation=params.dilation, groups=x.shape[1])


@dataclass(frozen=True)
class _Packed:
    weight: Tensor  # [K, C padded to whole panels]
    bias: Tensor
    shape: list[int]
    acts: packing.Activations


def _pack(params: DepthwiseParams) -> _Packed:
    channels, _, kernel = params.weight.shape
    beyond = -channels % packing.PANEL
    weight = F.pad(params.weight.detach()[:, 0].t().float(), (0, beyond)).contiguous()
    bias = packing.pad_bias(params.bias, channels, params.weight).float()
    shape = [channels, kernel, params.dilation, params.padding, params.padding]
    return _Packed(weight, bias, shape, packing.pack_activations((params.pre,)))


def _run_native(x: Tensor, packed: _Packed, lengths: Tensor | None = None) -> Tensor:
    valid = on_device(lengths, x)
    y: Tensor = torch.ops._fastvoc.depthwise(x, packed.weight, packed.bias, valid, packed.shape, *packed.acts)
    return y


def _bind_native(packed: _Packed) -> Callable[..., Tensor]:
    native = _library.native("depthwise")
    weight, bias, more = packed.weight, packed.bias, (packed.shape, *packed.acts)
    return lambda x, lengths=None: native(x, weight, bias, lengths, *more)


def _supports_cpp(spec: Spec) -> str | None:
    return _library.cpu_refusal(spec.dtype, (torch.float32, torch.bfloat16))


_library.define(
    "depthwise(Tensor x, Tensor weight, Tensor bias, Tensor? lengths, int[] shape, int[] acts, float[] slopes,"
    " Tensor? curves) -> Tensor"
)


@torch.library.register_fake("_fastvoc::depthwise")
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
    channels, kernel, dilation, left, right = shape
    steps = x.shape[2] + left + right - dilation * (kernel - 1)
    return x.new_empty((x.shape[0], steps, channels)).transpose(1, 2)


def _geometry(params: DepthwiseParams) -> Geometry:
    return Geometry(2 * params.padding + 1, 1, params.padding, params.padding)


def _stream_ref(params: DepthwiseParams, _: Any) -> TailStream:
    return TailStream(_geometry(params), params.weight.shape[0], lambda rows: _convolved(params.pre(rows), params))


def _stream_native(params: DepthwiseParams, packed: _Packed) -> TailStream:
    native = _library.native("depthwise")
    more = packed.weight, packed.bias, None, [*packed.shape[:3], 0, 0], *packed.acts
    return TailStream(_geometry(params), params.weight.shape[0], lambda rows: native(rows, *more))


OP = define("depthwise", _check, depthwise_ref, _stream_ref)
OP.register(
    Impl(
        "cpp",
        _run_native,
        frozenset({"cpu"}),
        priority=10,
        bind=_bind_native,
        pack=_pack,
        supports=_supports_cpp,
        stream=_stream_native,
    )
)
