"""group_norm_act in two launches: count, mean and squared deviations of every tile, then norm, addition, activation.

Tiles lie at fixed places of their item and are put together in order (Chan, Golub and LeVeque 1979).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import activate_channels
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import kind_and_slope
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows


@kernel
def group_norm_sums_kernel(
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
    WIDTH: tl.constexpr,
    BT: tl.constexpr,
):
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    t = tile * BT + tl.arange(0, BT)
    c = tl.arange(0, WIDTH)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    mask = (t < length)[:, None] & (c < CHANNELS)[None, :]
    at = x + item * x_batch + t.to(tl.int64)[:, None] * x_step + c.to(tl.int64)[None, :] * x_channel
    v = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    count = tl.minimum(tl.maximum(length - tile * BT, 0), BT).to(tl.float32) * CHANNELS
    mean = tl.sum(tl.sum(v, 1), 0) / tl.maximum(count, 1.0)
    d = tl.where(mask, v - mean, 0.0)
    sums = out + (item * tiles + tile) * 3
    tl.store(sums, count)
    tl.store(sums + 1, mean)
    tl.store(sums + 2, tl.sum(tl.sum(d * d, 1), 0))


@kernel
def group_norm_act_kernel(
    x,
    sums,
    weight,
    bias,
    curves,
    residual,
    lengths,
    ragged,
    out,
    steps,
    tiles,
    x_batch,
    x_channel,
    x_step,
    residual_batch,
    residual_channel,
    residual_step,
    eps,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BT: tl.constexpr,
    BS: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.arange(0, WIDTH)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    live = (c < CHANNELS)[None, :]
    inside = (t < length)[:, None] & live

    # Tiles beyond the item's own steps count nothing, so that further ones do not change a bit.
    total = 0.0
    weighted = 0.0
    for first in range(0, tiles, BS):
        i = first + tl.arange(0, BS)
        part = sums + (item * tiles + i) * 3
        count = tl.load(part, mask=i < tiles, other=0.0)
        total += tl.sum(count, 0)
        weighted += tl.sum(count * tl.load(part + 1, mask=i < tiles, other=0.0), 0)
    mean = weighted / total
    squares = 0.0
    for first in range(0, tiles, BS):
        i = first + tl.arange(0, BS)
        part = sums + (item * tiles + i) * 3
        count = tl.load(part, mask=i < tiles, other=0.0)
        apart = tl.load(part + 1, mask=i < tiles, other=0.0) - mean
        squares += tl.sum(tl.load(part + 2, mask=i < tiles, other=0.0) + count * apart * apart, 0)
    scale = 1.0 / tl.sqrt(squares / total + eps)

    at = x + item * x_batch + t.to(tl.int64)[:, None] * x_step + c.to(tl.int64)[None, :] * x_channel
    v = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = (v - mean) * scale * tl.load(weight + c)[None, :] + tl.load(bias + c)[None, :]
    if residual is not None:
        at = residual + item * residual_batch + t.to(tl.int64)[:, None] * residual_step
        at = at + c.to(tl.int64)[None, :] * residual_channel
        y += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = activate_channels(y, curves, c, None, WIDTH, ACT, SLOPE)
    place = out + (item * steps + t)[:, None] * CHANNELS + c[None, :]
    tl.store(place, tl.where(inside, y, 0.0).to(out.dtype.element_ty), mask=(t < steps)[:, None] & live)


class Packed(NamedTuple):
    """A norm as `run` takes it, in float32, rows padded to a power of 2."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    eps: float
    kind: int
    slope: float


def pack(params: Any, act: Any = None) -> Packed:
    """Weights of a GroupNormParams; `act` takes the place of its own activation."""
    act = params.act if act is None else act

    def row(values: Tensor) -> Tensor:
        values = values.detach().float()
        return torch.nn.functional.pad(values, (0, triton.next_power_of_2(len(values)) - len(values)))

    curves = [row(t) for t in (act.alpha, act.inverse) if t is not None]
    weight = row(params.weight)
    kind, slope = kind_and_slope(act)
    return Packed(weight, row(params.bias), torch.cat(curves) if curves else weight, params.eps, kind, slope)


def _group_norm_act(p: Packed, x: Tensor, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """group_norm_act of `fastvoc.ops.group_norm_act`; lengths on the device of x."""
    batch, channels, steps = x.shape
    out = x.new_empty((batch, steps, channels))
    config = tuned("group_norm_act", x.device, x.dtype, channels=channels)
    rows = {name: value for name, value in config.items() if name != "BS"}
    tiles = cdiv(steps, config["BT"])
    sums = x.new_empty((batch, tiles, 3), dtype=torch.float32)
    shared = {"lengths": lengths, "steps": steps, "tiles": tiles, **strides(x, "x"), "CHANNELS": channels}
    launch(group_norm_sums_kernel, (tiles, batch), rows, x.device, x=x, out=sums, WIDTH=p.weight.shape[0], **shared)
    launch(
        group_norm_act_kernel,
        (tiles, batch),
        config,
        x.device,
        x=x,
        sums=sums,
        weight=p.weight,
        bias=p.bias,
        curves=p.curves,
        residual=residual,
        out=out,
        **shared,
        **strides(residual, "residual"),
        eps=p.eps,
        WIDTH=p.weight.shape[0],
        ACT=p.kind,
        SLOPE=p.slope,
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_group_norm_act", Packed, like_rows, body=_group_norm_act)
run = NATIVE.run
