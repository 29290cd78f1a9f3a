"""Sounds that a mel front end may meet: real speech, and made ones of many kinds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastvoc.sound.audio import resample
from helpers import golden

SPEECH = {
    "mel_hifigan": ("wav", 22050),
    "mel_cosyvoice": ("wav_22050", 22050),
    "mel_bigvgan_24k_100band": ("wav", 24000),
    "mel_s3gen": ("wav", 24000),
    "mel_vocos": ("wav", 24000),
}


def speech(case: str, sample_rate: int) -> Tensor:
    """3 s of real speech [L], about 0.13 s of digital silence first, from a golden case."""
    name, rate = SPEECH[case]
    return resample(golden(case).inputs[name][0], rate, sample_rate)


def noise(samples: int, exponent: float, seed: int = 0) -> Tensor:
    """Noise [samples] with peaks of 1 whose amplitude falls with frequency ** exponent."""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=torch.Generator().manual_seed(seed)))
    wav = torch.fft.irfft(spectrum * torch.arange(len(spectrum)).clamp(min=1) ** -exponent, samples)
    return wav / wav.abs().max()


def chords(samples: int, sample_rate: int, harmonics: int, fall: float, seed: int = 0) -> Tensor:
    """Music-like: a chord of four decaying tones every half second, peaks of 1."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / sample_rate
    wav = torch.zeros(samples)
    for start in torch.arange(0, samples / sample_rate, 0.5).tolist():
        envelope = (time >= start) * torch.exp(-4 * torch.rand((), generator=generator) * (time - start).clamp(0, 9))
        for _ in range(4):
            pitch = 110 * 2 ** (torch.randint(36, (), generator=generator) / 12)
            for k in range(1, 1 + min(harmonics, int(sample_rate / 2 / pitch))):
                wav += envelope * torch.sin(2 * math.pi * pitch * k * time + k * k) * k**-fall
    return wav / wav.abs().max()


def synthetic(sample_rate: int) -> dict[str, Tensor]:
    """Sounds of 2.5 s by name, none of them speech."""
    n = sample_rate * 5 // 2
    time = torch.arange(n) / sample_rate
    white, chord = noise(n, 0.0), chords(n, sample_rate, 30, 1.0)
    sounds = {f"noise {p} x {level:g}": level * noise(n, p) for p in (0.0, 0.5, 1.0) for level in (1.0, 0.03, 1e-3)}
    sounds |= {f"chords {k} {p}": chords(n, sample_rate, k, p) for k, p in ((1, 1.0), (8, 1.0), (40, 0.4))}
    sounds |= {f"tone {f}": 0.8 * torch.sin(2 * math.pi * f * time) for f in (50, 440, 3000)}
    sounds["dense music"] = torch.tanh(3 * (chord + chords(n, sample_rate, 40, 0.7, seed=1)))
    sounds["music and drums"] = torch.tanh(chord + 2 * white * torch.exp(-(time % 0.25) * 30))
    sounds["music in noise"] = 0.5 * chord + 0.02 * white
    sounds["waves"] = white * (1 + torch.sin(8 * math.pi * time)) / 4
    sounds["clipped noise"] = (10 * white).clamp(-1, 1)
    sounds["pulses"] = (torch.arange(n) % 200 == 0).float()
    sounds["sawtooth"] = time * 110 % 1 * 2 - 1
    sounds["silence"] = torch.zeros(n)
    sounds["silence, then noise"] = 0.3 * white * (time > 2)
    sounds["dither"] = torch.sign(white) / 32768
    return sounds
