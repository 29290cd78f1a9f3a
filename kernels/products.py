"""The heart of the convolutions: a tile of sums over taps and channels, with padding and activation on the way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from fastvoc.kernels.activation import activate_channels
from fastvoc.kernels.launch import interpreting


@triton.jit
def source_rows(row, length, mirror, PAD_MODE: tl.constexpr):
    """The steps that padded rows read, and which of them hold a value; reflection is at step `mirror` - 1."""
    if PAD_MODE == 1:
        row = tl.where(row < 0, -row, row)
        row = tl.where(row >= mirror, 2 * (mirror - 1) - row, row)
    if PAD_MODE == 2:
        row = tl.minimum(tl.maximum(row, 0), length - 1)
    return row, (row >= 0) & (row < length)


@triton.jit
def multiply(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in float32."""
    if PRECISION == "widened":
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def accumulate(
    acc,
    x,
    weight,
    curves,
    row,
    n,
    length,
    mirror,
    taps,
    dilation,
    x_step,
    x_channel,
    CIN: tl.constexpr,
    CIN_PAD: tl.constexpr,
    COUT_PAD: tl.constexpr,
    PAD_MODE: tl.constexpr,
    PRE: tl.constexpr,
    PRE_SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """acc [BT, BN] plus the taps' products; `row` [BT] is what the first tap reads, before padding."""
    CHUNKS: tl.constexpr = CIN_PAD // BK
    k = tl.arange(0, BK)
    # With zeros beside the signal every tap reads the same tile, shifted: its addresses are worked out once.
    tile = x + row.to(tl.int64)[:, None] * x_step + k.to(tl.int64)[None, :] * x_channel
    taps_of = weight + k[:, None] * COUT_PAD + n[None, :]
    for i in range(taps * CHUNKS):
        first = (i % CHUNKS) * BK
        shift = (i // CHUNKS) * dilation
        if PAD_MODE == 0:
            valid = ((row + shift).to(tl.uint32, bitcast=True) < length.to(tl.uint32, bitcast=True))[:, None]
            at = tile + (shift.to(tl.int64) * x_step + first.to(tl.int64) * x_channel)
        else:
            r, inside = source_rows(row + shift, length, mirror, PAD_MODE)
            valid = inside[:, None]
            at = x + r.to(tl.int64)[:, None] * x_step + (first + k).to(tl.int64)[None, :] * x_channel
        if CIN != CIN_PAD:
            valid = valid & (first + k < CIN)[None, :]
        a = tl.load(at, mask=valid, other=0.0)
        if PRE != 0:
            a = activate_channels(a.to(tl.float32), curves, first + k, None, CIN_PAD, PRE, PRE_SLOPE)
            a = a.to(x.dtype.element_ty)
        at = taps_of + i * (BK * COUT_PAD)
        b = tl.load(at) if COUT_PAD % BN == 0 else tl.load(at, mask=n[None, :] < COUT_PAD, other=0.0)
        acc = multiply(a, b, acc, PRECISION)
    return acc


def precision(dtype: torch.dtype) -> str:
    """How numbers are multiplied: float32 as IEEE says.

    Tuned values for float32 may ask for `"PRECISION": "tf32x3"`, three products of TF32 that together are as exact to
    about 2^-22; a single one is never taken. The interpreter multiplies no bfloat16; widened to float32 the products
    are the same.
    """
    return "widened" if interpreting() and dtype is torch.bfloat16 else "ieee"


def fitted(config: dict[str, int], cin_pad: int, columns: int) -> dict[str, int]:
    """Block sizes cut to the layer: BK divides the padded input channels, BN is no wider than the columns."""
    bk = min(config["BK"], cin_pad & -cin_pad)  # the largest power of 2 that divides it
    bn = min(config["BN"], max(16, triton.next_power_of_2(columns)))
    return {**config, "BK": bk, "BN": bn}
