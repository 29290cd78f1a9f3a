"""convnext_block: depthwise convolution, layer norm and two pointwise layers around a residual, in one pass.

The block of ConvNeXt (Liu et al. 2022, arXiv 2201.03545) along time, as Vocos uses it (Siuzdak 2023, arXiv 2306.00814).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import fits_conv_tile, register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.layer_norm import LayerNormParams, check_row, layer_norm_ref, pack_rows
from fastvoc.ops.stream import Geometry, Rows, TailStream
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import define

# Hidden channels computed at a time, so that a strip of them stays in the L2 cache.
_CHUNK = 512


@dataclass(frozen=True)
class ConvNextBlockParams:
    """Weights of a block of C channels and H hidden ones.

    depthwise_weight [C, 1, K] with an odd K, depthwise_bias [C]; norm over C, plain or adaptive; expand_weight [H, C],
    expand_bias [H]; project_weight [C, H], project_bias [C]; gamma [C] scales the result before the residual, None: 1.
    """

    depthwise_weight: Tensor
    depthwise_bias: Tensor
    norm: LayerNormParams
    expand_weight: Tensor
    expand_bias: Tensor
    project_weight: Tensor
    project_bias: Tensor
    gamma: Tensor | None = None

    def __post_init__(self) -> None:
        channels, hidden = self.norm.weight.shape[-1], self.expand_bias.shape[0]
        kernel = self.depthwise_weight.shape[-1]
        expected = {
            "depthwise_weight": (channels, 1, kernel),
            "depthwise_bias": (channels,),
            "expand_weight": (hidden, channels),
            "expand_bias": (hidden,),
            "project_weight": (channels, hidden),
            "project_bias": (channels,),
            "gamma": (channels,),
        }
        for name, shape in expected.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tensor.shape != shape:
                raise ShapeError(f"convnext_block: {name}: expected {list(shape)}, got {list(tensor.shape)}")
        if kernel % 2 == 0:
            raise ShapeError(f"convnext_block: depthwise_weight: expected an odd kernel, got {kernel}")

    def tensors(self) -> list[Tensor]:
        """The weights."""
        own = [
            self.depthwise_weight,
            self.depthwise_bias,
            *self.norm.tensors(),
            self.expand_weight,
            self.expand_bias,
            self.project_weight,
            self.project_bias,
        ]
        return own if self.gamma is None else [*own, self.gamma]


def _check(x: Tensor, params: ConvNextBlockParams, row: Tensor | None = None, lengths: Tensor | None = None) -> None:
    check_activations("convnext_block", x, params.expand_weight.shape[1], params.expand_weight)
    check_row("convnext_block", row, params.norm.rows, x.shape[0])
    check_lengths("convnext_block", lengths, x.shape[0], x.shape[2])


def convnext_block_ref(
    x: Tensor, params: ConvNextBlockParams, row: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """y = x + gamma * project(gelu(expand(norm(depthwise(x))))), zeros beside the signal, the exact GELU.

    Args:
        x: [B, C, T], dtype and device of the weights; any strides, time-major ones are the fast ones.
        params: the weights.
        row: [B] int64 on the CPU, the row of an adaptive norm for each item; None for a plain norm.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            return convnext_block_ref(item, params, None if row is None else row[i : i + 1])

        return by_item(x, lengths, x.shape[2], one)
    channels, _, kernel = params.depthwise_weight.shape
    with full_float32(x):
        y = F.conv1d(x, params.depthwise_weight, params.depthwise_bias, padding=kernel // 2, groups=channels)
    y = layer_norm_ref(y, params.norm, row).transpose(1, 2)
    y = F.gelu(F.linear(y, params.expand_weight, params.expand_bias))
    y = F.linear(y, params.project_weight, params.project_bias)
    if params.gamma is not None:
        y = y * params.gamma
    return x + y.transpose(1, 2)


class _Packed(NamedTuple):
    depthwise: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    weight: Tensor
    expand_bias: Tensor
    project_bias: Tensor
    channels: int
    hidden: int
    kernel: int
    chunk: int  # hidden channels at a time on the CPU
    tiles: bool  # whether the weights are packed for tensor cores
    margin: int  # steps left out at either end, those of a stream's chunk that are only read
    eps: float


def _pack(params: ConvNextBlockParams) -> _Packed:
    hidden, channels = params.expand_weight.shape
    project, shift = scaled_projection(params)
    shift = shift.float()
    chunk = min(-(-hidden // packing.PANEL) * packing.PANEL, _CHUNK)
    weights = []
    for h in range(0, hidden, chunk):
        weights += [params.expand_weight[h : h + chunk], project[:, h : h + chunk]]
    weight = torch.cat([packing.pack_pairs(weight) for weight in weights])
    expand_bias = packing.pad_bias(params.expand_bias, hidden, params.expand_weight).float()
    return _packed(params, weight, expand_bias, packing.pad_bias(shift, channels, shift), chunk)


def _packed(
    params: ConvNextBlockParams,
    weight: Tensor,
    expand_bias: Tensor,
    project_bias: Tensor,
    chunk: int,
    tiles: bool = False,
) -> _Packed:
    hidden, channels = params.expand_weight.shape
    depthwise = torch.cat([params.depthwise_weight[:, 0].t(), params.depthwise_bias[None]])
    taps, scale, offset = (pack_rows(t).float() for t in (depthwise, params.norm.weight, params.norm.bias))
    shape = channels, hidden, params.depthwise_weight.shape[2], chunk, tiles, 0
    return _Packed(taps, scale, offset, weight, expand_bias, project_bias, *shape, params.norm.eps)


def scaled_projection(params: ConvNextBlockParams) -> tuple[Tensor, Tensor]:
    """Weight, in its dtype, and bias of the projection, with gamma."""
    project, shift = params.project_weight, params.project_bias
    if params.gamma is None:
        return project, shift
    gamma = params.gamma.double()
    return (gamma[:, None] * project.double()).to(project.dtype), gamma * shift.double()


def _pack_cuda(params: ConvNextBlockParams) -> _Packed:
    """The pointwise layers packed as for conv1d, for tensor cores where they compute them."""
    hidden, channels = params.expand_weight.shape
    project, shift = scaled_projection(params)
    tiles = fits_conv_tile(project.dtype, channels, hidden, packing.TILE_STEPS)
    pack = packing.pack_conv_tiles if tiles else packing.pack_conv
    weight = torch.cat([pack(weight[:, :, None]).flatten() for weight in (params.expand_weight, project)])
    biases = (packing.pad_bias(params.expand_bias, hidden, project), packing.pad_bias(shift, channels, project))
    return _packed(params, weight, *biases, 0, tiles)


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2] - 2 * p.margin, x.shape[1])).transpose(1, 2)


NATIVE = Native("convnext_block", _Packed, _fake, convnext_block_ref)


def _stream(
    params: ConvNextBlockParams, run: Callable[..., Tensor], native: Any = None, rows: Rows | None = None
) -> TailStream:
    channels, _, kernel = params.depthwise_weight.shape
    return TailStream(Geometry(kernel, 1, kernel // 2, kernel // 2), channels, run, native, rows=rows)


def _stream_ref(params: ConvNextBlockParams, _: Any) -> TailStream:
    side = params.depthwise_weight.shape[2] // 2

    def run(rows: Tensor, row: Tensor | None = None) -> Tensor:
        return convnext_block_ref(rows, params, row)[:, :, side : rows.shape[2] - side]

    return _stream(params, run)


def _stream_native(params: ConvNextBlockParams, packed: _Packed) -> TailStream:
    return _stream(params, NATIVE.bound(packed._replace(margin=packed.kernel // 2)), (params, packed))


def _stream_device(
    params: ConvNextBlockParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None
) -> TailStream:
    side = params.depthwise_weight.shape[2] // 2

    def step(x: Tensor, row: Tensor | None = None) -> Tensor:
        return run(x, packed, row)[:, :, side : x.shape[2] - side]

    return _stream(params, step, rows=rows)


def _work(x: Tensor, params: ConvNextBlockParams, *_: Tensor | None) -> tuple[int, Tensor]:
    weights = params.depthwise_weight, params.expand_weight, params.project_weight
    return x.shape[0] * x.shape[2] * sum(t.numel() for t in weights), output(x, *x.shape)


OP = convnext_block = define("convnext_block", _check, convnext_block_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack_cuda, stream=_stream_device)
register_triton(OP, stream=_stream_device)
