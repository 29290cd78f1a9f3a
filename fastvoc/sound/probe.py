"""A short input of no meaning that exercises a vocoder as speech does, the same every time."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.sound.mel import MelConfig, MelSpectrogram


def probe(mel: MelConfig | None, channels: int, frames: int) -> Tensor:
    """[1, channels, frames]: the log-mel of a gliding voiced sound, or without a front end a smooth normal latent."""
    random = torch.Generator().manual_seed(0)
    if mel is None:
        noise = torch.randn(channels, frames + 2, generator=random)
        return (0.5 * noise[:, :-2] + 0.7 * noise[:, 1:-1] + 0.5 * noise[:, 2:])[None]
    samples = frames * mel.hop_length
    phase = torch.linspace(110.0, 230.0, samples).cumsum(0) * (2 * torch.pi / mel.sample_rate)
    voiced = torch.stack([(k * phase).sin() / k for k in range(1, 12)]).sum(0)
    swell = torch.linspace(0, 2 * torch.pi, samples).sin().square()
    wav = 0.15 * swell * voiced + 0.01 * torch.randn(samples, generator=random)
    return MelSpectrogram(mel)(wav)[None, :, :frames]
