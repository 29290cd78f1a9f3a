"""Two branches of a stream added up as far as both have come, with what is held back of either, in one launch."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.runtime.native import Native

_TILE = 2048  # values that a program moves


@triton.jit
def branch_rows(x, kept, step, c, held, mask, x_batch, x_channel, x_step, item, CHANNELS: tl.constexpr):
    """Steps of a branch [BT, BN]: those held back, then those of the chunk."""
    old = mask & (step < held)[:, None]
    new = mask & (step >= held)[:, None]
    value = tl.load(kept + (item * held + step)[:, None] * CHANNELS + c[None, :], mask=old, other=0.0)
    at = x + item * x_batch + (step - held).to(tl.int64)[:, None] * x_step + c.to(tl.int64)[None, :] * x_channel
    return tl.where(old, value, tl.load(at, mask=new, other=0.0))


@kernel
def stream_sum_kernel(
    x,
    y,
    kept_x,
    kept_y,
    total,
    rest_x,
    rest_y,
    held_x,
    held_y,
    made,
    more_x,
    more_y,
    x_batch,
    x_channel,
    x_step,
    y_batch,
    y_channel,
    y_step,
    CHANNELS: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    COLUMNS: tl.constexpr = (CHANNELS + BN - 1) // BN
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    step = (tile // COLUMNS) * BT + tl.arange(0, BT)
    c = (tile % COLUMNS) * BN + tl.arange(0, BN)
    columns = (c < CHANNELS)[None, :]
    has_x = (step < made + more_x)[:, None] & columns
    has_y = (step < made + more_y)[:, None] & columns
    a = branch_rows(x, kept_x, step, c, held_x, has_x, x_batch, x_channel, x_step, item, CHANNELS)
    b = branch_rows(y, kept_y, step, c, held_y, has_y, y_batch, y_channel, y_step, item, CHANNELS)
    whole = (step < made)[:, None]
    sums = (a.to(tl.float32) + b.to(tl.float32)).to(total.dtype.element_ty)
    tl.store(total + (item * made + step)[:, None] * CHANNELS + c[None, :], sums, mask=whole & columns)
    later = step - made
    tl.store(rest_x + (item * more_x + later)[:, None] * CHANNELS + c[None, :], a, mask=has_x & ~whole)
    tl.store(rest_y + (item * more_y + later)[:, None] * CHANNELS + c[None, :], b, mask=has_y & ~whole)


class Packed(NamedTuple):
    """Nothing is packed."""


def _outputs(x: Tensor, y: Tensor, kept_x: Tensor, kept_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    have = kept_x.shape[1] + x.shape[2], kept_y.shape[1] + y.shape[2]
    total, *rest = (x.new_empty((len(x), n, x.shape[1])) for n in (min(have), *(h - min(have) for h in have)))
    return total, rest[0], rest[1]


def _stream_sum(_: Packed, x: Tensor, y: Tensor, kept_x: Tensor, kept_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x and y [B, C, n] behind what is kept of either [B, n, C] -> the sums [B, C, n], and what is held back next."""
    kept_x, kept_y = kept_x.contiguous(), kept_y.contiguous()
    total, rest_x, rest_y = _outputs(x, y, kept_x, kept_y)
    rows, channels = total.shape[1] + max(rest_x.shape[1], rest_y.shape[1]), x.shape[1]
    if rows and len(x):
        wide = min(triton.next_power_of_2(channels), 128)
        tile = {"BT": _TILE // wide, "BN": wide, "num_warps": 4, "num_stages": 1}
        launch(
            stream_sum_kernel,
            (cdiv(rows, tile["BT"]) * cdiv(channels, wide), x.shape[0]),
            tile,
            x.device,
            x=x,
            y=y,
            kept_x=kept_x,
            kept_y=kept_y,
            total=total,
            rest_x=rest_x,
            rest_y=rest_y,
            held_x=kept_x.shape[1],
            held_y=kept_y.shape[1],
            made=total.shape[1],
            more_x=rest_x.shape[1],
            more_y=rest_y.shape[1],
            **strides(x, "x"),
            **strides(y, "y"),
            CHANNELS=channels,
        )
    return total.transpose(1, 2), rest_x, rest_y


def _fake(_: Packed, x: Tensor, y: Tensor, kept_x: Tensor, kept_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total, *rest = _outputs(x, y, kept_x, kept_y)
    return total.transpose(1, 2), rest[0], rest[1]


NATIVE = Native("triton_stream_sum", Packed, _fake, body=_stream_sum)
