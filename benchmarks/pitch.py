"""F0 by normalised autocorrelation, to compare a sound with its copy."""

from __future__ import annotations

import torch
from torch import Tensor

_LOWEST, _HIGHEST = 60.0, 400.0  # Hz
_WINDOW, _HOP = 0.05, 0.01  # seconds
_VOICED = 0.6  # of the window's energy
_FIRST_PEAK = 0.9  # the shortest lag that comes as near to the best one: no octave below


def pitch(wav: Tensor, sample_rate: int) -> Tensor:
    """F0 in Hz of samples [L], one value every 10 ms, 0 where unvoiced."""
    size, hop = round(_WINDOW * sample_rate), round(_HOP * sample_rate)
    shortest, longest = round(sample_rate / _HIGHEST), round(sample_rate / _LOWEST)
    rows = wav.double().unfold(0, size + longest, hop)
    rows = rows - rows[:, :size].mean(1, keepdim=True)
    head, points = rows[:, :size], size + longest
    lags = torch.arange(shortest, longest + 1)
    products = torch.fft.irfft(torch.fft.rfft(head, 2 * points).conj() * torch.fft.rfft(rows, 2 * points), 2 * points)
    sums = torch.nn.functional.pad(rows.square().cumsum(1), (1, 0))
    energy = (sums[:, size + lags] - sums[:, lags]) * sums[:, size, None]
    correlation = products[:, lags] / energy.clamp(min=1e-12).sqrt()
    best = correlation.max(1, keepdim=True).values
    inner = correlation[:, 1:-1]
    peak = (inner >= correlation[:, :-2]) & (inner >= correlation[:, 2:]) & (inner >= _FIRST_PEAK * best)
    first = peak.double().argmax(1)
    loud = head.square().mean(1) > 1e-3 * head.square().mean(1).max()
    voiced = peak.any(1) & (best[:, 0] > _VOICED) & loud
    lag = (lags[1:-1][first]).double()
    around = [correlation[torch.arange(len(first)), first + i] for i in range(3)]
    bend = (around[0] - 2 * around[1] + around[2]).clamp(max=-1e-9)
    lag = lag + (0.5 * (around[0] - around[2]) / bend).clamp(-0.5, 0.5)
    return torch.where(voiced, sample_rate / lag, 0.0)


def pitch_error(real: Tensor, copied: Tensor, sample_rate: int) -> tuple[float, float]:
    """Root of the mean square F0 error in cents where both are voiced; the part of frames voiced in one alone."""
    length = min(len(real), len(copied))
    a, b = pitch(real[:length], sample_rate), pitch(copied[:length], sample_rate)
    both = (a > 0) & (b > 0)
    cents = 1200 * (b[both] / a[both]).log2()
    return float(cents.square().mean().sqrt()), float(((a > 0) != (b > 0)).double().mean())
