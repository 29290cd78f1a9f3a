"""layer_norm over the channels of every step, also behind a depthwise convolution, as a ConvNeXt block begins."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows


@kernel
def layer_norm_kernel(
    x,
    taps,
    weight,
    bias,
    row,
    lengths,
    ragged,
    out,
    steps,
    x_batch,
    x_channel,
    x_step,
    eps,
    KERNEL: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    BT: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.arange(0, WIDTH)
    live = (c < CHANNELS)[None, :]
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    columns = x + item * x_batch + c.to(tl.int64)[None, :] * x_channel
    if KERNEL == 0:
        v = tl.load(columns + t.to(tl.int64)[:, None] * x_step, mask=(t < length)[:, None] & live, other=0.0)
        v = v.to(tl.float32)
    else:
        v = tl.zeros([BT, WIDTH], tl.float32) + tl.load(taps + KERNEL * WIDTH + c)[None, :]
        for k in tl.static_range(KERNEL):
            r = t + (k - KERNEL // 2)
            mask = ((r >= 0) & (r < length))[:, None] & live
            a = tl.load(columns + r.to(tl.int64)[:, None] * x_step, mask=mask, other=0.0)
            v += a.to(tl.float32) * tl.load(taps + k * WIDTH + c)[None, :]
    mean = tl.sum(v, 1) / CHANNELS
    centred = tl.where(live, v - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / CHANNELS
    scale = 1.0 / tl.sqrt(variance + eps)
    at = tl.load(row + item) * WIDTH if row is not None else 0
    y = centred * scale[:, None] * tl.load(weight + at + c)[None, :] + tl.load(bias + at + c)[None, :]
    y = tl.where((t < length)[:, None], y, 0.0)
    place = out + (item * steps + t)[:, None] * CHANNELS + c[None, :]
    tl.store(place, y.to(out.dtype.element_ty), mask=(t < steps)[:, None] & live)


def pack_rows(rows: Tensor) -> Tensor:
    """[C] or [N, C] -> float32 [N, C rounded up to a power of 2], zeros beyond C."""
    rows = rows.detach().reshape(-1, rows.shape[-1]).float()
    return torch.nn.functional.pad(rows, (0, triton.next_power_of_2(rows.shape[1]) - rows.shape[1])).contiguous()


def normalize(
    x: Tensor,
    taps: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    row: Tensor | None,
    lengths: Tensor | None,
    eps: float,
) -> Tensor:
    """One launch: [B, C, T] -> time-major [B, T, C]; taps [K + 1, C padded], the last row a bias."""
    batch, channels, steps = x.shape
    out = x.new_empty((batch, steps, channels))
    config = tuned("layer_norm", x.device, x.dtype, channels=channels)
    launch(
        layer_norm_kernel,
        (cdiv(steps, config["BT"]), batch),
        config,
        x.device,
        x=x,
        taps=taps,
        weight=weight,
        bias=bias,
        row=row,
        lengths=lengths,
        out=out,
        steps=steps,
        **strides(x, "x"),
        eps=eps,
        KERNEL=0 if taps is None else taps.shape[0] - 1,
        CHANNELS=channels,
        WIDTH=weight.shape[1],
    )
    return out


class Packed(NamedTuple):
    """Scale and shift as `run` takes them."""

    weight: Tensor
    bias: Tensor
    eps: float


def pack(params: Any) -> Packed:
    """Rows of a LayerNormParams."""
    return Packed(pack_rows(params.weight), pack_rows(params.bias), params.eps)


def _layer_norm(p: Packed, x: Tensor, row: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """layer_norm of `fastvoc.ops.layer_norm`; row and lengths on the device of x."""
    return normalize(x, None, p.weight, p.bias, row, lengths, p.eps).transpose(1, 2)


NATIVE = Native("triton_layer_norm", Packed, like_rows, body=_layer_norm)
run = NATIVE.run
