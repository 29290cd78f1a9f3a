"""lvc: a product for every frame, of its steps' windows and its own kernel, with the gate on what comes out.

Both halves of a gated output are summed side by side, so that the gate needs no second pass.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import tanh
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.products import multiply, precision
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@kernel
def lvc_kernel(
    x,
    kernels,
    biases,
    residual,
    lengths,
    ragged,
    out,
    steps,
    x_batch,
    x_channel,
    x_step,
    kernels_batch,
    kernels_tap,
    kernels_in,
    kernels_out,
    kernels_frame,
    biases_batch,
    biases_channel,
    biases_step,
    residual_batch,
    residual_channel,
    residual_step,
    TAPS: tl.constexpr,
    HOP: tl.constexpr,
    CIN: tl.constexpr,
    CIN_PAD: tl.constexpr,
    COUT: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    COLUMNS: tl.constexpr = (COUT + BN - 1) // BN
    TILES: tl.constexpr = (HOP + BT - 1) // BT
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    n = (tile % COLUMNS) * BN + tl.arange(0, BN)
    frame = tile // (COLUMNS * TILES)
    i = (tile // COLUMNS) % TILES * BT + tl.arange(0, BT)
    t = frame * HOP + i
    k = tl.arange(0, BK)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    busy = (frame * HOP < length).to(tl.int32)
    live = (n < COUT)[None, :]
    within = (i < HOP)[:, None] & live
    valid = within & (t < length)[:, None]
    mine = kernels + item * kernels_batch + frame.to(tl.int64) * kernels_frame + n.to(tl.int64)[None, :] * kernels_out
    first = tl.zeros([BT, BN], tl.float32)
    second = tl.zeros([BT, BN], tl.float32)
    for tap in range(TAPS * busy):
        row = t + (tap - TAPS // 2)
        rows = x + item * x_batch + row.to(tl.int64)[:, None] * x_step
        inside = ((row >= 0) & (row < length) & (i < HOP))[:, None]
        for start in range(0, CIN_PAD, BK):
            c = (start + k).to(tl.int64)
            a = tl.load(rows + c[None, :] * x_channel, mask=inside & (c < CIN)[None, :], other=0.0)
            at = mine + tap * kernels_tap + c[:, None] * kernels_in
            mask = (c < CIN)[:, None] & live
            first = multiply(a, tl.load(at, mask=mask, other=0.0), first, PRECISION)
            if GATED:
                second = multiply(a, tl.load(at + COUT * kernels_out, mask=mask, other=0.0), second, PRECISION)
    shift = biases + item * biases_batch + frame.to(tl.int64) * biases_step + n.to(tl.int64) * biases_channel
    y = first + tl.load(shift, mask=n < COUT, other=0.0).to(tl.float32)[None, :]
    if GATED:
        second += tl.load(shift + COUT * biases_channel, mask=n < COUT, other=0.0).to(tl.float32)[None, :]
        y = tanh(second) / (1.0 + tl.exp(-y))
    if residual is not None:
        at = residual + item * residual_batch + t.to(tl.int64)[:, None] * residual_step
        y += tl.load(at + n.to(tl.int64)[None, :] * residual_channel, mask=valid, other=0.0).to(tl.float32)
    place = out + (item * steps + t)[:, None] * COUT + n[None, :]
    tl.store(place, tl.where(valid, y, 0.0).to(out.dtype.element_ty), mask=within)


class Packed(NamedTuple):
    """What `run` takes beside the tensors, as the op packs it."""

    hop: int
    gated: bool


def _output(p: Packed, x: Tensor, kernels: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], kernels.shape[3] // 2 if p.gated else kernels.shape[3]))


def _lvc(
    p: Packed,
    x: Tensor,
    kernels: Tensor,
    biases: Tensor,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """lvc of `fastvoc.ops.lvc`; lengths on the device of x."""
    batch, taps, cin, _, frames = kernels.shape
    out = _output(p, x, kernels)
    cout = out.shape[2]
    config = tuned("lvc", x.device, x.dtype, cin=cin, cout=cout, hop=p.hop)
    width = max(16, triton.next_power_of_2(cin))
    config = {
        **config,
        "BT": min(config["BT"], max(16, triton.next_power_of_2(p.hop))),
        "BN": min(config["BN"], max(16, triton.next_power_of_2(cout))),
        "BK": min(config["BK"], width),
    }
    names = ("kernels_batch", "kernels_tap", "kernels_in", "kernels_out", "kernels_frame")
    launch(
        lvc_kernel,
        (frames * cdiv(p.hop, config["BT"]) * cdiv(cout, config["BN"]), batch),
        config,
        x.device,
        x=x,
        kernels=kernels,
        biases=biases,
        residual=residual,
        lengths=lengths,
        out=out,
        steps=x.shape[2],
        **strides(x, "x"),
        **dict(zip(names, kernels.stride(), strict=True)),
        **strides(biases, "biases"),
        **strides(residual, "residual"),
        TAPS=taps,
        HOP=p.hop,
        CIN=cin,
        CIN_PAD=width,
        COUT=cout,
        GATED=p.gated,
        PRECISION=precision(x.dtype),
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_lvc", Packed, lambda p, x, kernels, *_: _output(p, x, kernels).transpose(1, 2), body=_lvc)
run = NATIVE.run
