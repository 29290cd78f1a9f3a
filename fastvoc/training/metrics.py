"""Objective measures of copy synthesis: PESQ-wb, STOI and log-mel distance."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from torch import Tensor

from fastvoc.errors import FastvocError, ShapeError
from fastvoc.sound import audio
from fastvoc.sound.mel import MelSpectrogram

_PESQ_RATE = 16000


class UnmeasurableError(FastvocError):
    """A measure does not apply to a clip: too short, or without speech."""


def pesq_wb(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), about 1 to 4.64, of [L] samples, resampled to 16 kHz. Needs the package pesq.

    The longer signal is cut to the shorter one's length. Raises UnmeasurableError when PESQ finds no utterance.
    """
    pesq = _import("pesq")
    ref, deg = (audio.resample(x, sample_rate, _PESQ_RATE).numpy() for x in _pair(reference, degraded))
    if not ref.any() or not deg.any():
        raise UnmeasurableError("PESQ: a signal is silent")
    try:
        return float(pesq.pesq(_PESQ_RATE, ref, deg, "wb"))
    except pesq.PesqError as error:
        raise UnmeasurableError(f"PESQ: {error}") from error


def stoi(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1, of [L] samples. Needs the package pystoi.

    Raises UnmeasurableError when there is too little speech to measure.
    """
    ref, deg = (x.numpy() for x in _pair(reference, degraded))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi's way to say so, next to a made-up value
        try:
            return float(_import("pystoi").stoi(ref, deg, sample_rate))
        except RuntimeWarning as error:
            raise UnmeasurableError(f"STOI: {error}") from error


def mel_l1(reference: Tensor, degraded: Tensor, mel: MelSpectrogram) -> float:
    """Mean absolute log-mel difference of [L] samples under a front end."""
    ref, deg = _pair(reference, degraded)
    return float((mel(ref) - mel(deg)).abs().mean())


def available() -> list[str]:
    """Those of "pesq" and "pystoi" that can be imported."""
    names = []
    for name in ("pesq", "pystoi"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        names.append(name)
    return names


def _pair(reference: Tensor, degraded: Tensor) -> tuple[Tensor, Tensor]:
    for name, wav in (("reference", reference), ("degraded", degraded)):
        if wav.dim() != 1:
            raise ShapeError(f"{name}: expected samples [L], got {list(wav.shape)}")
    length = min(len(reference), len(degraded))
    return tuple(x[:length].detach().float().cpu() for x in (reference, degraded))  # type: ignore[return-value]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FastvocError(f"this measure needs the package {name}: pip install {name}") from error
