"""conv2d as implicit matrix multiplication: a row is a step and a pooled frequency, the sum runs over tap and channel.

The frequencies that a row pools are summed one after the other, and only the largest is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton.language as tl
from torch import Tensor

from fastvoc.kernels import packing
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.products import fitted, multiply, precision
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@kernel
def conv2d_kernel(
    x,
    weight,
    bias,
    residual,
    lengths,
    ragged,
    out,
    steps,
    x_batch,
    x_channel,
    x_step,
    x_band,
    residual_batch,
    residual_channel,
    residual_step,
    residual_band,
    BANDS: tl.constexpr,
    POOL: tl.constexpr,
    TIMES: tl.constexpr,
    WIDE: tl.constexpr,
    CIN: tl.constexpr,
    CIN_PAD: tl.constexpr,
    COUT: tl.constexpr,
    COUT_PAD: tl.constexpr,
    SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    COLUMNS: tl.constexpr = (COUT + BN - 1) // BN
    MADE: tl.constexpr = BANDS // POOL
    CHUNKS: tl.constexpr = CIN_PAD // BK
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    n = (tile % COLUMNS) * BN + tl.arange(0, BN)
    first_row = (tile // COLUMNS) * BT
    r = first_row + tl.arange(0, BT)
    t = r // MADE
    k = tl.arange(0, BK)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    busy = (first_row < length * MADE).to(tl.int32)
    columns = (n < COUT_PAD)[None, :]
    within = (t < steps)[:, None] & (n < COUT)[None, :]
    valid = within & (t < length)[:, None]
    shift = tl.load(bias + n, mask=n < COUT_PAD, other=0.0)[None, :]
    best = tl.full([BT, BN], float("-inf"), tl.float32)
    for p in range(POOL * busy):
        f = r % MADE * POOL + p
        acc = tl.zeros([BT, BN], tl.float32)
        for i in range(TIMES * WIDE * CHUNKS):
            tap = i // CHUNKS
            c = i % CHUNKS * BK + k
            s = t + tap // WIDE - TIMES // 2
            g = f + tap % WIDE - WIDE // 2
            inside = ((s >= 0) & (s < length) & (g >= 0) & (g < BANDS))[:, None] & (c < CIN)[None, :]
            at = x + item * x_batch + s.to(tl.int64)[:, None] * x_step + g.to(tl.int64)[:, None] * x_band
            a = tl.load(at + c.to(tl.int64)[None, :] * x_channel, mask=inside, other=0.0)
            w = tl.load(weight + (i * BK + k)[:, None] * COUT_PAD + n[None, :], mask=columns, other=0.0)
            acc = multiply(a, w, acc, PRECISION)
        acc += shift
        if residual is not None:
            at = residual + item * residual_batch + t.to(tl.int64)[:, None] * residual_step
            at = at + f.to(tl.int64)[:, None] * residual_band + n.to(tl.int64)[None, :] * residual_channel
            acc += tl.load(at, mask=valid, other=0.0).to(tl.float32)
        if SLOPE != 1.0:
            acc = tl.where(acc > 0, acc, acc * SLOPE)
        # As torch's pooling: NaN wins.
        best = tl.where((acc > best) | (acc != acc), acc, best)
    place = out + (item * steps * MADE + r)[:, None] * COUT + n[None, :]
    tl.store(place, tl.where(valid, best, 0.0).to(out.dtype.element_ty), mask=within)


class Packed(NamedTuple):
    """A convolution as `run` takes it."""

    weight: Tensor
    bias: Tensor
    cout: int
    cin: int
    time: int
    across: int
    pool: int
    slope: float


def pack(params: Any) -> Packed:
    """Weights of a Conv2dParams."""
    weight = params.weight
    bias = packing.pack_row(params.bias, len(weight), weight)
    return Packed(packing.pack_taps(weight.flatten(2)), bias, *weight.shape, params.pool, float(params.slope))


def _output(p: Packed, x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[3] // p.pool, p.cout))


def _conv2d(p: Packed, x: Tensor, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """conv2d of `fastvoc.ops.conv2d`; lengths on the device of x."""
    batch, _, steps, bands = x.shape
    out = _output(p, x)
    config = fitted(tuned("conv2d", x.device, x.dtype, cin=p.cin, cout=p.cout), pad_channels(p.cin), p.cout)
    launch(
        conv2d_kernel,
        (cdiv(steps * (bands // p.pool), config["BT"]) * cdiv(p.cout, config["BN"]), batch),
        config,
        x.device,
        x=x,
        weight=p.weight,
        bias=p.bias,
        residual=residual,
        lengths=lengths,
        out=out,
        steps=steps,
        **strides(x, "x", 4),
        **strides(residual, "residual", 4),
        BANDS=bands,
        POOL=p.pool,
        TIMES=p.time,
        WIDE=p.across,
        CIN=p.cin,
        CIN_PAD=pad_channels(p.cin),
        COUT=p.cout,
        COUT_PAD=pad_channels(p.cout),
        SLOPE=p.slope,
        PRECISION=precision(x.dtype),
    )
    return out.permute(0, 3, 1, 2)


NATIVE = Native("triton_conv2d", Packed, lambda p, x, *_: _output(p, x).permute(0, 3, 1, 2), body=_conv2d)
run = NATIVE.run
