"""Real inputs from files, for `fastvoc convert --int8`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import Tensor

from fastvoc.checkpoints import Checkpoint
from fastvoc.cli.synthesis import MEL_FILES, read_input
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, FastvocError
from fastvoc.quantization import LEAST_DECIBELS, Calibration
from fastvoc.sound.audio import mono, read_audio, resample
from fastvoc.sound.files import READABLE
from fastvoc.vocoder import Vocoder


def calibrated(checkpoint: Checkpoint, source: Path, least: float | None, console: Console) -> Checkpoint:
    """The int8 form of a checkpoint, calibrated on an audio or mel file or a folder of them.

    least: decibels that it has to stay from float32, those of `fastvoc.quantization` when None.

    Raises ArgumentError when there are none, or as `fastvoc.quantization.calibrate`, naming the file.
    """
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if _is_input(p))
    if not files:
        raise ArgumentError(f"--calibrate: no audio and no mel files in {source}")
    calibration = Calibration(checkpoint, LEAST_DECIBELS if least is None else least)
    for path in track(files, "Calibrating", console=console, transient=True):
        try:
            calibration.see(_input(path, calibration.model))
        except FastvocError as error:  # noqa: PERF203
            raise type(error)(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    with console.status("Choosing what computes in int8"):
        return calibration.checkpoint()


def _is_input(path: Path) -> bool:
    return path.suffix.lower() in READABLE | MEL_FILES and not path.name.startswith(".")


def _input(path: Path, model: Vocoder | Codec) -> Tensor:
    if isinstance(model, Codec):
        wav, rate = read_audio(path)
        return resample(mono(wav)[None].expand(model.channels, -1), rate, model.sample_rate)
    item = read_input(path, model)
    if item.mel is not None:
        return item.mel
    assert item.wav is not None
    return model.mel(item.wav)
