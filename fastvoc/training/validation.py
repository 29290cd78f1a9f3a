"""Copy synthesis of held-out clips: measures, audio and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from fastvoc.models.families import build
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.sound import audio
from fastvoc.sound.mel import MelSpectrogram
from fastvoc.training import metrics
from fastvoc.training.data import read_clip
from fastvoc.training.plots import plot_audio
from fastvoc.training.weight_norm import folded_state


@dataclass(frozen=True)
class Clip:
    """A held-out clip: its name, samples [L], their log-mel [n_mels, T]."""

    name: str
    wav: Tensor
    mel: Tensor


class Validation:
    """Held-out clips, read once. PESQ-wb and STOI are measured when their packages are installed."""

    def __init__(self, paths: Sequence[Path], config: HifiGanConfig | VocosConfig, mel: MelSpectrogram) -> None:
        self._config, self._mel = config, mel
        wavs = [(path.stem, read_clip(path, config.sample_rate)) for path in paths]
        self._clips = [Clip(name, wav, mel(wav)) for name, wav in wavs]
        self._packages = metrics.available()

    def measure(self, published: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean mel_l1, and pesq_wb and stoi where they can be had, of a generator given by its published state.

        A clip with too little speech for a measure is left out of that measure's mean.
        """
        rate = self._config.sample_rate
        values: dict[str, list[float]] = {"mel_l1": [], "pesq_wb": [], "stoi": []}
        for clip, generated in zip(self._clips, self._copies(published, len(self._clips)), strict=True):
            values["mel_l1"].append(metrics.mel_l1(clip.wav, generated, self._mel))
            if "pesq" in self._packages:
                with suppress(metrics.UnmeasurableError):
                    values["pesq_wb"].append(metrics.pesq_wb(clip.wav, generated, rate))
            if "pystoi" in self._packages:
                with suppress(metrics.UnmeasurableError):
                    values["stoi"].append(metrics.stoi(clip.wav, generated, rate))
        return {name: fmean(found) for name, found in values.items() if found}

    def write(self, published: Mapping[str, Tensor], folder: Path, count: int) -> None:
        """Writes copies of the first `count` clips as `{name}.wav` with a picture `{name}.png`."""
        folder.mkdir(parents=True, exist_ok=True)
        rate, hop = self._config.sample_rate, self._config.hop
        copies = self._copies(published, count)
        for clip, generated in zip(self._clips[: len(copies)], copies, strict=True):
            audio.write_audio(folder / f"{clip.name}.wav", generated, rate)
            plot_audio(folder / f"{clip.name}.png", generated, self._mel(generated), rate, hop, clip.name)

    def _copies(self, published: Mapping[str, Tensor], count: int) -> list[Tensor]:
        generator = build(self._config).eval()
        generator.load_state_dict(folded_state(published))
        with torch.inference_mode():
            return [generator(clip.mel[None])[0, 0] for clip in self._clips[:count]]
