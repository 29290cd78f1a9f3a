"""The generators that can be trained, each as training begins with it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.models.vocos import Vocos
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.sound.mel import MelConfig, mel_filterbank
from fastvoc.training.weight_norm import apply_weight_norm, initialise


def generator(config: HifiGanConfig | VocosConfig) -> nn.Module:
    """A new generator with the random weights from which training starts; HiFi-GAN's under weight norm."""
    if isinstance(config, VocosConfig):
        vocos = Vocos(config)
        begin_at_envelope(vocos)
        return vocos
    model = HifiGan(config)
    initialise(model)
    apply_weight_norm(model)
    return model


@torch.no_grad()
def begin_at_envelope(model: Vocos) -> None:
    """Lets a Vocos start with a click's phases in each frame, with `mel_skip` also with magnitudes read off its mel.

    The log-magnitude of a bin starts as the log-mel of the two bands around it, in the proportion of its distance from
    their centres, less the logarithm of the sum of a band's weights: as a linear layer what FreeV (arXiv 2406.08196)
    makes with the least-squares inverse of the filters; it needs a front end with the natural logarithm. Phases of
    pi * bin put all of a frame's energy under the middle of its window.
    """
    config, out = model.config, model.head.out
    bins = config.n_fft // 2 + 1
    out.bias[bins:] = math.pi * (torch.arange(bins, device=out.bias.device) % 2)
    mel = config.mel
    if not config.mel_skip:
        return
    out.weight[:, config.dim :] = 0
    if mel is not None and mel.log == "ln":
        weights, bias = _envelope(mel, config.n_fft)
        out.weight[:bins, config.dim :], out.bias[:bins] = weights, bias


def _envelope(mel: MelConfig, n_fft: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [bins, bands] and bias [bins] that make log-magnitudes of a log-mel."""
    filters = mel_filterbank(mel).double()
    sums = filters.sum(1)
    centres = (filters * torch.arange(filters.shape[1], device=filters.device)).sum(1) / sums * (n_fft / mel.n_fft)
    bins = n_fft // 2 + 1
    places = torch.from_numpy(np.interp(np.arange(bins), centres.numpy(), np.arange(mel.n_mels)))
    below = places.long().clamp(max=mel.n_mels - 2)
    weights = torch.zeros(bins, mel.n_mels, dtype=torch.float64, device="cpu")
    rows = torch.arange(bins, device="cpu")
    weights[rows, below] = 1 - (places - below)
    weights[rows, below + 1] = places - below
    return (weights / mel.power).float(), -(weights @ sums.log() / mel.power).float()
