"""github.com/jik876/hifi-gan: `Generator` of its `models`, `AttrDict` of `env`, `mel_spectrogram` of `meldataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints.jik876 import generator_config
from fastvoc.checkpoints.text import Fields
from fastvoc.compat.upstream import Attributes, WeightNormed, attributes
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.hifigan import HifiGan
from fastvoc.sound.mel import MelConfig, MelSpectrogram

__all__ = ["AttrDict", "Generator", "mel_spectrogram"]

AttrDict = Attributes


class Generator(WeightNormed):
    """HiFi-GAN's generator. `load_state_dict` takes `torch.load(...)["generator"]`; weight norm is folded there.

    Args:
        h: `AttrDict` or any object with the fields of `config.json`.

    Raises ArgumentError naming a field that is missing or illegal.
    """

    def __init__(self, h: Any) -> None:
        own = attributes(h)
        try:
            # Upstream reads neither of the two.
            config = generator_config(Fields({"sampling_rate": 22050, "num_mels": 80, **own}, Path("h")))
        except LoadError as error:
            raise ArgumentError(str(error)) from None
        super().__init__(HifiGan(config))
        self.h = own
        self.num_kernels = len(config.resblock_kernel_sizes)
        self.num_upsamples = len(config.upsample_rates)

    def forward(self, x: Tensor) -> Tensor:
        """[B, num_mels, T] log-mel -> [B, 1, S] samples in (-1, 1)."""
        wav: Tensor = self._model(x)
        return wav


def mel_spectrogram(
    y: Tensor,
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    hop_size: int,
    win_size: int,
    fmin: float,
    fmax: float | None,
    center: bool = False,
) -> Tensor:
    """[B, L] samples in -1..1 -> [B, num_mels, L // hop_size] natural log-mel, computed anew for each set of values.

    Raises ArgumentError for `center=True`, which upstream never uses, and as `MelConfig` does.
    """
    if center:
        raise ArgumentError("center: expected False, got True")
    return MelSpectrogram(MelConfig(sampling_rate, n_fft, win_size, hop_size, num_mels, fmin, fmax))(y)
