"""From one input, audio or a mel file, to the model's waveform."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import typer
from torch import Tensor

from fastvoc.errors import DecodeError, DtypeError, FastvocError, ShapeError
from fastvoc.sound.audio import mono, read_audio, resample
from fastvoc.vocoder import Vocoder

MEL_FILES = frozenset({".npy", ".safetensors"})


@dataclass(frozen=True)
class Input:
    """Either samples [L] at the model's rate or a mel [n_mels, T], and what was done to the file to get them."""

    name: str
    wav: Tensor | None = None
    mel: Tensor | None = None
    notes: tuple[str, ...] = field(default=())


def read_input(source: Path | BinaryIO, voc: Vocoder) -> Input:
    """Reads a mel file or audio; audio is mixed to mono and resampled to the model's rate.

    Raises DecodeError or DtypeError that names the file.
    """
    if isinstance(source, os.PathLike) and source.suffix.lower() in MEL_FILES:
        return Input(str(source), mel=read_mel(source))
    wav, rate = read_audio(source)
    notes = []
    if len(wav) > 1:
        notes.append(f"{len(wav)} channels mixed to one")
    if rate != voc.sample_rate:
        notes.append(f"resampled from {rate} to {voc.sample_rate} Hz")
    name = str(source) if isinstance(source, os.PathLike) else "standard input"
    return Input(name, wav=resample(mono(wav), rate, voc.sample_rate), notes=tuple(notes))


def read_mel(path: Path) -> Tensor:
    """The mel of a .npy file, or of a .safetensors file: its tensor `mel`, or the only one. [1, n_mels, T] loses the 1.

    Raises DecodeError that names the file when it is no such file, DtypeError for values that are not floating-point.
    """
    mel = _read_npy(path) if path.suffix.lower() == ".npy" else _read_safetensors(path)
    if not mel.is_floating_point():
        raise DtypeError(f"{path}: expected a floating-point mel, got {mel.dtype}")
    return mel[0] if mel.dim() == 3 and len(mel) == 1 else mel


def _read_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DecodeError(f"{path}: no array of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DecodeError(f"{path}: expected one array of numbers")
    if array.dtype.kind != "f":
        raise DtypeError(f"{path}: expected a floating-point mel, got {array.dtype}")
    return torch.from_numpy(array.astype(np.float32, order="C"))


def _read_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            name = "mel" if "mel" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise DecodeError(f"{path}: expected a tensor 'mel' or a single one, got {sorted(names)[:5]}")
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise DecodeError(f"{path}: no safetensors file ({error})") from error


def synthesise(voc: Vocoder, item: Input) -> tuple[Tensor, Tensor]:
    """The mel [n_mels, T] that the model got and its waveform [S], no longer than the audio it was made from.

    Raises the errors of `Vocoder.mel` and of a call, which name the input.
    """
    try:
        return _synthesised(voc, item)
    except FastvocError as error:
        raise type(error)(f"{item.name}: {error}") from error


def _synthesised(voc: Vocoder, item: Input) -> tuple[Tensor, Tensor]:
    if item.wav is not None:
        mel = voc.mel(item.wav.to(voc.device), check=True)
        return mel, voc(mel, check=False)[: len(item.wav)].cpu()
    assert item.mel is not None
    if item.mel.dim() != 2:
        raise ShapeError(f"expected a mel [{voc.n_mels}, T], got {list(item.mel.shape)}")
    mel = item.mel.to(voc.device)
    problem = voc.examine(mel)
    if problem is not None:
        typer.echo(f"warning: {item.name}: the mel looks {problem}", err=True)
    return mel, voc(mel, check=False).cpu()


def speed(made: float, seconds: float) -> str:
    """How long the sound is, how long making it took, and their ratio."""
    return f"{made:.2f} s of audio made in {seconds:.2f} s, real-time factor {seconds / max(made, 1e-9):.3f}"
