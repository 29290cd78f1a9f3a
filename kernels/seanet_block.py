"""seanet_block in one launch: the hidden layer of a tile never leaves the block that computes it.

Behind it come the second convolution and the shortcut, whose kernels are 1. With group norms, which need the whole
signal, the convolutions and norms are launches of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels import conv1d, group_norm_act, packing
from fastvoc.kernels.activation import activate_channels, curves_at
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.products import accumulate, fitted, multiply, precision
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@kernel
def seanet_block_kernel(
    x,
    weight,
    bias,
    project,
    shortcut,
    project_bias,
    curves,
    table,
    lengths,
    ragged,
    out,
    steps,
    mirror,
    x_batch,
    x_channel,
    x_step,
    CIN: tl.constexpr,
    CIN_PAD: tl.constexpr,
    HIDDEN: tl.constexpr,
    HIDDEN_PAD: tl.constexpr,
    COUT: tl.constexpr,
    COUT_PAD: tl.constexpr,
    PAD_MODE: tl.constexpr,
    PRE: tl.constexpr,
    PRE_SLOPE: tl.constexpr,
    MIDDLE: tl.constexpr,
    MIDDLE_SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    busy = (tl.program_id(0) * BT < length).to(tl.int32)
    mine = x + item * x_batch
    h = tl.arange(0, HIDDEN_PAD)
    hidden = tl.zeros([BT, HIDDEN_PAD], tl.float32)
    hidden = accumulate(
        hidden,
        mine,
        weight,
        curves_at(curves, table + 5, PRE),
        t - tl.load(table + 4),
        h,
        length,
        tl.maximum(length, mirror),
        tl.load(table + 2) * busy,
        tl.load(table + 3),
        x_step,
        x_channel,
        CIN,
        CIN_PAD,
        HIDDEN_PAD,
        PAD_MODE,
        PRE,
        PRE_SLOPE,
        PRECISION,
        HIDDEN_PAD,
        BK,
    )
    hidden += tl.load(bias + h)[None, :]
    after = curves_at(curves, table + 6, MIDDLE)
    middle = activate_channels(hidden, after, h, h < HIDDEN, tl.load(table + 7), MIDDLE, MIDDLE_SLOPE)
    middle = middle.to(x.dtype.element_ty)
    inside = t < length
    rows = mine + t.to(tl.int64)[:, None] * x_step
    for first in range(0, COUT_PAD, BN):
        n = first + tl.arange(0, BN)
        columns = (n < COUT_PAD)[None, :]
        w = tl.load(project + h[:, None] * COUT_PAD + n[None, :], mask=columns, other=0.0)
        acc = multiply(middle, w, tl.zeros([BT, BN], tl.float32), PRECISION)
        live = inside[:, None] & (n < COUT)[None, :]
        if shortcut is not None:
            for start in range(0, CIN_PAD, BK):
                k = start + tl.arange(0, BK)
                mask = inside[:, None] & (k < CIN)[None, :]
                a = tl.load(rows + k.to(tl.int64)[None, :] * x_channel, mask=mask, other=0.0)
                beside = tl.load(shortcut + k[:, None] * COUT_PAD + n[None, :], mask=columns, other=0.0)
                acc = multiply(a, beside, acc, PRECISION)
        else:
            acc += tl.load(rows + n.to(tl.int64)[None, :] * x_channel, mask=live, other=0.0).to(tl.float32)
        acc += tl.load(project_bias + n, mask=n < COUT_PAD, other=0.0)[None, :]
        place = out + (item * steps + t)[:, None] * COUT + n[None, :]
        acc = tl.where(live, acc, 0.0)
        tl.store(place, acc.to(out.dtype.element_ty), mask=(t < steps)[:, None] & (n < COUT)[None, :])


class Packed(NamedTuple):
    """A block without norms as `run` takes it."""

    weight: Tensor
    bias: Tensor
    project: Tensor
    shortcut: Tensor | None
    project_bias: Tensor
    curves: Tensor
    table: Tensor
    channels: int
    hidden: int
    cout: int
    mirror: int
    pad: int
    kinds: list[int]
    slopes: list[float]


class PackedWithNorms(NamedTuple):
    """A block with norms: its convolutions and the norms behind them, by name."""

    convs: dict[str, conv1d.Packed]
    norms: dict[str, group_norm_act.Packed]


def pack(params: Any) -> Packed | PackedWithNorms:
    """Weights of a SeanetBlockParams."""
    conv1, conv2, shortcut = params.conv1, params.conv2, params.shortcut
    if params.norms():
        # The activation before conv2 moves into the norm before it.
        acts = {"norm1": conv2.pre}
        bare = {**params.convs(), "conv2": type(conv2)(conv2.weight, conv2.bias)}
        norms = {name: group_norm_act.pack(norm, acts.get(name)) for name, norm in params.norms().items()}
        return PackedWithNorms({name: conv1d.pack(conv, max(conv.padding) + 1) for name, conv in bare.items()}, norms)
    hidden, channels, kernel = conv1.weight.shape
    out = conv2.weight.shape[0]
    width = max(16, triton.next_power_of_2(hidden))
    first = conv1.weight.new_zeros((kernel, pad_channels(channels), width))
    first[:, :channels, :hidden] = conv1.weight.detach().permute(2, 1, 0)
    second = conv1.weight.new_zeros((width, pad_channels(out)))
    second[:hidden, :out] = conv2.weight.detach()[:, :, 0].t()
    shift = packing.pack_row(conv2.bias, out, conv2.weight)
    beside = None
    if shortcut is not None:
        beside = packing.pack_taps(shortcut.weight)
        shift = shift + packing.pack_row(shortcut.bias, out, shortcut.weight)
    bias = first.new_zeros(width, dtype=torch.float32)
    if conv1.bias is not None:
        bias[:hidden] = conv1.bias.detach()
    curves, places = packing.pack_curves([conv1.pre, conv2.pre], conv1.weight)
    kinds = [packing.kind_and_slope(act) for act in (conv1.pre, conv2.pre)]
    table = [0, 0, kernel, conv1.dilation, conv1.padding[0], *places, pad_channels(hidden)]
    mode = packing.PAD_MODES.index(conv1.pad_mode)
    return Packed(
        first.flatten(),
        bias,
        second.flatten(),
        beside,
        shift,
        curves,
        torch.tensor(table, dtype=torch.int32, device=first.device),
        channels,
        hidden,
        out,
        max(conv1.padding) + 1,
        mode,
        [kind for kind, _ in kinds],
        [slope for _, slope in kinds],
    )


def run(x: Tensor, p: Packed | PackedWithNorms, lengths: Tensor | None = None) -> Tensor:
    """seanet_block of `fastvoc.ops.seanet_block`; lengths on the device of x."""
    return _with_norms(x, p, lengths) if isinstance(p, PackedWithNorms) else NATIVE.run(x, p, lengths)


def _with_norms(x: Tensor, p: PackedWithNorms, lengths: Tensor | None) -> Tensor:
    y = group_norm_act.run(conv1d.run(x, p.convs["conv1"], None, lengths), p.norms["norm1"], None, lengths)
    y = conv1d.run(y, p.convs["conv2"], None, lengths)
    beside = x
    if "shortcut" in p.convs:
        beside = conv1d.run(x, p.convs["shortcut"], None, lengths)
        beside = group_norm_act.run(beside, p.norms["norm_shortcut"], None, lengths)
    return group_norm_act.run(y, p.norms["norm2"], beside, lengths)


def _seanet_block(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    batch, _, steps = x.shape
    out = x.new_empty((batch, steps, p.cout))
    config = fitted(tuned("seanet_block", x.device, x.dtype, channels=p.channels), pad_channels(p.channels), p.cout)
    launch(
        seanet_block_kernel,
        (cdiv(steps, config["BT"]), batch),
        config,
        x.device,
        x=x,
        weight=p.weight,
        bias=p.bias,
        project=p.project,
        shortcut=p.shortcut,
        project_bias=p.project_bias,
        curves=p.curves,
        table=p.table,
        lengths=lengths,
        out=out,
        steps=steps,
        mirror=p.mirror,
        **strides(x, "x"),
        CIN=p.channels,
        CIN_PAD=pad_channels(p.channels),
        HIDDEN=p.hidden,
        HIDDEN_PAD=p.bias.shape[0],
        COUT=p.cout,
        COUT_PAD=pad_channels(p.cout),
        PAD_MODE=p.pad,
        PRE=p.kinds[0],
        PRE_SLOPE=p.slopes[0],
        MIDDLE=p.kinds[1],
        MIDDLE_SLOPE=p.slopes[1],
        PRECISION=precision(x.dtype),
    )
    return out.transpose(1, 2)


def _fake(p: Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], p.cout)).transpose(1, 2)


NATIVE = Native("triton_seanet_block", Packed, _fake, body=_seanet_block)
