"""A short input of no meaning that exercises a vocoder as speech does, the same every time."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.sound.mel import MelConfig, MelSpectrogram


def probe(mel: MelConfig | None, channels: int, frames: int) -> Tensor:
    """[1, channels, frames]: the log-mel of a gliding voiced sound, or without a front end a smooth normal latent."""
    random = torch.Generator("cpu").manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")

    def line(begin: float, end: float, steps: int) -> Tensor:
        return torch.linspace(begin, end, steps, dtype=torch.float32, device="cpu")

    if mel is None:
        rough = noise(channels, frames + 2)
        return (0.5 * rough[:, :-2] + 0.7 * rough[:, 1:-1] + 0.5 * rough[:, 2:])[None]
    samples = frames * mel.hop_length
    phase = line(110.0, 230.0, samples).cumsum(0) * (2 * torch.pi / mel.sample_rate)
    voiced = torch.stack([(k * phase).sin() / k for k in range(1, 12)]).sum(0)
    wav = 0.15 * line(0.0, 2 * torch.pi, samples).sin().square() * voiced + 0.01 * noise(samples)
    return MelSpectrogram(mel)(wav)[None, :, :frames]
