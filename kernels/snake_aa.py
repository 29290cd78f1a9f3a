"""snake_aa: interpolation by 2, snake and decimation by 2 of a tile in registers; every tap works out its own snake."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import sin_squared
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows


@kernel
def snake_aa_kernel(
    x,
    alpha,
    inverse,
    taps,
    lengths,
    ragged,
    out,
    steps,
    x_batch,
    x_channel,
    x_step,
    CHANNELS: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    COLUMNS: tl.constexpr = (CHANNELS + BN - 1) // BN
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    c = (tile % COLUMNS) * BN + tl.arange(0, BN)
    t = (tile // COLUMNS) * BT + tl.arange(0, BT)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    live = (c < CHANNELS)[None, :]
    inside = (t < length)[:, None] & live
    a = tl.load(alpha + c, mask=c < CHANNELS, other=0.0)[None, :]
    b = tl.load(inverse + c, mask=c < CHANNELS, other=0.0)[None, :]
    columns = x + item * x_batch + c.to(tl.int64)[None, :] * x_channel
    total = tl.zeros([BT, BN], tl.float32)
    for k in range(12):
        # Step u of the interpolated signal lies between steps u // 2 - 3 and u // 2 + 3 of the given one.
        u = tl.minimum(tl.maximum(2 * t + k - 5, 0), 2 * length - 1)
        odd = u % 2
        up = tl.zeros([BT, BN], tl.float32)
        for j in tl.static_range(6):
            r = u // 2 + 2 - j + odd
            r = tl.minimum(tl.maximum(r, 0), length - 1)
            v = tl.load(columns + r.to(tl.int64)[:, None] * x_step, mask=inside, other=0.0).to(tl.float32)
            up += v * tl.load(taps + 2 * j + 1 - odd)[:, None]
        up = up * 2.0
        up = up + sin_squared(a * up) * b
        total += up * tl.load(taps + k)
    place = out + (item * steps + t)[:, None] * CHANNELS + c[None, :]
    total = tl.where(inside, total, 0.0)
    tl.store(place, total.to(out.dtype.element_ty), mask=(t < steps)[:, None] & live)


class Packed(NamedTuple):
    """Curves and filter in float32."""

    alpha: Tensor
    inverse: Tensor
    taps: Tensor


def pack(params: Any) -> Packed:
    """Weights of a SnakeAaParams; the filter is rounded as the reference rounds it."""
    alpha = params.alpha.detach()
    taps = params.taps.to(alpha).float().contiguous()
    return Packed(alpha.float().contiguous(), params.inverse.detach().float().contiguous(), taps)


def _snake_aa(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """snake_aa of `fastvoc.ops.snake_aa`; lengths on the device of x."""
    batch, channels, steps = x.shape
    out = x.new_empty((batch, steps, channels))
    config = tuned("snake_aa", x.device, x.dtype, channels=channels)
    config = {**config, "BN": min(config["BN"], triton.next_power_of_2(channels))}
    launch(
        snake_aa_kernel,
        (cdiv(steps, config["BT"]) * cdiv(channels, config["BN"]), batch),
        config,
        x.device,
        x=x,
        alpha=p.alpha,
        inverse=p.inverse,
        taps=p.taps,
        lengths=lengths,
        out=out,
        steps=steps,
        **strides(x, "x"),
        CHANNELS=channels,
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_snake_aa", Packed, like_rows, body=_snake_aa)
run = NATIVE.run
