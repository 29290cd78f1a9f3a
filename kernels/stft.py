"""stft as a product of frames, read where they lie, and windowed cosines and sines."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.products import source_rows
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@triton.jit
def angle_of(real, imaginary):
    """Angle in (-pi, pi]; a zero imaginary part counts as +0."""
    x = tl.abs(real)
    y = tl.abs(imaginary)
    steep = y > x
    a = tl.where(steep, x, y) / tl.where(x == y, tl.where(x == 0.0, 1.0, x), tl.where(steep, y, x))
    far = a > 0.41421356
    a = tl.where(far, (a - 1.0) / (a + 1.0), a)
    z = a * a
    p = 8.05374449538e-2 * z - 1.38776856032e-1
    p = p * z + 1.99777106478e-1
    p = p * z - 3.33329491539e-1
    p = p * z * a + a
    p = tl.where(far, p + 0.7853981633974483, p)
    p = tl.where(steep, 1.5707963267948966 - p, p)
    p = tl.where(real < 0, 3.141592653589793 - p, p)
    return tl.where(imaginary < 0, -p, p)


@kernel
def stft_kernel(
    x,
    basis,
    lengths,
    ragged,
    out,
    steps,
    made,
    crop,
    offset,
    x_batch,
    x_step,
    SIZE: tl.constexpr,
    SIZE_PAD: tl.constexpr,
    HOP: tl.constexpr,
    PAD_MODE: tl.constexpr,
    BINS: tl.constexpr,
    BINS_PAD: tl.constexpr,
    POLAR: tl.constexpr,
    FIRST_IS_REAL: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    COLUMNS: tl.constexpr = (BINS + BN - 1) // BN
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    n = (tile % COLUMNS) * BN + tl.arange(0, BN)
    f = (tile // COLUMNS) * BT + tl.arange(0, BT)
    k = tl.arange(0, BK)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    inside = (length + offset) // HOP + 1
    real = tl.zeros([BT, BN], tl.float32)
    imaginary = tl.zeros([BT, BN], tl.float32)
    live = (n < BINS_PAD)[None, :]
    for first in range(0, SIZE_PAD, BK):
        s, valid = source_rows((f * HOP - crop)[:, None] + (first + k)[None, :], length, length, PAD_MODE)
        valid = valid & (f < inside)[:, None] & (first + k < SIZE)[None, :]
        a = tl.load(x + item * x_batch + s.to(tl.int64) * x_step, mask=valid, other=0.0)
        of = basis + (first + k)[:, None] * BINS_PAD + n[None, :]
        real = tl.dot(a, tl.load(of, mask=live, other=0.0), real, input_precision=PRECISION)
        of += SIZE_PAD * BINS_PAD
        imaginary = tl.dot(a, tl.load(of, mask=live, other=0.0), imaginary, input_precision=PRECISION)
    if POLAR:
        magnitude = tl.sqrt(real * real + imaginary * imaginary)
        if FIRST_IS_REAL:
            imaginary = tl.where((f == 0)[:, None], 0.0, imaginary)
        imaginary = angle_of(real, imaginary)
        real = magnitude
    within = (f < made)[:, None] & (n < BINS)[None, :]
    valid = within & (f < inside)[:, None]
    place = out + (item * made + f)[:, None] * (2 * BINS) + n[None, :]
    tl.store(place, tl.where(valid, real, 0.0), mask=within)
    tl.store(place + BINS, tl.where(valid, imaginary, 0.0), mask=within)


class Packed(NamedTuple):
    """A transform as `run` takes it."""

    basis: Tensor
    size: int
    hop: int
    polar: bool
    first_is_real: bool
    left: int  # samples beside the signal, as `pad` says
    right: int
    pad: int


def pack(params: Any) -> Packed:
    """Windowed cosines and sines [2, n_fft padded, bins padded] of an StftParams, rounded once from float64."""
    size, bins = params.n_fft, params.n_fft // 2 + 1
    s, k = torch.arange(size, device="cpu")[:, None], torch.arange(bins, device="cpu")
    angle = (s * k % size).double() * (2 * torch.pi / size)
    parts = torch.stack([angle.cos(), -angle.sin()])
    parts[1, :, 0] = parts[1, :, -1] = 0
    basis = parts.new_zeros((2, pad_channels(size), pad_channels(bins)))
    basis[:, :size, :bins] = parts * params.window.detach().double().cpu()[:, None]
    shape = size, params.hop, params.features == "polar", params.first_is_real
    return Packed(basis.float().to(params.window.device), *shape, params.side, params.side, params.pad)


def _output(p: Packed, x: Tensor) -> tuple[Tensor, int]:
    offset = p.left + p.right - p.size
    return x.new_empty((x.shape[0], (x.shape[2] + offset) // p.hop + 1, p.size + 2)), offset


def _stft(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """stft of `fastvoc.ops.stft`; lengths on the device of x."""
    out, offset = _output(p, x)
    size_pad, bins_pad = p.basis.shape[1:]
    config = tuned("stft", x.device, x.dtype, size=p.size)
    config = {
        **config,
        "BK": min(config["BK"], size_pad & -size_pad),
        "BN": min(config["BN"], max(16, triton.next_power_of_2(p.size // 2 + 1))),
    }
    launch(
        stft_kernel,
        (cdiv(out.shape[1], config["BT"]) * cdiv(p.size // 2 + 1, config["BN"]), x.shape[0]),
        config,
        x.device,
        x=x,
        basis=p.basis,
        lengths=lengths,
        out=out,
        steps=x.shape[2],
        made=out.shape[1],
        crop=p.left,
        offset=offset,
        **{name: value for name, value in strides(x, "x").items() if name != "x_channel"},
        SIZE=p.size,
        SIZE_PAD=size_pad,
        HOP=p.hop,
        PAD_MODE=p.pad,
        BINS=p.size // 2 + 1,
        BINS_PAD=bins_pad,
        POLAR=p.polar,
        FIRST_IS_REAL=p.first_is_real,
        PRECISION="ieee",
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_stft", Packed, lambda p, x, *_: _output(p, x)[0].transpose(1, 2), body=_stft)
run = NATIVE.run
