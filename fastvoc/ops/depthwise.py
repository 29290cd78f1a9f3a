"""depthwise: activation, zero padding and a convolution of every channel with itself alone, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.stream import Geometry, Rows, TailStream
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define

# Of which csrc/cuda/depthwise.cuh keeps a tile in the shared memory of the smallest device.
_CUDA_TAPS = 512


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


def _check(x: Tensor, params: DepthwiseParams, lengths: Tensor | None = None) -> None:
    check_activations("depthwise", x, params.weight.shape[0], params.weight, lengths)


def depthwise_ref(x: Tensor, params: DepthwiseParams, lengths: Tensor | None = None) -> Tensor:
    """y[b, c] = conv(pad(pre(x[b, c])), weight[c, 0]) + bias[c].

    Args:
        x: [B, C, T], dtype and device of the weights; any strides, time-major ones are the fast ones.
        params: weights and shape.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: depthwise_ref(item, params))
    return _convolved(F.pad(params.pre(x), (params.padding, params.padding)), params)


def _convolved(x: Tensor, params: DepthwiseParams) -> Tensor:
    with full_float32(x):
        return F.conv1d(x, params.weight, params.bias, dilation=params.dilation, groups=x.shape[1])


class _Packed(NamedTuple):
    weight: Tensor  # [K, C padded to whole panels]
    bias: Tensor
    channels: int
    kernel: int
    dilation: int
    left: int
    right: int
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


def _pack(params: DepthwiseParams) -> _Packed:
    channels, _, kernel = params.weight.shape
    weight = packing.pack_depthwise(params.weight).float()
    bias = packing.pad_bias(params.bias, channels, params.weight).float()
    shape = channels, kernel, params.dilation, params.padding, params.padding
    return _Packed(weight, bias, *shape, *packing.pack_activations((params.pre,)))


def _pack_cuda(params: DepthwiseParams) -> _Packed:
    return _pack(params)._replace(**pack_cuda_activations((params.pre,))._asdict())


def _supports_cuda(spec: Spec) -> str | None:
    taps = spec.params.weight.shape[2]
    return None if taps <= _CUDA_TAPS else f"takes {_CUDA_TAPS} taps at most, not {taps}"


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    steps = x.shape[2] + p.left + p.right - p.dilation * (p.kernel - 1)
    return x.new_empty((x.shape[0], steps, p.channels)).transpose(1, 2)


NATIVE = Native("depthwise", _Packed, _fake, depthwise_ref)


def _geometry(params: DepthwiseParams) -> Geometry:
    return Geometry(2 * params.padding + 1, 1, params.padding, params.padding)


def _stream_ref(params: DepthwiseParams, _: Any) -> TailStream:
    return TailStream(_geometry(params), params.weight.shape[0], lambda rows: _convolved(params.pre(rows), params))


def _stream_native(params: DepthwiseParams, packed: _Packed) -> TailStream:
    run = NATIVE.bound(packed._replace(left=0, right=0))
    return TailStream(_geometry(params), params.weight.shape[0], run, either=True)


def _stream_device(params: DepthwiseParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None) -> TailStream:
    """On rows that have their padding already: with zeros beside them, whose outputs are left out."""
    side = params.padding

    def step(x: Tensor) -> Tensor:
        return run(x, packed)[:, :, side : x.shape[2] - side]

    return TailStream(_geometry(params), params.weight.shape[0], step, rows=rows)


def _work(x: Tensor, params: DepthwiseParams, *_: Tensor | None) -> tuple[int, Tensor]:
    return x.shape[0] * x.shape[2] * params.weight.numel(), output(x, *x.shape)


OP = depthwise = define("depthwise", _check, depthwise_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, stream=_stream_native, either=True)
register_cuda(OP, NATIVE.run, _pack_cuda, _supports_cuda, stream=_stream_device)
register_triton(OP, stream=_stream_device)
