"""upsample: activation and transposed convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops import stream
from fastvoc.ops._checks import by_item, check_activations, check_input_range
from fastvoc.ops._cpp import floats, register_cpp
from fastvoc.ops._cuda import fits_conv_tile, pack_cuda_activations, register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.stream import PolyphaseStream, Rows
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import shortest
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define


@dataclass(frozen=True)
class UpsampleParams:
    """Weights and shape of a transposed convolution.

    weight [C_in, C_out, K], bias [C_out] or None; the full result of (T - 1) * stride + K steps loses `crop` (left,
    right) steps; a negative right crop appends steps that hold the bias. With `input_range` [2], float32, it multiplies
    whole numbers, as `Conv1dParams` does.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int
    crop: tuple[int, int] = (0, 0)
    pre: Activation = IDENTITY
    input_range: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.dim() != 3:
            raise ShapeError(f"upsample: weight: expected [C_in, C_out, K], got {list(self.weight.shape)}")
        if self.stride < 1:
            raise ArgumentError(f"upsample: stride: expected 1 or more, got {self.stride}")
        self.pre.check("upsample", self.weight.shape[0], self.weight)
        check_input_range("upsample", self.input_range, self.weight)

    @property
    def int8(self) -> bool:
        """Whether it multiplies whole numbers."""
        return self.input_range is not None

    def tensors(self) -> list[Tensor]:
        """The weights, the activation's parameters and the input's range."""
        weights = [t for t in (self.weight, self.bias) if t is not None]
        ranges = [] if self.input_range is None else [self.input_range]
        return [*weights, *self.pre.tensors(), *ranges]

    def output_length(self, steps: int) -> int:
        """Output steps made from a number of input steps."""
        return (steps - 1) * self.stride + self.weight.shape[2] - sum(self.crop)


def _check(x: Tensor, params: UpsampleParams, lengths: Tensor | None = None) -> None:
    check_activations("upsample", x, params.weight.shape[0], params.weight, lengths)
    fewest = shortest(lengths, x.shape[2])
    if params.output_length(fewest) < 1:
        raise ShapeError(f"upsample: x: nothing is left of {fewest} steps after the crop {params.crop}")


def upsample_ref(x: Tensor, params: UpsampleParams, lengths: Tensor | None = None) -> Tensor:
    """y = crop(conv_transpose(pre(x))) + bias.

    Args:
        x: [B, C_in, T], dtype and device of the weights.
        params: weights and shape.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C_out, T_out] with T_out = `params.output_length(T)`.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        steps = params.output_length(x.shape[2])
        return by_item(x, lengths, steps, lambda item, _: upsample_ref(item, params))
    if params.input_range is not None:
        full = _multiply_integers(params.pre(x), params, params.input_range)
    else:
        with full_float32(x):
            full = F.conv_transpose1d(params.pre(x), params.weight, None, params.stride)
    left, right = params.crop
    full = F.pad(full, (-left, -right))
    return full if params.bias is None else full + params.bias[:, None]


def _multiply_integers(x: Tensor, params: UpsampleParams, input_range: Tensor) -> Tensor:
    """The transposed convolution on whole numbers, whose sums float64 holds exactly."""
    grid = packing.ByteGrid.over(input_range)
    weight, step = packing.quantise_weight(params.weight, 1)
    sums = F.conv_transpose1d(grid.centred(x).double(), weight.double(), None, params.stride)
    return sums.to(x.dtype) * (grid.step * step)[:, None]


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    cout: int
    cin: int
    kernel: int
    stride: int
    tiles: bool  # whether the weights are packed for tensor cores
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None
    left: int  # the crop, last: a stream's changes
    right: int


def _pack(params: UpsampleParams) -> _Packed:
    cin, cout, kernel = params.weight.shape
    weight = packing.pack_upsample(params.weight, params.stride)
    bias = packing.pad_bias(params.bias, cout, params.weight)
    acts = packing.pack_activations((params.pre,))
    return _Packed(weight, bias, cout, cin, kernel, params.stride, False, *acts, *params.crop)


def paired(params: UpsampleParams) -> bool:
    """Whether C++ takes two input steps by three products, unless exact."""
    cin, cout, kernel = params.weight.shape
    merged = kernel == 2 * params.stride and params.stride * cout % packing.PANEL == 0
    return merged and cin >= packing.LEAST_PAIRED and params.weight.dtype is torch.float32 and not params.int8


def _pack_cpp(params: UpsampleParams) -> _Packed:
    packed = _pack(params)
    if params.input_range is not None:
        grid = packing.ByteGrid.over(params.input_range)
        whole, step = packing.quantise_weight(params.weight, 1)
        phases = torch.nn.functional.pad(whole, (0, -whole.shape[2] % params.stride)).unflatten(2, (-1, params.stride))
        bias = packing.pack_integer_bias(params.bias, phases.permute(3, 1, 0, 2), step, grid)
        weight = packing.pack_upsample(whole.to(torch.int8), params.stride, packing.pack_conv_groups)
        acts = packing.pack_activations((params.pre,), grids=(grid,))
        return packed._replace(weight=weight, bias=bias, **acts._asdict())
    cout, kernel, stride = params.weight.shape[1], params.weight.shape[2], params.stride
    if kernel % stride or stride * cout % packing.PANEL:
        weight = packing.pack_upsample(params.weight, stride, packing.pack_conv_groups)
        return packed._replace(weight=weight, bias=packed.bias.float())
    bias = packed.bias[:cout].repeat(stride).float()
    return packed._replace(weight=packing.pack_upsample_merged(params.weight, stride), bias=bias)


def _pack_cuda(params: UpsampleParams) -> _Packed:
    """Weights for tensor cores where they compute it, else as for the CPU."""
    plain = _pack(params)._replace(**pack_cuda_activations((params.pre,))._asdict())
    cin, cout, kernel = params.weight.shape
    if not fits_conv_tile(params.weight.dtype, cin, cout * params.stride, packing.TILE_STEPS + kernel // params.stride):
        return plain
    return plain._replace(weight=packing.pack_upsample_tiles(params.weight, params.stride), tiles=True)


def _supports_cpp(spec: Spec) -> str | None:
    if spec.params.crop[0] < 0:
        return "crops on the left, never appends"
    if spec.params.input_range is not None:
        return _library.cpu_integer_refusal(spec.dtype, spec.params.weight[:, 0].numel())
    return floats(spec)


def _supports_device(spec: Spec) -> str | None:
    if spec.params.input_range is not None:
        return "does not multiply whole numbers"
    return "crops on the left, never appends" if spec.params.crop[0] < 0 else None


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    steps = (x.shape[2] - 1) * p.stride + p.kernel - p.left - p.right
    return x.new_empty((x.shape[0], steps, p.cout), dtype=packing.result_type(p.weight)).transpose(1, 2)


NATIVE = Native("upsample", _Packed, _fake, upsample_ref)


def _stream_ref(params: UpsampleParams, _: Any) -> PolyphaseStream:
    cout, kernel = params.weight.shape[1:]

    def run(rows: Tensor, left: int, right: int) -> Tensor:
        return upsample_ref(rows, replace(params, crop=(left, right)))

    return PolyphaseStream(kernel, params.stride, params.crop, cout, run)


def _stream_native(params: UpsampleParams, packed: _Packed) -> PolyphaseStream:
    cout, kernel = params.weight.shape[1:]
    native = NATIVE.bound(packed[:-2])
    dtype = packing.result_type(packed.weight)
    return PolyphaseStream(
        kernel,
        params.stride,
        params.crop,
        cout,
        lambda rows, left, right: native(left, right, rows),
        rows=stream.NATIVE,
        dtype=dtype,
        either=dtype is not torch.float64,
    )


def _stream_device(
    params: UpsampleParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None
) -> PolyphaseStream:
    cout, kernel = params.weight.shape[1:]

    def step(x: Tensor, left: int, right: int) -> Tensor:
        return run(x, packed._replace(left=left, right=right))

    return PolyphaseStream(kernel, params.stride, params.crop, cout, step, rows=rows)


def _work(x: Tensor, params: UpsampleParams, *_: Tensor | None) -> tuple[int, Tensor]:
    y = output(x, x.shape[0], params.weight.shape[1], params.output_length(x.shape[2]))
    return x.shape[0] * x.shape[2] * params.weight.numel(), y


OP = upsample = define("upsample", _check, upsample_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack_cpp, _supports_cpp, stream=_stream_native, paired=paired, either=True)
register_cuda(OP, NATIVE.run, _pack_cuda, _supports_device, stream=_stream_device)
register_triton(OP, _supports_device, _stream_device)
