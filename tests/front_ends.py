"""What goes wrong with mels: front ends that are not the model's, by what the mel doctor should call them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fastvoc.sound import audio
from fastvoc.sound.mel import PRESETS, MelConfig, MelSpectrogram
from helpers import ROOT

LN10 = math.log(10.0)
SPEECH = sorted((ROOT / "tests/data/speech").glob("*.flac"))


@dataclass(frozen=True)
class Fault:
    """A wrong front end: what it makes of a waveform, what it is called, and what of that the mel alone can tell."""

    make: Callable[[Tensor, MelConfig], Tensor]
    kinds: tuple[str, ...]
    alone: tuple[str, ...] = ()


def nepers(wav: Tensor, config: MelConfig) -> Tensor:
    """The natural logarithm, whatever the configuration says."""
    return MelSpectrogram(replace(config, log="ln"))(wav)


def right(wav: Tensor, config: MelConfig) -> Tensor:
    return MelSpectrogram(config)(wav)


def changed(**values: object) -> Callable[[Tensor, MelConfig], Tensor]:
    return lambda wav, config: right(wav, replace(config, **values))  # type: ignore[arg-type]


def _normalised(wav: Tensor, config: MelConfig) -> Tensor:
    mel = right(wav, config)
    return (mel - mel.mean()) / mel.std()


def _each_band_normalised(wav: Tensor, config: MelConfig) -> Tensor:
    mel = right(wav, config)
    return (mel - mel.mean(1, keepdim=True)) / mel.std(1, keepdim=True)


def _decibels_of_the_largest(wav: Tensor, config: MelConfig) -> Tensor:
    mel = nepers(wav, config) * 20 / LN10
    return (mel - mel.max()).clamp(min=-80)


def faults(config: MelConfig) -> dict[str, Fault]:
    """The right front end, and every fault of it."""
    other = ("log10", 1 / LN10) if config.log == "ln" else ("ln", 1.0)
    family = {22050: "pwg_22k", 16000: "hifigan_22k", 24000: "bigvgan_24k_100"}[config.sample_rate]
    theirs = replace(PRESETS[family], sample_rate=config.sample_rate)
    seen = theirs.log if theirs.n_mels == config.n_mels else "bands"
    return {
        "right": Fault(right, ()),
        "the other logarithm": Fault(lambda w, c: nepers(w, c) * other[1], (other[0],), (other[0],)),
        "decibels": Fault(lambda w, c: nepers(w, c) * 20 / LN10, ("db",), ("db",)),
        "decibels below the largest": Fault(_decibels_of_the_largest, ("db",), ("db",)),
        "linear": Fault(lambda w, c: nepers(w, c).exp(), ("linear",), ("linear",)),
        "normalised": Fault(_normalised, ("normalised",), ("normalised",)),
        "each band normalised": Fault(_each_band_normalised, ("normalised",), ("normalised",)),
        "fmax": Fault(changed(f_max=None if config.sample_rate < 24000 else 11025.0), ("fmax",)),
        "fmin": Fault(changed(f_min=125.0, f_max=7600.0), ("fmax",)),
        "hop": Fault(changed(hop_length=300), ("hop",)),
        "n_fft": Fault(changed(n_fft=2048, win_length=2048), ("n_fft",)),
        "window": Fault(changed(win_length=800), ("n_fft",)),
        "mel scale": Fault(changed(scale="htk", norm=None), ("scale",)),
        "filters' norm": Fault(changed(norm=None), ("scale",)),
        "power": Fault(changed(power=2.0), ("power",)),
        "whole numbers": Fault(lambda w, c: right(32768 * w, c), ("gain",)),
        "transposed": Fault(lambda w, c: right(w, c).t(), ("transposed",), ("transposed",)),
        "another family": Fault(lambda w, _: right(w, theirs), (family,), (seen,)),
    }


def clips(rate: int, files: list[Path] | None = None) -> Iterator[Tensor]:
    """Real speech at a rate."""
    for path in SPEECH if files is None else files:
        wav, own = audio.read_audio(path)
        yield audio.resample(wav[0], own, rate)
