"""adain in three launches: moments of every tile, what each channel becomes, then norm and activation.

Tiles lie at fixed places of their item and are put together in order (Chan, Golub and LeVeque 1979).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import activate_channels
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import kind_and_slope
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows


@kernel
def adain_sums_kernel(
    x,
    lengths,
    ragged,
    out,
    steps,
    tiles,
    x_batch,
    x_channel,
    x_step,
    CHANNELS: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    tile = tl.program_id(0)
    item = tl.program_id(2).to(tl.int64)
    t = tile * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    mask = (t < length)[:, None] & (c < CHANNELS)[None, :]
    at = x + item * x_batch + t.to(tl.int64)[:, None] * x_step + c.to(tl.int64)[None, :] * x_channel
    v = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    count = tl.minimum(tl.maximum(length - tile * BT, 0), BT).to(tl.float32)
    mean = tl.sum(v, 0) / tl.maximum(count, 1.0)
    d = tl.where(mask, v - mean[None, :], 0.0)
    sums = out + (item * tiles + tile) * 2 * CHANNELS + c
    tl.store(sums, mean, mask=c < CHANNELS)
    tl.store(sums + CHANNELS, tl.sum(d * d, 0), mask=c < CHANNELS)


@kernel
def adain_fit_kernel(
    sums,
    weight,
    bias,
    style,
    lengths,
    ragged,
    out,
    steps,
    tiles,
    style_batch,
    style_value,
    eps,
    CHANNELS: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BS: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BN + tl.arange(0, BN)
    live = c < CHANNELS
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    total = length.to(tl.float32)

    # Tiles beyond the item's own steps count nothing, so that further ones do not change a bit. What means are more
    # than the first keeps its digits where all of them are large.
    first = tl.load(sums + item * tiles * 2 * CHANNELS + c, mask=live, other=0.0)
    above = tl.zeros([BN], tl.float32)
    for begin in range(0, tiles, BS):
        i = begin + tl.arange(0, BS)
        count = tl.minimum(tl.maximum(length - i * BT, 0), BT).to(tl.float32)
        mask = (i < tiles)[:, None] & live[None, :]
        part = sums + (item * tiles + i)[:, None] * 2 * CHANNELS + c[None, :]
        mean = tl.load(part, mask=mask, other=0.0)
        above += tl.sum(tl.where(count[:, None] > 0.0, (mean - first[None, :]) * count[:, None], 0.0), 0)
    above = above / total
    squares = tl.zeros([BN], tl.float32)
    for begin in range(0, tiles, BS):
        i = begin + tl.arange(0, BS)
        count = tl.minimum(tl.maximum(length - i * BT, 0), BT).to(tl.float32)
        mask = (i < tiles)[:, None] & live[None, :]
        part = sums + (item * tiles + i)[:, None] * 2 * CHANNELS + c[None, :]
        apart = tl.load(part, mask=mask, other=0.0) - first[None, :] - above[None, :]
        apart = tl.where(count[:, None] > 0.0, apart, 0.0)
        squares += tl.sum(tl.load(part + CHANNELS, mask=mask, other=0.0) + count[:, None] * apart * apart, 0)

    own = style + item * style_batch + c.to(tl.int64) * style_value
    gain = 1.0 + tl.load(own, mask=live, other=0.0).to(tl.float32)
    beta = tl.load(own + CHANNELS * style_value, mask=live, other=0.0).to(tl.float32)
    scale = gain * tl.load(weight + c, mask=live, other=0.0) / tl.sqrt(squares / total + eps)
    place = out + item * 4 * CHANNELS + c
    tl.store(place, first, mask=live)
    tl.store(place + CHANNELS, above, mask=live)
    tl.store(place + 2 * CHANNELS, scale, mask=live)
    tl.store(place + 3 * CHANNELS, gain * tl.load(bias + c, mask=live, other=0.0) + beta, mask=live)


@kernel
def adain_kernel(
    x,
    fitted,
    curves,
    lengths,
    ragged,
    out,
    steps,
    x_batch,
    x_channel,
    x_step,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    item = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    live = c < CHANNELS
    inside = (t < length)[:, None] & live[None, :]
    own = fitted + item * 4 * CHANNELS + c
    first = tl.load(own, mask=live, other=0.0)[None, :]
    above = tl.load(own + CHANNELS, mask=live, other=0.0)[None, :]
    scale = tl.load(own + 2 * CHANNELS, mask=live, other=0.0)[None, :]
    shift = tl.load(own + 3 * CHANNELS, mask=live, other=0.0)[None, :]
    at = x + item * x_batch + t.to(tl.int64)[:, None] * x_step + c.to(tl.int64)[None, :] * x_channel
    v = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = activate_channels((v - first - above) * scale + shift, curves, c, live, WIDTH, ACT, SLOPE)
    place = out + (item * steps + t)[:, None] * CHANNELS + c[None, :]
    tl.store(place, tl.where(inside, y, 0.0).to(out.dtype.element_ty), mask=(t < steps)[:, None] & live[None, :])


class Packed(NamedTuple):
    """A norm as `run` takes it, in float32."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    eps: float
    act: int
    slope: float


def pack(params: Any) -> Packed:
    """Weights of an AdaInParams."""
    act = params.act
    curves = [t.detach().float() for t in (act.alpha, act.inverse) if t is not None]
    weight, bias = (t.detach().float().contiguous() for t in (params.weight, params.bias))
    kind, slope = kind_and_slope(act)
    return Packed(weight, bias, torch.cat(curves) if curves else weight, params.eps, kind, slope)


def _adain(p: Packed, x: Tensor, style: Tensor, lengths: Tensor | None = None) -> Tensor:
    """adain of `fastvoc.ops.adain`; lengths on the device of x."""
    batch, channels, steps = x.shape
    out = x.new_empty((batch, steps, channels))
    config = tuned("adain", x.device, x.dtype, channels=channels)
    rows = {name: value for name, value in config.items() if name != "BS"}
    tiles, columns = cdiv(steps, config["BT"]), cdiv(channels, config["BN"])
    sums = x.new_empty((batch, tiles, 2, channels), dtype=torch.float32)
    fitted = x.new_empty((batch, 4, channels), dtype=torch.float32)
    shared = {"lengths": lengths, "steps": steps, "CHANNELS": channels}
    moved = {"x": x, **strides(x, "x")}
    launch(adain_sums_kernel, (tiles, columns, batch), rows, x.device, **moved, out=sums, tiles=tiles, **shared)
    launch(
        adain_fit_kernel,
        (columns, batch),
        config,
        x.device,
        sums=sums,
        weight=p.weight,
        bias=p.bias,
        style=style,
        out=fitted,
        tiles=tiles,
        style_batch=style.stride(0),
        style_value=style.stride(1),
        eps=p.eps,
        **shared,
    )
    launch(
        adain_kernel,
        (tiles, columns, batch),
        rows,
        x.device,
        **moved,
        fitted=fitted,
        curves=p.curves,
        out=out,
        **shared,
        WIDTH=channels,
        ACT=p.act,
        SLOPE=p.slope,
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_adain", Packed, like_rows, body=_adain)
run = NATIVE.run
