"""depthwise: every channel convolved with itself alone, steps by channels; each tap activates what it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels import packing
from fastvoc.kernels.activation import activate_channels
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows


@kernel
def depthwise_kernel(
    x,
    taps,
    bias,
    curves,
    lengths,
    ragged,
    out,
    steps,
    dilation,
    left,
    x_batch,
    x_channel,
    x_step,
    KERNEL: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    PRE: tl.constexpr,
    PRE_SLOPE: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    COLUMNS: tl.constexpr = (CHANNELS + BN - 1) // BN
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    c = (tile % COLUMNS) * BN + tl.arange(0, BN)
    t = (tile // COLUMNS) * BT + tl.arange(0, BT)
    there = c < CHANNELS
    live = there[None, :]
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    columns = x + item * x_batch + c.to(tl.int64)[None, :] * x_channel
    total = tl.zeros([BT, BN], tl.float32) + tl.load(bias + c, mask=there, other=0.0)[None, :]
    for k in range(KERNEL):
        r = t + (k * dilation - left)
        inside = ((r >= 0) & (r < length))[:, None] & live
        v = tl.load(columns + r.to(tl.int64)[:, None] * x_step, mask=inside, other=0.0).to(tl.float32)
        v = activate_channels(v, curves, c, there, WIDTH, PRE, PRE_SLOPE)  # of 0 it is 0
        total += v * tl.load(taps + k * WIDTH + c, mask=there, other=0.0)[None, :]
    total = tl.where((t < length)[:, None], total, 0.0)
    place = out + (item * steps + t)[:, None] * CHANNELS + c[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(t < steps)[:, None] & live)


class Packed(NamedTuple):
    """A depthwise convolution as `run` takes it: taps [K, C padded], bias [C padded], float32."""

    taps: Tensor
    bias: Tensor
    curves: Tensor
    kernel: int
    dilation: int
    left: int
    pre: int
    slope: float


def pack(params: Any) -> Packed:
    """Weights of a DepthwiseParams."""
    channels, _, kernel = params.weight.shape
    taps = params.weight.new_zeros((kernel, pad_channels(channels))).float()
    taps[:, :channels] = params.weight.detach()[:, 0].t()
    curves, (place,) = packing.pack_curves([params.pre], params.weight)
    return Packed(
        taps,
        packing.pack_row(params.bias, channels, params.weight),
        curves[place:] if params.pre.alpha is not None else curves,
        kernel,
        params.dilation,
        params.padding,
        *packing.kind_and_slope(params.pre),
    )


def _depthwise(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """depthwise of `fastvoc.ops.depthwise`; lengths on the device of x."""
    batch, channels, steps = x.shape
    out = x.new_empty((batch, steps, channels))
    config = tuned("depthwise", x.device, x.dtype, channels=channels)
    config = {**config, "BN": min(config["BN"], triton.next_power_of_2(channels))}
    launch(
        depthwise_kernel,
        (cdiv(steps, config["BT"]) * cdiv(channels, config["BN"]), batch),
        config,
        x.device,
        x=x,
        taps=p.taps,
        bias=p.bias,
        curves=p.curves,
        lengths=lengths,
        out=out,
        steps=steps,
        dilation=p.dilation,
        left=p.left,
        **strides(x, "x"),
        KERNEL=p.kernel,
        CHANNELS=channels,
        WIDTH=p.taps.shape[1],
        PRE=p.pre,
        PRE_SLOPE=p.slope,
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_depthwise", Packed, like_rows, body=_depthwise)
run = NATIVE.run
