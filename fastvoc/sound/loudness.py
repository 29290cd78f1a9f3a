"""Integrated loudness by ITU-R BS.1770-4: K-weighting, means of gated blocks."""

from __future__ import annotations

from math import cos, pi, sin, sqrt

import torch
from torch import Tensor

from fastvoc.errors import ShapeError

LEAST = -70.0  # LUFS: of silence, and the absolute gate
_BLOCK = 0.4  # seconds; the next one begins a quarter later
_SHORTEST = 0.5  # seconds; less is followed by silence
_OFFSET, _RELATIVE_GATE = -0.691, 10.0
_SETTLED = 0.3  # seconds after which nothing is left of the filters' answer to an impulse


def loudness(wav: Tensor, sample_rate: int) -> float:
    """LUFS of a waveform [C, S], floating-point, at a rate in Hz; -70 at least. Channels count alike.

    Raises ShapeError for another shape or no samples.
    """
    if wav.dim() != 2 or 0 in wav.shape:
        raise ShapeError(f"wav: expected [C, S > 0], got {list(wav.shape)}")
    weighted = _weighted(wav.double().cpu(), sample_rate)
    size, step = int(_BLOCK * sample_rate), int(_BLOCK * sample_rate * 0.25)
    longest = max(weighted.shape[1], int(_SHORTEST * sample_rate), size)
    count = -(-(longest - size) // step) + 1
    padded = torch.nn.functional.pad(weighted, (0, (count - 1) * step + size - weighted.shape[1]))
    power = padded.square().unfold(1, size, step).sum(2).sum(0) / (_BLOCK * sample_rate)
    power = power[_level(power) > LEAST]
    if not len(power):
        return LEAST
    power = power[_level(power) > _level(power.mean()) - _RELATIVE_GATE]
    return max(float(_level(power.mean())), LEAST)


def _level(power: Tensor) -> Tensor:
    return _OFFSET + 10.0 * power.log10()


def _weighted(wav: Tensor, rate: int) -> Tensor:
    """The waveform after the two filters, by its spectrum."""
    steps = wav.shape[1] + int(_SETTLED * rate)
    size = 1 << (steps - 1).bit_length()
    turn = torch.exp(-2j * pi * torch.arange(size // 2 + 1, dtype=torch.float64, device="cpu") / size)
    answer = torch.ones_like(turn)
    for above, below in (_high_shelf(rate), _high_pass(rate)):
        answer = answer * (above[0] + above[1] * turn + above[2] * turn**2)
        answer = answer / (below[0] + below[1] * turn + below[2] * turn**2)
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(wav, size) * answer, size)
    return filtered[:, : wav.shape[1]]


# The two of the standard as pyloudnorm designs them for any rate: R. Bristow-Johnson, "Cookbook formulae for audio
# equalizer biquad filter coefficients".
_Biquad = tuple[tuple[float, float, float], tuple[float, float, float]]


def _high_shelf(rate: int) -> _Biquad:
    """4 dB more above 1500 Hz, Q of 1 / sqrt 2."""
    gain, turn = 10 ** (4.0 / 40.0), 2 * pi * 1500.0 / rate
    c, bend = cos(turn), 2 * sqrt(gain) * sin(turn) / (2 * sqrt(0.5))
    more, less = gain + 1, gain - 1
    above = (gain * (more + less * c + bend), -2 * gain * (less + more * c), gain * (more + less * c - bend))
    return above, (more - less * c + bend, 2 * (less - more * c), more - less * c - bend)


def _high_pass(rate: int) -> _Biquad:
    """Nothing far below 38 Hz, Q of 0.5."""
    turn = 2 * pi * 38.0 / rate
    c, bend = cos(turn), sin(turn)
    return ((1 + c) / 2, -(1 + c), (1 + c) / 2), (1 + bend, -2 * c, 1 - bend)
