"""Tells from a mel spectrogram's statistics that another front end made it.

What separates the units is the roughness of a mel: the median difference of neighbouring bands and of neighbouring
frames, as a multiple of what white noise gives under the same front end. Noise sets it, so it depends on the
analysis, little on the content. Real speech has 1.1 to 2.9 in nepers, 0.5 to 1.3 in log10, 9 and more in dB.
The bounds were set on recorded speech (whole utterances and windows of 50 frames, also smoothed as an acoustic
model's output is), noise of four colours, chords, tones and pulses: none of those may be called wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fastvoc.runtime.autocast import without_autocast
from fastvoc.sound.mel import MelConfig, MelSpectrogram

MIN_FRAMES = 50
ADVICE = {
    "linear": "linear magnitudes: take the {log} of max(mel, {floor:g})",
    "db": "decibels: divide by {decibels} for this model's {log}",
    "log10": "log10: multiply by ln(10) = 2.302585 for this model's ln",
    "ln": "a natural logarithm: divide by ln(10) = 2.302585 for this model's log10",
    "normalised": "normalised (mean 0, deviation 1): undo it with the statistics that made it",
    "transposed": "transposed ([T, n_mels]): pass mel.transpose(-1, -2)",
}
_LN10 = math.log(10.0)


@dataclass(frozen=True)
class _Noise:
    """White noise of rms 0.1 under a front end, in nepers: mean level, roughness over bands and over frames.

    pace: how much more speech, against noise, changes from frame to frame than with frames of 11.6 ms.
    """

    level: float
    bands: float
    frames: float
    pace: float


@without_autocast
def suspect(mel: Tensor, config: MelConfig) -> str | None:
    """The key of `ADVICE` that a mel [n_mels, T] of finite values looks like, None when nothing speaks against it.

    Spectrograms of fewer than 50 frames, digital silence not counted, are never judged.
    """
    whole = mel.detach().float().cpu()
    mel = whole[:, whole.std(0) > 1e-4]
    if mel.shape[1] < MIN_FRAMES:
        return None
    low, middle, high, top = (mel.flatten().kthvalue(_rank(mel, q)).values.item() for q in (0.0, 0.5, 0.99, 1.0))
    mean, spread = mel.mean().item(), mel.std().item()
    if whole.mean(1).abs().max() < 0.02 and (whole.std(1) - 1.0).abs().max() < 0.05:
        return "normalised"  # every band by its own statistics
    if low >= 0.0:
        return "linear" if middle < 0.15 * top else "normalised" if top < 1.05 else None
    if spread > 8.0 and top - low > 35.0:
        return "db"
    noise, unit = _noise(config), _LN10 if config.log == "log10" else 1.0
    bands, frames = _roughness(mel, 0) / noise.bands, _roughness(mel, 1) / noise.frames
    across, within = mel.mean(1).std().item(), mel.std(1).mean().item()
    centred = abs(mean) < 0.9 and 0.5 < spread < 1.6 and within > 0.45
    flat = across < 0.65 * within and high > 1.2 and bands > 0.5 and frames > 0.45
    loud = mean * unit - noise.level > 1.5 and high * unit - noise.level > 3.4 and min(bands, frames) > 0.3
    if centred and (flat or loud) and bands < 1.4 and frames < 1.25 * noise.pace:
        return "normalised"
    if config.log == "log10" and bands * frames > 1.7 and frames > noise.pace and spread > 1.3:
        return "ln"
    smooth = bands < 1.1 and frames < noise.pace and 0.12 < bands * frames < 0.9 * noise.pace
    level = mean * _LN10 - noise.level
    if config.log == "ln" and smooth and 0.45 < spread < 1.4 and within > 0.4 and -5.5 < level < 1.5:
        return "log10"
    square = whole.shape[0] == whole.shape[1] and spread * unit < 4.0
    lively = min(bands, frames) * unit > 0.8 and min(across, within) * unit > 0.45
    if square and lively and _upright(whole.clamp(min=top - 12.0 / unit) * unit) < -3.5:
        return "transposed"
    return None


def advice(kind: str, config: MelConfig) -> str:
    """What a suspected mel is and how to mend it."""
    decibels = "20 / ln(10) = 8.685890" if config.log == "ln" else "20"
    return ADVICE[kind].format(log=config.log, floor=config.floor, decibels=decibels)


def _rank(mel: Tensor, quantile: float) -> int:
    return 1 + int(quantile * (mel.numel() - 1))


def _roughness(mel: Tensor, dim: int) -> float:
    """Median difference of neighbours; equal neighbours, which sit on a floor, do not count."""
    steps = mel.diff(dim=dim).abs()
    steps = steps[steps > 0]
    return steps.median().item() if len(steps) else 0.0


@lru_cache(maxsize=64)
def _noise(config: MelConfig) -> _Noise:
    with torch.inference_mode():
        draw = torch.Generator().manual_seed(0)
        size = 200 * config.hop_length + config.n_fft
        wav = 0.1 * torch.randn(size, generator=draw, dtype=torch.float32, device="cpu")
        mel = MelSpectrogram(config)(wav) * (_LN10 if config.log == "log10" else 1.0)
        pace = 1.0 + 0.6 * max(0.0, config.hop_length / config.sample_rate / 0.0117 - 1.0)
        return _Noise(mel.mean().item(), _roughness(mel, 0), _roughness(mel, 1), pace)


def _upright(mel: Tensor) -> float:
    """Positive for [bands, frames], the negative for the transposed mel; logistic weights fitted on speech."""
    weights = torch.tensor([3.0, -4.0, -3.0, -2.0, 4.0, -6.0], dtype=mel.dtype, device=mel.device)
    busy = (mel > mel.min() + 0.1).float().mean().item()
    return ((_texture(mel) - _texture(mel.t())) @ weights).item() if busy > 0.7 else 0.0


def _texture(mel: Tensor) -> Tensor:
    """How differences over rows grow with the distance, how they bend, and how they change with the row."""
    steps = {k: (mel[k:] - mel[:-k]).abs() for k in (1, 2, 4, 8)}
    one, two, four, eight = (_log_median(step) for step in steps.values())
    bend = _log_median(mel.diff(n=2, dim=0).abs())
    index = torch.arange(len(mel) - 1.0, dtype=mel.dtype, device=mel.device)
    rows = torch.stack([index, (steps[1].median(1).values + 1e-3).log()])
    rows = rows - rows.mean(1, keepdim=True)
    trend = rows[0] @ rows[1] / (rows[0].norm() * rows[1].norm() + 1e-6)
    return torch.stack([one, two - one, four - two, eight - four, bend - one, trend])


def _log_median(values: Tensor) -> Tensor:
    return (values.median() + 1e-3).log()
