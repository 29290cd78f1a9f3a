"""istft_head as a product of spectra and windowed cosines, gathered: every sample adds its frames up in fixed order.

Row q of the product holds the `hop` samples that begin at q * hop before the crop; tap i is the frame J - 1 - i back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import sin_cos
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@kernel
def istft_head_kernel(
    x,
    basis,
    squares,
    lengths,
    ragged,
    out,
    steps,
    made,
    crop,
    offset,
    x_batch,
    x_channel,
    x_step,
    clip,
    clamp,
    TAPS: tl.constexpr,
    BINS: tl.constexpr,
    BINS_PAD: tl.constexpr,
    HOP: tl.constexpr,
    HOP_PAD: tl.constexpr,
    SINE: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    COLUMNS: tl.constexpr = (HOP + BN - 1) // BN
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    n = (tile % COLUMNS) * BN + tl.arange(0, BN)
    q = crop // HOP + (tile // COLUMNS) * BT + tl.arange(0, BT)
    k = tl.arange(0, BK)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    inside = length * HOP + offset
    start = x + item * x_batch
    acc = tl.zeros([BT, BN], tl.float32)
    weight = tl.zeros([BT, BN], tl.float32)
    for tap in range(TAPS):
        row = q - (TAPS - 1 - tap)
        there = ((row >= 0) & (row < length))[:, None]
        squared = tl.load(squares + tap * HOP_PAD + n, mask=n < HOP_PAD, other=0.0)
        weight += tl.where(there, squared[None, :], 0.0)
        rows = start + row.to(tl.int64)[:, None] * x_step
        for first in range(0, BINS_PAD, BK):
            b = first + k
            mask = there & (b < BINS)[None, :]
            at = rows + b.to(tl.int64)[None, :] * x_channel
            magnitude = tl.exp(tl.load(at, mask=mask, other=0.0).to(tl.float32))
            magnitude = tl.where(magnitude > clip, clip, magnitude)
            at += BINS * x_channel
            angle = tl.load(at, mask=mask, other=0.0).to(tl.float32)
            if SINE:
                angle, _ = sin_cos(angle)
            sine, cosine = sin_cos(angle)
            real = tl.where(mask, magnitude * cosine, 0.0)
            imaginary = tl.where(mask, magnitude * sine, 0.0)
            of = basis + (tap * 2 * BINS_PAD + b)[:, None] * HOP_PAD + n[None, :]
            columns = (n < HOP_PAD)[None, :]
            acc = tl.dot(real, tl.load(of, mask=columns, other=0.0), acc, input_precision=PRECISION)
            of += BINS_PAD * HOP_PAD
            acc = tl.dot(imaginary, tl.load(of, mask=columns, other=0.0), acc, input_precision=PRECISION)
    at = (q * HOP - crop)[:, None] + n[None, :]
    within = (at >= 0) & (at < made) & (n < HOP)[None, :]
    valid = within & (at < inside)
    y = acc / tl.where(valid, weight, 1.0)
    y = tl.where(y > clamp, clamp, tl.where(y < -clamp, -clamp, y))
    tl.store(out + item * made + at, tl.where(valid, y, 0.0), mask=within)


class Packed(NamedTuple):
    """An inverse transform as `run` takes it."""

    basis: Tensor
    squares: Tensor
    size: int
    hop: int
    sine: bool  # of the phases
    clip: float
    clamp: float
    left: int  # samples dropped at either end, last: a stream's change
    right: int


def pack(params: Any) -> Packed:
    """Windowed cosines and sines [taps, 2, bins padded, hop padded], rounded once from float64."""
    size, hop, bins = params.n_fft, params.hop, params.n_fft // 2 + 1
    taps = cdiv(size, hop)
    window = params.window.detach().double().cpu()
    s, k = torch.arange(size, device="cpu"), torch.arange(bins, device="cpu")[:, None]
    angle = (s * k % size).double() * (2 * torch.pi / size)
    weight = window.new_full((bins, 1), 2.0 / size)
    weight[0] = weight[-1] = 1.0 / size
    parts = torch.stack([angle.cos() * weight, -angle.sin() * weight])
    parts[1, 0] = parts[1, -1] = 0
    parts = torch.nn.functional.pad(parts * window, (0, taps * hop - size)).unflatten(2, (taps, hop)).flip(2)
    basis = window.new_zeros((taps, 2, pad_channels(bins), pad_channels(hop)))
    basis[:, :, :bins, :hop] = parts.permute(2, 0, 1, 3)
    squares = window.new_zeros((taps, pad_channels(hop)))
    padded = torch.nn.functional.pad(params.squares.detach().double().cpu(), (0, taps * hop - size))
    squares[:, :hop] = padded.reshape(taps, hop).flip(0)
    bounds = [float("inf") if bound is None else bound for bound in (params.clip, params.clamp)]
    device = params.window.device
    shape = size, hop, params.phase == "sin"
    return Packed(basis.float().to(device), squares.float().to(device), *shape, *bounds, params.trim, params.trim)


def _output(p: Packed, x: Tensor) -> tuple[Tensor, int]:
    offset = p.size - p.hop - p.left - p.right
    return x.new_empty((x.shape[0], x.shape[2] * p.hop + offset, 1), dtype=torch.float32), offset


def _istft_head(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """istft_head of `fastvoc.ops.istft_head`; lengths on the device of x."""
    out, offset = _output(p, x)
    made, bins_pad, hop_pad = out.shape[1], p.basis.shape[2], p.basis.shape[3]
    config = tuned("istft_head", x.device, x.dtype, hop=p.hop)
    config = {
        **config,
        "BK": min(config["BK"], bins_pad & -bins_pad),
        "BN": min(config["BN"], max(16, triton.next_power_of_2(p.hop))),
    }
    rows = cdiv(p.left % p.hop + made, p.hop)
    launch(
        istft_head_kernel,
        (cdiv(rows, config["BT"]) * cdiv(p.hop, config["BN"]), x.shape[0]),
        config,
        x.device,
        x=x,
        basis=p.basis,
        squares=p.squares,
        lengths=lengths,
        out=out,
        steps=x.shape[2],
        made=made,
        crop=p.left,
        offset=offset,
        **strides(x, "x"),
        clip=p.clip,
        clamp=p.clamp,
        TAPS=p.basis.shape[0],
        BINS=p.size // 2 + 1,
        BINS_PAD=bins_pad,
        HOP=p.hop,
        HOP_PAD=hop_pad,
        SINE=p.sine,
        PRECISION="ieee",
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_istft_head", Packed, lambda p, x, *_: _output(p, x)[0].transpose(1, 2), body=_istft_head)
run = NATIVE.run
