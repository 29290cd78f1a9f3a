"""conv1d: activation, padding, convolution, bias, residual and activation in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops._checks import (
    beside,
    by_item,
    check_activations,
    check_input_range,
    check_pad_mode,
    check_reflect,
)
from fastvoc.ops._cpp import floats, register_cpp
from fastvoc.ops._cuda import fits_conv_tile, pack_cuda_activations, register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.stream import Geometry, Rows, TailStream
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import shortest
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define

_MOST_PAIRED = 1 << 22  # weights: beyond, reading half as many again takes longer than the products that it saves
PAD_MODES = ("zeros", "reflect", "replicate")  # numbered as in csrc/cpu/args.h


@dataclass(frozen=True)
class Conv1dParams:
    """Weights and shape of a convolution.

    weight [C_out, C_in, K], bias [C_out] or None, `padding` (left, right) in samples, `pad_mode` zeros, reflect or
    replicate, `pre` on the input before padding, `post` on the output.

    With `input_range` [2], float32, the least and the greatest value after `pre`, the convolution multiplies whole
    numbers: its input rounded to 256 values over the range (`packing.ByteGrid`), the weights of an output channel to
    255 values, their sums exact (`packing.quantise_weight`); bias, residual and activations stay in x's dtype.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] = (0, 0)
    pad_mode: str = "zeros"
    pre: Activation = IDENTITY
    post: Activation = IDENTITY
    input_range: Tensor | None = None

    def __post_init__(self) -> None:
        check_pad_mode("conv1d", self.pad_mode, PAD_MODES)
        if self.weight.dim() != 3:
            raise ShapeError(f"conv1d: weight: expected [C_out, C_in, K], got {list(self.weight.shape)}")
        if self.stride < 1 or self.dilation < 1 or min(self.padding) < 0:
            raise ArgumentError(
                f"conv1d: stride {self.stride}, dilation {self.dilation}, padding {self.padding}: expected stride and"
                " dilation of 1 or more, padding of 0 or more"
            )
        self.pre.check("conv1d", self.weight.shape[1], self.weight)
        self.post.check("conv1d", self.weight.shape[0], self.weight)
        check_input_range("conv1d", self.input_range, self.weight)

    @property
    def int8(self) -> bool:
        """Whether it multiplies whole numbers."""
        return self.input_range is not None

    def tensors(self) -> list[Tensor]:
        """The weights, the activations' parameters and the input's range."""
        weights = [t for t in (self.weight, self.bias) if t is not None]
        ranges = [] if self.input_range is None else [self.input_range]
        return [*weights, *self.pre.tensors(), *self.post.tensors(), *ranges]

    def output_length(self, steps: int) -> int:
        """Output steps made from a number of input steps."""
        reach = self.dilation * (self.weight.shape[2] - 1) + 1
        return (steps + sum(self.padding) - reach) // self.stride + 1


def _check(x: Tensor, params: Conv1dParams, residual: Tensor | None = None, lengths: Tensor | None = None) -> None:
    check_activations("conv1d", x, params.weight.shape[1], params.weight, lengths)
    if params.pad_mode == "reflect":
        check_reflect("conv1d", params.padding, lengths, x.shape[2])
    fewest = shortest(lengths, x.shape[2])
    if params.output_length(fewest) < 1:
        raise ShapeError(f"conv1d: x: {fewest} steps are fewer than the kernel spans")
    expected = (x.shape[0], params.weight.shape[0], params.output_length(x.shape[2]))
    if residual is not None and residual.shape != expected:
        raise ShapeError(f"conv1d: residual: expected {list(expected)}, got {list(residual.shape)}")


def conv1d_ref(
    x: Tensor, params: Conv1dParams, residual: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """y = post(conv(pad(pre(x))) + bias + residual).

    Args:
        x: [B, C_in, T], dtype and device of the weights; any strides, time-major ones are the fast ones.
        params: weights and shape.
        residual: [B, C_out, T_out], added before `post`.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C_out, T_out] with T_out = `params.output_length(T)`.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            steps = params.output_length(item.shape[2])
            return conv1d_ref(item, params, None if residual is None else residual[i : i + 1, :, :steps])

        return by_item(x, lengths, params.output_length(x.shape[2]), one)
    if params.input_range is not None:
        y = _multiply_integers(params.pre(x), params, params.input_range)
    else:
        padded = beside(params.pre(x), params.padding, params.pad_mode)
        with full_float32(x):
            y = F.conv1d(padded, params.weight, params.bias, params.stride, 0, params.dilation)
    return params.post(y if residual is None else y + residual)


def _multiply_integers(x: Tensor, params: Conv1dParams, input_range: Tensor) -> Tensor:
    """The convolution on whole numbers, whose sums float64 holds exactly."""
    grid = packing.ByteGrid.over(input_range)
    weight, step = packing.quantise_weight(params.weight)
    padded = beside(grid.centred(x).double(), params.padding, params.pad_mode)
    sums = F.conv1d(padded, weight.double(), None, params.stride, 0, params.dilation)
    y = sums.to(x.dtype) * (grid.step * step)[:, None]
    return y if params.bias is None else y + params.bias[:, None]


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    cout: int
    cin: int
    kernel: int
    stride: int
    dilation: int
    left: int
    right: int
    pad: int
    tiles: bool  # whether the weights are packed for tensor cores
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None

    def unpadded(self) -> _Packed:
        """The convolution of rows that have their padding already."""
        return self._replace(left=0, right=0, pad=0)


def _pack(params: Conv1dParams) -> _Packed:
    cout, cin, kernel = params.weight.shape
    shape = cout, cin, kernel, params.stride, params.dilation, *params.padding, PAD_MODES.index(params.pad_mode)
    bias = packing.pad_bias(params.bias, cout, params.weight)
    acts = packing.pack_activations((params.pre, params.post))
    return _Packed(packing.pack_conv(params.weight), bias, *shape, False, *acts)


def paired(params: Conv1dParams) -> bool:
    """Whether C++ takes two output steps by three products, unless exact."""
    cout, cin, kernel = params.weight.shape
    shape = cout > 1 and kernel == 2 * params.stride and params.dilation == 1 and cin % packing.PANEL == 0
    size = params.stride * cin >= packing.LEAST_PAIRED and params.weight.numel() <= _MOST_PAIRED
    return shape and size and params.weight.dtype is torch.float32 and not params.int8


def _pack_cpp(params: Conv1dParams) -> _Packed:
    packed = _pack(params)
    if params.input_range is not None:
        grid = packing.ByteGrid.over(params.input_range)
        weight, step = packing.quantise_weight(params.weight)
        bias = packing.pack_integer_bias(params.bias, weight[None], step, grid)
        acts = packing.pack_activations((params.pre, params.post), grids=(grid, None))
        groups = packing.pack_conv_groups(weight.to(torch.int8))
        return packed._replace(weight=groups, bias=bias, **acts._asdict())
    if params.weight.dtype is torch.float64:
        return packed
    single = params.weight.shape[0] == 1 and params.dilation == 1 and params.post.kind != "snake"
    pack = packing.pack_conv_window if single else packing.pack_conv_groups
    return packed._replace(weight=pack(params.weight), bias=packed.bias.float())


def _pack_cuda(params: Conv1dParams) -> _Packed:
    """Weights for tensor cores where they compute it, else as for the CPU."""
    plain = _pack(params)._replace(**pack_cuda_activations((params.pre, params.post))._asdict())
    cout, cin, kernel = params.weight.shape
    rows = (packing.TILE_STEPS - 1) * params.stride + (kernel - 1) * params.dilation + 1
    if not fits_conv_tile(params.weight.dtype, cin, cout, rows):
        return plain
    return plain._replace(weight=packing.pack_conv_tiles(params.weight), tiles=True)


def _supports_cpp(spec: Spec) -> str | None:
    if spec.params.input_range is not None:
        return _library.cpu_integer_refusal(spec.dtype, spec.params.weight[0].numel())
    if spec.dtype is not torch.float64:
        return floats(spec)
    if "snake" in (spec.params.pre.kind, spec.params.post.kind):
        return "computes a snake in torch.float32, not in torch.float64"
    return _library.cpu_problem()


def _supports_device(spec: Spec) -> str | None:
    return None if spec.params.input_range is None else "does not multiply whole numbers"


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    steps = (x.shape[2] + p.left + p.right - p.dilation * (p.kernel - 1) - 1) // p.stride + 1
    return x.new_empty((x.shape[0], steps, p.cout), dtype=packing.result_type(p.weight)).transpose(1, 2)


NATIVE = Native("conv1d", _Packed, _fake, conv1d_ref)


def geometry(params: Conv1dParams) -> Geometry:
    """How the outputs of a convolution lie over its inputs."""
    span = params.dilation * (params.weight.shape[2] - 1) + 1
    return Geometry(span, params.stride, *params.padding, params.pad_mode)


def _bare(params: Conv1dParams, rows: Tensor, residual: Tensor | None = None) -> Tensor:
    return conv1d_ref(rows, params, residual)


def _stream_ref(params: Conv1dParams, _: Any) -> TailStream:
    bare = replace(params, padding=(0, 0), pad_mode="zeros")
    return TailStream(geometry(params), params.weight.shape[0], partial(_bare, bare))


def _stream_native(params: Conv1dParams, packed: _Packed) -> TailStream:
    run = NATIVE.bound(packed.unpadded())
    dtype = packing.result_type(packed.weight)
    either = params.pad_mode != "reflect" and dtype is not torch.float64  # as `Prepared.bound` has it
    return TailStream(geometry(params), params.weight.shape[0], run, (params, packed), dtype=dtype, either=either)


def _stream_device(params: Conv1dParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None) -> TailStream:
    bare = packed.unpadded()

    def step(x: Tensor, residual: Tensor | None = None) -> Tensor:
        return run(x, bare, residual)

    return TailStream(geometry(params), params.weight.shape[0], step, rows=rows)


def _work(x: Tensor, params: Conv1dParams, *_: Tensor | None) -> tuple[int, Tensor]:
    y = output(x, x.shape[0], params.weight.shape[0], params.output_length(x.shape[2]))
    return y.numel() * params.weight[0].numel(), y


OP = conv1d = define("conv1d", _check, conv1d_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack_cpp, _supports_cpp, stream=_stream_native, paired=paired, either=True)
register_cuda(OP, NATIVE.run, _pack_cuda, _supports_device, stream=_stream_device)
register_triton(OP, _supports_device, _stream_device)
