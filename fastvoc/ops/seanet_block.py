"""seanet_block: SEANet's residual block of two convolutions and a 1x1 shortcut (arXiv 2009.02095)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, BackendError, ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._cuda import fits_conv_tile, pack_cuda_activations, register_cuda
from fastvoc.ops._triton import register_triton
from fastvoc.ops.activation import IDENTITY
from fastvoc.ops.conv1d import PAD_MODES, Conv1dParams, conv1d_ref, geometry
from fastvoc.ops.group_norm_act import GroupNormParams, group_norm_act_ref
from fastvoc.ops.stream import TailStream
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.registry import Impl, Spec, define


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


def seanet_block(
    x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """y = shortcut(x) + conv2(conv1(x)), with the activations before and the norms behind them that `params` name.

    Where reflect padding asks for more steps than an item has, zeros are appended to it first and cut off afterwards,
    as EnCodec does (github.com/facebookresearch/encodec, modules/conv.py).

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: convolutions.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        backend: implementation to force.

    Returns:
        [B, C_out, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
        BackendError: the forced backend refuses.
    """
    return OP(x, params, lengths, backend=backend)


def _check(x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None) -> None:
    check_activations("seanet_block", x, params.conv1.weight.shape[1], params.conv1.weight)
    check_lengths("seanet_block", lengths, x.shape[0], x.shape[2])


def seanet_block_ref(x: Tensor, params: SeanetBlockParams, lengths: Tensor | None = None) -> Tensor:
    """The op's meaning in torch."""
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


@dataclass(frozen=True)
class _Packed:
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    shortcut: Tensor | None
    bias_shortcut: Tensor | None
    norms: Tensor | None
    eps: list[float]
    shape: list[int]
    acts: packing.Activations


def _pack(params: SeanetBlockParams) -> _Packed:
    conv1, conv2, shortcut = params.conv1, params.conv2, params.shortcut
    hidden, channels, kernel = conv1.weight.shape
    out = conv2.weight.shape[0]
    pack = packing.pack_conv_groups
    weight2 = F.pad(conv2.weight.detach(), (0, 0, 0, -hidden % packing.PANEL))
    bias2 = packing.pad_bias(conv2.bias, out, conv2.weight).float()
    beside = bias_beside = None
    if shortcut is not None:
        beside, bias_beside = shortcut.weight.detach(), packing.pad_bias(shortcut.bias, out, shortcut.weight).float()
    norms = list(params.norms().values())
    if not norms and beside is not None and bias_beside is not None:
        weight2, bias2 = torch.cat([weight2, beside], 1), bias2 + bias_beside
        beside = bias_beside = None
    pad_mode = PAD_MODES.index(conv1.pad_mode)
    shape = [channels, hidden, out, kernel, conv1.dilation, *conv1.padding, pad_mode, 0, int(shortcut is None)]
    acts = packing.pack_activations((conv1.pre, conv2.pre))
    bias1 = packing.pad_bias(conv1.bias, hidden, conv1.weight).float()
    return _Packed(
        pack(conv1.weight),
        bias1,
        pack(weight2),
        bias2,
        None if beside is None else pack(beside),
        bias_beside,
        _pack_norms(norms),
        [norm.eps for norm in norms],
        shape,
        acts,
    )


def _pack_norms(norms: list[GroupNormParams]) -> Tensor | None:
    """Scale and shift of each norm, float32, padded to whole panels."""
    rows = [packing.pad_bias(t, t.shape[0], t).float() for norm in norms for t in (norm.weight, norm.bias)]
    return torch.cat(rows) if rows else None


def _pack_cuda(params: SeanetBlockParams) -> _Packed:
    """Convolutions as for conv1d, the shortcut's beside those of conv2 unless norms come between.

    All are for tensor cores where the last shape value says so.
    """
    conv1, conv2, shortcut = params.conv1, params.conv2, params.shortcut
    hidden, channels, kernel = conv1.weight.shape
    out, dtype = conv2.weight.shape[0], conv1.weight.dtype
    span = conv1.dilation * (kernel - 1)
    tiles = fits_conv_tile(dtype, min(channels, hidden), out, packing.TILE_STEPS + span)
    pack = packing.pack_conv_tiles if tiles else packing.pack_conv
    norms = list(params.norms().values())
    weight2, bias2 = pack(conv2.weight), packing.pad_bias(conv2.bias, out, conv2.weight)
    beside = bias_beside = None
    if shortcut is not None and norms:
        beside, bias_beside = pack(shortcut.weight), packing.pad_bias(shortcut.bias, out, shortcut.weight)
    elif shortcut is not None:
        if tiles:
            weight2 = packing.pack_conv_tiles(conv2.weight, shortcut.weight)
        else:
            weight2 = torch.cat([weight2.flatten(), pack(shortcut.weight).flatten()])
        further = packing.pad_bias(shortcut.bias, out, shortcut.weight)
        bias2 = (bias2.double() + further.double()).to(dtype)
    pad_mode = PAD_MODES.index(conv1.pad_mode)
    shape = [channels, hidden, out, kernel, conv1.dilation, *conv1.padding, pad_mode, 0, int(shortcut is None)]
    return _Packed(
        pack(conv1.weight),
        packing.pad_bias(conv1.bias, hidden, conv1.weight),
        weight2,
        bias2,
        beside,
        bias_beside,
        _pack_norms(norms),
        [norm.eps for norm in norms],
        [*shape, int(tiles)],
        pack_cuda_activations((conv1.pre, conv2.pre)),
    )


def _run_native(x: Tensor, p: _Packed, lengths: Tensor | None = None) -> Tensor:
    norms = p.shortcut, p.bias_shortcut, p.norms, p.eps
    y: Tensor = torch.ops._fastvoc.seanet_block(
        x, p.weight1, p.bias1, p.weight2, p.bias2, *norms, on_device(lengths, x), p.shape, *p.acts
    )
    return y


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
    return _shape_refusal(spec.params) or _library.cpu_refusal(spec.dtype, (torch.float32, torch.bfloat16))


def _supports_device(spec: Spec) -> str | None:
    return _shape_refusal(spec.params)


_library.define(
    "seanet_block(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, Tensor? shortcut,"
    " Tensor? bias_shortcut, Tensor? norms, float[] eps, Tensor? lengths, int[] shape, int[] acts, float[] slopes,"
    " Tensor? curves) -> Tensor"
)


@torch.library.register_fake("_fastvoc::seanet_block")
def _fake(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    shortcut: Tensor | None,
    bias_shortcut: Tensor | None,
    norms: Tensor | None,
    eps: list[float],
    lengths: Tensor | None,
    shape: list[int],
    acts: list[int],
    slopes: list[float],
    curves: Tensor | None,
) -> Tensor:
    _, _, out, kernel, dilation, left, right, *_ = shape
    steps = x.shape[2] + left + right - dilation * (kernel - 1)
    return x.new_empty((x.shape[0], steps, out)).transpose(1, 2)


def _stream(params: SeanetBlockParams, run: Callable[[Tensor], Tensor], native: Any = None) -> TailStream:
    if params.norms():
        raise BackendError("seanet_block: with group norms it has no streaming form: they need the whole signal")
    return TailStream(geometry(params.conv1), params.conv2.weight.shape[0], run, native)


def _stream_ref(params: SeanetBlockParams, _: Any) -> TailStream:
    bare = replace(params.conv1, padding=(0, 0), pad_mode="zeros")
    left = params.conv1.padding[0]

    def run(rows: Tensor) -> Tensor:
        y = _conv(conv1d_ref(rows, bare), params.conv2)
        x = rows[:, :, left : left + y.shape[2]]
        return y + (x if params.shortcut is None else _conv(x, params.shortcut))

    return _stream(params, run)


def _stream_native(params: SeanetBlockParams, packed: _Packed) -> TailStream:
    shape = [*packed.shape[:5], 0, 0, 0, params.conv1.padding[0], packed.shape[9]]
    native, p = _library.native("seanet_block"), packed
    weights = p.weight1, p.bias1, p.weight2, p.bias2, p.shortcut, p.bias_shortcut, p.norms, p.eps
    return _stream(params, lambda rows: native(rows, *weights, None, shape, *p.acts), (params, packed))


OP = define("seanet_block", _check, seanet_block_ref, _stream_ref)
OP.register(
    Impl("cpp", _run_native, frozenset({"cpu"}), priority=10, pack=_pack, supports=_supports_cpp, stream=_stream_native)
)
register_cuda(OP, _run_native, _pack_cuda, _supports_device)
register_triton(OP, _supports_device)
