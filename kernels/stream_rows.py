"""A stream's chunk behind the steps that were kept: the rows that an op reads, and what is kept next, in one launch."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.runtime.native import Native

_TILE = 2048  # values that a program moves


@kernel
def stream_rows_kernel(
    x,
    tail,
    window,
    kept,
    held,
    before,
    low,
    high,
    made,
    keep,
    have,
    x_batch,
    x_channel,
    x_step,
    tail_batch,
    tail_channel,
    tail_step,
    CHANNELS: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    COLUMNS: tl.constexpr = (CHANNELS + BN - 1) // BN
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    r = (tile // COLUMNS) * BT + tl.arange(0, BT)
    c = (tile % COLUMNS) * BN + tl.arange(0, BN)
    in_window = r < made
    # Rows of the window, then those that are kept, by the step that each copies.
    step = tl.where(in_window, r - before + low, r - made + keep)
    there = tl.where(in_window, (step >= low) & (step < high), step < have)
    columns = (c < CHANNELS)[None, :]
    old = (there & (step < held))[:, None] & columns
    new = (there & (step >= held))[:, None] & columns
    at = tail + item * tail_batch + step.to(tl.int64)[:, None] * tail_step + c.to(tl.int64)[None, :] * tail_channel
    value = tl.load(at, mask=old, other=0.0)
    at = x + item * x_batch + (step - held).to(tl.int64)[:, None] * x_step + c.to(tl.int64)[None, :] * x_channel
    value = tl.where(old, value, tl.load(at, mask=new, other=0.0))
    at = window + (item * made + r)[:, None] * CHANNELS + c[None, :]
    tl.store(at, value, mask=in_window[:, None] & columns)
    at = kept + (item * (have - keep) + (r - made))[:, None] * CHANNELS + c[None, :]
    tl.store(at, value, mask=(~in_window & there)[:, None] & columns)


class Packed(NamedTuple):
    """What is taken, as `fastvoc.ops.stream.Cut` has it."""

    before: int
    low: int
    high: int
    after: int
    keep: int


def _outputs(p: Packed, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    have = x.shape[2] + (0 if tail is None else tail.shape[1])
    made = p.before + p.high - p.low + p.after
    return x.new_empty((x.shape[0], made, x.shape[1])), x.new_empty((x.shape[0], have - p.keep, x.shape[1]))


def _stream_rows(p: Packed, x: Tensor, tail: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of the steps of tail [B, n, C] and then of x [B, C, T] what `p` says: rows for the op, and the next tail."""
    window, kept = _outputs(p, x, tail)
    rows, channels = window.shape[1] + kept.shape[1], x.shape[1]
    if not rows or not len(x):
        return window, kept
    held = 0 if tail is None else tail.shape[1]
    beside: dict[str, Any] = strides((x if tail is None else tail).mT, "tail")
    launch(
        stream_rows_kernel,
        (cdiv(rows, (tile := _tile(channels))["BT"]) * cdiv(channels, tile["BN"]), x.shape[0]),
        tile,
        x.device,
        x=x,
        tail=x if tail is None else tail,
        window=window,
        kept=kept,
        held=held,
        before=p.before,
        low=p.low,
        high=p.high,
        made=window.shape[1],
        keep=p.keep,
        have=held + x.shape[2],
        **strides(x, "x"),
        **beside,
        CHANNELS=channels,
    )
    return window, kept


def _tile(channels: int) -> dict[str, int]:
    wide = min(triton.next_power_of_2(channels), 128)
    return {"BT": max(_TILE // wide, 1) if wide > 1 else 256, "BN": wide, "num_warps": 4, "num_stages": 1}


NATIVE = Native("triton_stream_rows", Packed, lambda p, x, tail=None: _outputs(p, x, tail), body=_stream_rows)
