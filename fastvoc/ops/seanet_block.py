"""seanet_block: SEANet's residual block of two convolutions and a 1x1 shortcut (arXiv 2009.02095)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, BackendError, ShapeError
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import floats, register_cpp
from fastvoc.ops._cuda import fits_conv_tile, pack_cuda_activations, register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY
from fastvoc.ops.conv1d import PAD_MODES, Conv1dParams, conv1d_ref, geometry
from fastvoc.ops.group_norm_act import GroupNormParams, group_norm_act_ref
from fastvoc.ops.stream import Rows, TailStream
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define


@dataclass(frozen=True)
class SeanetBlockParams:
    """The convolutions of the block, each with its own activation before it (`pre`); all keep the length.

    `shortcut` None adds the input itself. `norm1`, `norm2` and `norm_shortcut` are the group norms behind the
    convolutions of these names: all of them or none.
    """

    conv1: Conv1dParams
    conv2: Conv1dParams
    shortcut: Conv1dParams | None
    norm1: GroupNormParams | None = None
    norm2: GroupNormParams | None = None
    norm_shortcut: GroupNormParams | None = None

    def __post_init__(self) -> None:
        for name, conv in self.convs().items():
            kernel = conv.weight.shape[2]
            if conv.stride != 1 or sum(conv.padding) != conv.dilation * (kernel - 1):
                raise ShapeError(
                    f"seanet_block: {name}: kernel {kernel}, stride {conv.stride}, dilation {conv.dilation} and padding"
                    f" {conv.padding} do not keep the length"
                )
        channels, hidden = self.conv1.weight.shape[1], self.conv1.weight.shape[0]
        out = channels if self.shortcut is None else self.shortcut.weight.shape[0]
        if self.conv2.weight.shape[:2] != (out, hidden):
            raise ShapeError(
                f"seanet_block: conv2: weight: expected [{out}, {hidden}, K], got {list(self.conv2.weight.shape)}"
            )
        if self.shortcut is not None and self.shortcut.weight.shape[1] != channels:
            raise ShapeError(
                f"seanet_block: shortcut: weight: expected [C_out, {channels}, K], got"
                f" {list(self.shortcut.weight.shape)}"
            )

        wanted = 0 if self.norm1 is None else len(self.convs())
        if len(self.norms()) != wanted or (self.shortcut is None and self.norm_shortcut is not None):
            raise ArgumentError(
                f"seanet_block: norms: expected one for each of {', '.join(self.convs())} or none,"
                f" got {', '.join(self.norms()) or 'none'}"
            )
        for name, norm in self.norms().items():
            count = hidden if name == "norm1" else out
            if norm.weight.shape != (count,):
                raise ShapeError(f"seanet_block: {name}: weight: expected [{count}], got {list(norm.weight.shape)}")

    def norms(self) -> dict[str, GroupNormParams]:
        """The norms by name, in the order of their convolutions."""
        named = {"norm1": self.norm1, "norm2": self.norm2, "norm_shortcut": self.norm_shortcut}
        return {name: norm for name, norm in named.items() if norm is not None}

    def convs(self) -> dict[str, Conv1dParams]:
        """The convolutions by name."""
        named = {"conv1": self.conv1, "conv2": self.conv2}
        return named if self.shortcut is None else {**named, "shortcut": self.shortcut}

    def tensors(self) -> list[Tensor]:
        """The weights."""
        parts = [conv.tensors() for conv in self.convs().values()] + [norm.tensors() for norm in self.norms().values()]
        return [t for tensors in parts for t in tensors]


def _check(x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None) -> None:
    check_activations("seanet_block", x, params.conv1.weight.shape[1], params.conv1.weight, lengths)


def seanet_block_ref(x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None) -> Tensor:
    """y = shortcut(x) + conv2(conv1(x)), with the activations before and the norms behind them that `params` name.

    Where reflect padding asks for more steps than an item has, zeros are appended to it first and cut off afterwards,
    as EnCodec does (github.com/facebookresearch/encodec, modules/conv.py).

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: convolutions.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C_out, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: seanet_block_ref(item, params))
    y = _norm(_conv(x, params.conv1), params.norm1)
    y = _norm(_conv(y, params.conv2), params.norm2)
    return y + (x if params.shortcut is None else _norm(_conv(x, params.shortcut), params.norm_shortcut))


def _norm(x: Tensor, norm: GroupNormParams | None) -> Tensor:
    return x if norm is None else group_norm_act_ref(x, norm)


def _conv(x: Tensor, conv: Conv1dParams) -> Tensor:
    """conv1d_ref, of a signal that is too short for the reflection with zeros appended."""
    steps = x.shape[2]
    missing = max(conv.padding) + 1 - steps if conv.pad_mode == "reflect" else 0
    if missing <= 0:
        return conv1d_ref(x, conv)
    longer = F.pad(conv.pre(x), (0, missing))
    return conv1d_ref(longer, replace(conv, pre=IDENTITY))[:, :, :steps]


class _Packed(NamedTuple):
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    shortcut: Tensor | None
    bias_shortcut: Tensor | None
    norms: Tensor | None
    eps: list[float]  # of every norm
    channels: int
    hidden: int
    out: int
    kernel: int
    dilation: int
    left: int
    right: int
    pad: int
    shift: int  # of the shortcut's input against conv1's, in a stream
    identity: bool
    tiles: bool  # whether the weights are packed for tensor cores
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


class _Weights(NamedTuple):
    """What is packed in a way of its own for each device."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    shortcut: Tensor | None = None
    bias_shortcut: Tensor | None = None


def _packed(params: SeanetBlockParams, weights: _Weights, acts: packing.Activations, tiles: bool = False) -> _Packed:
    conv1, norms = params.conv1, list(params.norms().values())
    hidden, channels, kernel = conv1.weight.shape
    # Scale and shift of each norm, float32, padded to whole panels.
    rows = [packing.pad_bias(t, t.shape[0], t).float() for norm in norms for t in (norm.weight, norm.bias)]
    shape = channels, hidden, params.conv2.weight.shape[0], kernel, conv1.dilation, *conv1.padding
    flags = PAD_MODES.index(conv1.pad_mode), 0, params.shortcut is None, tiles
    together = torch.cat(rows) if rows else None
    return _Packed(*weights, together, [norm.eps for norm in norms], *shape, *flags, *acts)


def _pack(params: SeanetBlockParams) -> _Packed:
    conv1, conv2, shortcut = params.conv1, params.conv2, params.shortcut
    hidden, out = conv1.weight.shape[0], conv2.weight.shape[0]
    pack = packing.pack_conv_groups
    weight2 = F.pad(conv2.weight.detach(), (0, 0, 0, -hidden % packing.PANEL))
    bias1 = packing.pad_bias(conv1.bias, hidden, conv1.weight).float()
    bias2 = packing.pad_bias(conv2.bias, out, conv2.weight).float()
    acts = packing.pack_activations((conv1.pre, conv2.pre))
    if shortcut is None:
        return _packed(params, _Weights(pack(conv1.weight), bias1, pack(weight2), bias2), acts)
    beside, bias_beside = shortcut.weight.detach(), packing.pad_bias(shortcut.bias, out, shortcut.weight).float()
    if params.norms():
        weights = _Weights(pack(conv1.weight), bias1, pack(weight2), bias2, pack(beside), bias_beside)
    else:
        both = pack(torch.cat([weight2, beside], 1))
        weights = _Weights(pack(conv1.weight), bias1, both, bias2 + bias_beside)
    return _packed(params, weights, acts)


def _pack_cuda(params: SeanetBlockParams) -> _Packed:
    """Convolutions as for conv1d, the shortcut's beside those of conv2 unless norms come between.

    All are for tensor cores or none.
    """
    conv1, conv2, shortcut = params.conv1, params.conv2, params.shortcut
    hidden, channels, kernel = conv1.weight.shape
    out, dtype = conv2.weight.shape[0], conv1.weight.dtype
    span = conv1.dilation * (kernel - 1)
    tiles = fits_conv_tile(dtype, min(channels, hidden), out, packing.TILE_STEPS + span)
    pack = packing.pack_conv_tiles if tiles else packing.pack_conv
    weight2, bias2 = pack(conv2.weight), packing.pad_bias(conv2.bias, out, conv2.weight)
    beside = bias_beside = None
    if shortcut is not None and params.norms():
        beside, bias_beside = pack(shortcut.weight), packing.pad_bias(shortcut.bias, out, shortcut.weight)
    elif shortcut is not None:
        if tiles:
            weight2 = packing.pack_conv_tiles(conv2.weight, shortcut.weight)
        else:
            weight2 = torch.cat([weight2.flatten(), pack(shortcut.weight).flatten()])
        further = packing.pad_bias(shortcut.bias, out, shortcut.weight)
        bias2 = (bias2.double() + further.double()).to(dtype)
    bias1 = packing.pad_bias(conv1.bias, hidden, conv1.weight)
    weights = _Weights(pack(conv1.weight), bias1, weight2, bias2, beside, bias_beside)
    return _packed(params, weights, pack_cuda_activations((conv1.pre, conv2.pre)), tiles)


def _shape_refusal(p: SeanetBlockParams) -> str | None:
    last = [conv for conv in (p.conv2, p.shortcut) if conv is not None]
    if any(conv.weight.shape[2] != 1 for conv in last):
        return "wants a kernel of 1 in conv2 and shortcut"
    bare = [conv.post for conv in p.convs().values()] + ([] if p.shortcut is None else [p.shortcut.pre])
    if any(act.kind != "identity" for act in bare):
        return "has no activation but those before conv1 and conv2"
    if any(norm.act.kind != "identity" for norm in p.norms().values()):
        return "has no activation in its norms"
    return None


def _supports_cpp(spec: Spec) -> str | None:
    return _shape_refusal(spec.params) or floats(spec)


def _supports_device(spec: Spec) -> str | None:
    return _shape_refusal(spec.params)


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    steps = x.shape[2] + p.left + p.right - p.dilation * (p.kernel - 1)
    return x.new_empty((x.shape[0], steps, p.out)).transpose(1, 2)


NATIVE = Native("seanet_block", _Packed, _fake, seanet_block_ref)


def _stream(
    params: SeanetBlockParams, run: Callable[[Tensor], Tensor], native: Any = None, rows: Rows | None = None
) -> TailStream:
    if params.norms():
        raise BackendError("seanet_block: with group norms it has no streaming form: they need the whole signal")
    return TailStream(geometry(params.conv1), params.conv2.weight.shape[0], run, native, rows=rows)


def _stream_ref(params: SeanetBlockParams, _: Any) -> TailStream:
    bare = replace(params.conv1, padding=(0, 0), pad_mode="zeros")
    left = params.conv1.padding[0]

    def run(rows: Tensor) -> Tensor:
        y = _conv(conv1d_ref(rows, bare), params.conv2)
        x = rows[:, :, left : left + y.shape[2]]
        return y + (x if params.shortcut is None else _conv(x, params.shortcut))

    return _stream(params, run)


def _stream_native(params: SeanetBlockParams, packed: _Packed) -> TailStream:
    bare = packed._replace(left=0, right=0, pad=0, shift=packed.left)
    return _stream(params, NATIVE.bound(bare), (params, packed))


def _stream_device(params: SeanetBlockParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None) -> TailStream:
    """On rows that have their padding already: with zeros beside them, whose outputs are left out."""
    left, right = params.conv1.padding

    def step(x: Tensor) -> Tensor:
        return run(x, packed._replace(pad=0))[:, :, left : x.shape[2] - right]

    return _stream(params, step, rows=rows)


def _work(x: Tensor, params: SeanetBlockParams, *_: Tensor | None) -> tuple[int, Tensor]:
    batch, steps = x.shape[0], x.shape[2]
    weights = sum(conv.weight.numel() for conv in params.convs().values())
    return batch * steps * weights, output(x, batch, params.conv2.weight.shape[0], steps)


OP = seanet_block = define("seanet_block", _check, seanet_block_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, _supports_cpp, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack_cuda, _supports_device, stream=_stream_device)
register_triton(OP, _supports_device, _stream_device)
