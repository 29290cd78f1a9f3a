"""Spectra: the transforms are products with matrices of cosines and sines, so that no runtime has to know an STFT."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastvoc.exporting.convolutions import PADS, convolved
from fastvoc.exporting.emitters import emits
from fastvoc.exporting.wire import Wire, concat
from fastvoc.ops.istft_head import IstftHeadParams
from fastvoc.ops.stft import StftParams


def spectrum(params: IstftHeadParams, x: Wire) -> tuple[Wire, Wire, Wire]:
    """Magnitudes, and the cosines and sines of the phases, [B, n_fft / 2 + 1, T] each."""
    magnitude, phase = x.chunk(2, 1)
    magnitude = magnitude.unary("Exp")
    if params.clip is not None:
        magnitude = magnitude.clamp(max=params.clip)
    if params.phase == "sin":
        phase = phase.unary("Sin")
    return magnitude, phase.unary("Cos"), phase.unary("Sin")


@emits(IstftHeadParams)
def istft_head(params: IstftHeadParams, x: Wire) -> Wire:
    """Frames as a matrix product, added up where they overlap, divided by the sum of the squared windows there."""
    magnitude, cosine, sine = spectrum(params, x)
    bins = concat([magnitude * cosine, magnitude * sine], 1)
    frames = x.like(inverse_basis(params.window)) @ bins
    squares = x.like(params.squares[None, :, None])
    weights = squares.expand(1, 1, x.size(2), shape=(1, params.n_fft, x.shape[2]))
    y = overlapped(frames, params.hop, params.trim) / overlapped(weights, params.hop, params.trim)
    return y if params.clamp is None else y.clamp(-params.clamp, params.clamp)


def inverse_basis(window: Tensor) -> Tensor:
    """[n_fft, n_fft + 2]: the samples of a frame from its real parts, then its imaginary parts, under the window."""
    n_fft = len(window)
    cosine, sine = _angles(n_fft)
    share = torch.full((n_fft // 2 + 1,), 2.0 / n_fft, dtype=torch.float64, device="cpu")
    share[0] = share[-1] = 1.0 / n_fft  # the others stand for their mirror images, too
    basis = torch.cat([cosine * share[:, None], -sine * share[:, None]])
    return (basis * window.double().cpu()).t()


def _angles(n_fft: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [n_fft / 2 + 1, n_fft], exactly 0 where they are."""
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.int64, device="cpu")[:, None]
    turn = bins * torch.arange(n_fft, dtype=torch.int64, device="cpu") % n_fft
    angle = turn.double() * (2 * math.pi / n_fft)
    cosine, sine = angle.cos(), angle.sin()
    sine[turn * 2 % n_fft == 0] = 0.0
    cosine[(turn * 4 % (2 * n_fft) != 0) & (turn * 4 % n_fft == 0)] = 0.0
    return cosine, sine


def overlapped(frames: Wire, hop: int, trim: int) -> Wire:
    """[B, n_fft, T] -> [B, 1, S]: frames added up one every `hop` samples, without `trim` at either end."""
    n_fft, batch = frames.known(1), frames.shape[0]
    parts = -(-n_fft // hop)
    total: Wire | None = None
    for part in range(parts):
        size = min(hop, n_fft - part * hop)
        rows = frames.sliced(1, part * hop, part * hop + size) if parts > 1 else frames
        if size < hop:  # the last part of a frame that is no multiple of the hop
            rows = rows.transpose(1, 2).padded(0, hop - size).transpose(1, 2)
        rows = rows.padded(part, parts - 1 - part)
        total = rows if total is None else total + rows
    assert total is not None
    y = total.transpose(1, 2).reshape(0, 1, -1, shape=(batch, 1, None))
    surplus = parts * hop - n_fft
    return y.sliced(2, trim, -(trim + surplus) if trim + surplus else None)


@emits(StftParams)
def stft(params: StftParams, x: Wire) -> Wire:
    """Frames of the signal, between what the padding says, times the window's cosines and sines."""
    cosine, sine = _angles(params.n_fft)
    basis = torch.cat([cosine, -sine]) * params.window.double().cpu()
    padded = x.padded(params.side, params.side, PADS[params.pad_mode])
    bins = convolved(padded, basis[:, None], None, stride=params.hop)
    if params.features == "complex":
        return bins
    real, imaginary = bins.chunk(2, 1)
    magnitude = (real.square() + imaginary.square()).unary("Sqrt")
    if params.first_is_real:  # but for rounding, by which its angle would turn
        first = imaginary.sliced(2, 0, 1) * 0.0
        imaginary = concat([first, imaginary.sliced(2, 1)], 2)
    return concat([magnitude, _angle(real, imaginary)], 1)


def _angle(real: Wire, imaginary: Wire) -> Wire:
    """The angle in (-pi, pi], 0 for 0; an imaginary part of -0 counts as 0."""
    zero = real.like(0.0)
    level = real.compare("Equal", 0.0)
    slope = (imaginary / level.where(real.like(1.0), real)).unary("Atan")
    below = imaginary.compare("Less", 0.0)
    turn = below.where(real.like(-math.pi), real.like(math.pi))
    upright = turn * 0.5
    flat = imaginary.compare("Equal", 0.0)
    straight = real.compare("Less", 0.0)
    angle = level.where(upright, slope + straight.where(turn, zero))
    return flat.where(straight.where(real.like(math.pi), zero), angle)
