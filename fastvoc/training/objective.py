"""What a generator is trained to bring down, beside what discriminators say: weighted distances to the real sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from fastvoc.sound.mel import MelConfig, MelSpectrogram
from fastvoc.training.config import TrainConfig
from fastvoc.training.losses import LoudnessLoss, MelLoss, PhaseLoss, StftLoss, waveform_loss


class Distance(NamedTuple):
    """`function(real, generated)` of [B, L] samples gives a number, which counts `weight` times."""

    name: str
    weight: float
    function: Callable[[Tensor, Tensor], Tensor]


def distances(c: TrainConfig) -> list[Distance]:
    """Those of a configuration: the mel loss always, the others where they have a weight."""
    listed = [
        Distance("mel", c.mel_weight, MelLoss([*_front_ends(c)])),
        Distance("stft", c.stft_weight, StftLoss(c.stft_resolutions, c.stft_floor)),
        Distance("loud", c.loudness_weight, LoudnessLoss(c.sampling_rate)),
        Distance("phase", c.phase_weight, PhaseLoss(c.n_fft, c.hop_size)),
        Distance("wave", c.waveform_weight, waveform_loss),
    ]
    return [distance for distance in listed if distance.weight or distance.name == "mel"]


def _front_ends(c: TrainConfig) -> Iterator[MelSpectrogram]:
    if not c.mel_resolutions:
        yield MelSpectrogram(c.mel(c.fmax_for_loss))
    for n_fft, bands in c.mel_resolutions:
        yield MelSpectrogram(MelConfig(c.sampling_rate, n_fft, n_fft, max(1, n_fft // 4), bands, f_max=c.fmax_for_loss))
