"""Two convolutions of a residual layer in one launch: the hidden tile passes through memory that stays in the cache.

A block computes BT hidden steps, then as many outputs as those suffice for: the taps of the second convolution are
worked out twice where tiles meet. Zeros beside the signal are set again between the two.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import activate_channels, curves_at
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.products import accumulate, precision


@kernel
def mrf_pair_kernel(
    x,
    weight,
    bias,
    curves,
    table,
    lengths,
    ragged,
    residual,
    prior,
    scratch,
    carry,
    out,
    steps,
    x_items,
    x_batch,
    x_channel,
    x_step,
    residual_items,
    residual_batch,
    residual_channel,
    residual_step,
    GROUPS: tl.constexpr,
    SUM: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    PRE: tl.constexpr,
    MIDDLE: tl.constexpr,
    POST: tl.constexpr,
    SLOPE: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
    BO: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
):
    tile = tl.program_id(0)
    group = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    i = tl.arange(0, BT)
    n = tl.arange(0, WIDTH)
    row = tile * BO
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    busy = (row < length).to(tl.int32)
    batch = tl.num_programs(2)
    mine = scratch + ((group * batch + item) * tl.num_programs(0) + tile) * (BT * WIDTH)
    place = i[:, None] * CHANNELS + n[None, :]
    within = ((i < BO) & (row + i < steps))[:, None] & (n < CHANNELS)[None, :]
    valid = within & (row + i < length)[:, None]
    acc = tl.zeros([BT, WIDTH], tl.float32)
    for g in range(group, GROUPS if SUM else group + 1):
        first = table + g * 8
        second = table + (GROUPS + g) * 8
        s = row - tl.load(second + 4) + i
        hidden = accumulate(
            tl.zeros([BT, WIDTH], tl.float32),
            x + (g * x_items + item) * x_batch,
            weight + tl.multiple_of(tl.load(first), 16),
            curves_at(curves, first + 5, PRE),
            s - tl.load(first + 4),
            n,
            length,
            length,
            tl.load(first + 2) * busy,
            tl.load(first + 3),
            x_step,
            x_channel,
            CHANNELS,
            WIDTH,
            WIDTH,
            0,
            PRE,
            SLOPE,
            PRECISION,
            WIDTH,
            BK,
        )
        hidden += tl.load(bias + tl.multiple_of(tl.load(first + 1), 16) + n)[None, :]
        hidden = activate_channels(hidden, curves_at(curves, first + 6, MIDDLE), n, None, WIDTH, MIDDLE, SLOPE)
        hidden = tl.where(((s >= 0) & (s < length))[:, None], hidden, 0.0).to(x.dtype.element_ty)
        tl.store(mine + i[:, None] * WIDTH + n[None, :], hidden)
        tl.debug_barrier()
        here = length * 0 + BT
        acc = accumulate(
            acc,
            mine,
            weight + tl.multiple_of(tl.load(second), 16),
            curves,
            i,
            n,
            here,
            here,
            tl.load(second + 2) * busy,
            tl.load(second + 3),
            WIDTH,
            1,
            WIDTH,
            WIDTH,
            WIDTH,
            0,
            0,
            0.0,
            PRECISION,
            WIDTH,
            BK,
        )
        # The next block of the sum writes its hidden tile to the same place.
        tl.debug_barrier()
        acc += tl.load(bias + tl.multiple_of(tl.load(second + 1), 16) + n)[None, :]
        at = residual + (g * residual_items + item) * residual_batch + row.to(tl.int64) * residual_step
        at = at + i[:, None] * residual_step + n.to(tl.int64)[None, :] * residual_channel
        acc += tl.load(at, mask=valid, other=0.0).to(tl.float32)

    whole = ((group * batch + item) * steps + row) * CHANNELS
    if prior is not None:
        acc += tl.load(prior + whole + place, mask=valid, other=0.0)
    if SCALE != 1.0:
        acc = acc * SCALE
    if carry is not None:
        tl.store(carry + whole + place, acc, mask=valid)
    after = curves_at(curves, table + (GROUPS + group) * 8 + 6, POST)
    acc = activate_channels(acc, after, n, None, WIDTH, POST, SLOPE)
    tl.store(out + whole + place, tl.where(valid, acc, 0.0).to(out.dtype.element_ty), mask=within)


def convolve_pair(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    curves: Tensor,
    table: Tensor,
    lengths: Tensor | None,
    out: Tensor,
    config: dict[str, int],
    *,
    channels: int,
    groups: int,
    span: int,
    act: tuple[int, float],
    first: bool,
    last: bool,
    scale: float,
    residual: Tensor,
    prior: Tensor | None,
    carry: Tensor | None,
) -> None:
    """One launch; `table` [2 * groups, 8] has the first convolutions, then the second ones, which reach over `span`."""
    width = pad_channels(channels)
    steps = x.shape[2]
    batch = x.shape[0] // (1 if first else groups)
    made = config["BT"] - span
    tiles, side = cdiv(steps, made), 1 if last else groups
    scratch = x.new_empty((side * batch * tiles, config["BT"], width))
    blocks = {name: value for name, value in config.items() if name != "FUSE"}
    launch(
        mrf_pair_kernel,
        (tiles, side, batch),
        {**blocks, "BK": min(blocks["BK"], width & -width)},
        x.device,
        x=x,
        weight=weight,
        bias=bias,
        curves=curves,
        table=table,
        lengths=lengths,
        residual=residual,
        prior=prior,
        scratch=scratch,
        carry=carry,
        out=out,
        steps=steps,
        x_items=0 if first else batch,
        **strides(x, "x"),
        residual_items=0 if residual.shape[0] == batch else batch,
        **strides(residual, "residual"),
        GROUPS=groups,
        SUM=last,
        CHANNELS=channels,
        WIDTH=width,
        PRE=act[0] if first else 0,
        MIDDLE=act[0],
        POST=0 if last else act[0],
        SLOPE=act[1],
        SCALE=scale,
        PRECISION=precision(x.dtype),
        BO=made,
    )


def fusible(channels: int, depth: int, pad_mode: int, span: int, config: dict[str, int]) -> bool:
    """Whether a layer of this shape runs as one launch: the tuned values say so, and a tile is a power of 2 wide."""
    width = pad_channels(channels)
    wide = width == triton.next_power_of_2(width)
    return bool(depth == 2 and pad_mode == 0 and wide and config["FUSE"] and 2 * span <= config["BT"])
