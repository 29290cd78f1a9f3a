"""Audio files and streams: reading, writing, resampling, downmixing.

soundfile and soxr are imported by the functions that use them, so that models run where they are absent.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import torch

from fastvoc.errors import ArgumentError, DecodeError, DtypeError, ShapeError
from fastvoc.runtime.io import atomic_path
from fastvoc.sound.files import import_audio_package, open_blocks

_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def read_audio(source: str | os.PathLike[str] | BinaryIO) -> tuple[torch.Tensor, int]:
    """Decodes a file, or a binary file object such as a pipe, to its end.

    Returns float32 samples [channels, L] in -1..1 and the sample rate in Hz. Lengths, errors and warnings as
    `fastvoc.sound.files.open_blocks`: a file shorter than it declares is refused; a pipe gives what came.
    Raises DecodeError that names the source when it is missing, no audio, or shorter than its header says.
    """
    name = _name(source)
    try:
        with open_blocks(source, name) as sound:
            pieces = list(sound.pieces)
    except OSError as error:
        raise DecodeError(f"{name}: {error.strerror or error}") from error
    return torch.cat(pieces, 1) if pieces else torch.zeros(
        sound.channels, 0, dtype=torch.float32, device="cpu"
    ), sound.rate


def write_audio(
    target: str | os.PathLike[str] | BinaryIO, wav: torch.Tensor, sample_rate: int, *, float32: bool = False
) -> None:
    """Writes [L] or [channels, L] samples as 16-bit PCM (rounded, clamped to -1..1) or 32-bit float.

    A path ending in .wav or .flac is replaced at once when all data is there; a file object gets a WAV.
    Raises ArgumentError for another suffix, float32 FLAC, NaN or infinity; ShapeError or DtypeError for
    other tensors; OSError when the file cannot be written.
    """
    if not isinstance(target, (str, os.PathLike)):
        target.write(encode(wav, sample_rate, float32=float32))
        return
    data = encode(wav, sample_rate, suffix=Path(target).suffix, float32=float32)
    with atomic_path(target) as temporary:
        Path(temporary).write_bytes(data)


def encode(wav: torch.Tensor, sample_rate: int, *, suffix: str = ".wav", float32: bool = False) -> bytes:
    """The bytes of an audio file; arguments and errors as `write_audio`."""
    kind = _FORMATS.get(suffix.lower())
    if kind is None:
        raise ArgumentError(f"audio file suffix: expected one of {', '.join(_FORMATS)}, got {suffix!r}")
    if float32 and kind == "FLAC":
        raise ArgumentError("float32: a FLAC file holds integers; write a .wav")
    samples = wav.detach().float().cpu() if float32 else to_int16(wav)
    if float32 and not bool(samples.isfinite().all()):
        raise ArgumentError("wav: holds NaN or infinity")
    if samples.dim() not in (1, 2):
        raise ShapeError(f"wav: expected shape [L] or [channels, L], got {list(wav.shape)}")
    buffer = io.BytesIO()
    import_audio_package("soundfile").write(
        buffer, samples.t().numpy(), sample_rate, format=kind, subtype="FLOAT" if float32 else "PCM_16"
    )
    return buffer.getvalue()


def to_int16(wav: torch.Tensor) -> torch.Tensor:
    """Samples in -1..1 as int16 on the CPU: round(32767 x), clamped, so that full scale never wraps.

    Raises DtypeError for integers, ArgumentError for NaN or infinity.
    """
    if not isinstance(wav, torch.Tensor) or not wav.is_floating_point():
        got = wav.dtype if isinstance(wav, torch.Tensor) else type(wav).__name__
        raise DtypeError(f"wav: expected a floating-point tensor, got {got}")
    samples = wav.detach().float().cpu()
    if not bool(samples.isfinite().all()):
        raise ArgumentError("wav: holds NaN or infinity")
    return (samples.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16)


def resample(wav: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """Band-limited resampling by soxr of [L] or [channels, L] samples; equal rates return the same tensor.

    Raises ArgumentError for a rate that is not positive, ShapeError for another rank.
    """
    for name, rate in (("from_rate", from_rate), ("to_rate", to_rate)):
        if rate <= 0:
            raise ArgumentError(f"{name}: expected a positive rate in Hz, got {rate!r}")
    if wav.dim() not in (1, 2):
        raise ShapeError(f"wav: expected shape [L] or [channels, L], got {list(wav.shape)}")
    if from_rate == to_rate:
        return wav
    samples = wav.detach().float().cpu().t().contiguous().numpy()
    result = torch.from_numpy(import_audio_package("soxr").resample(samples, from_rate, to_rate, quality="HQ"))
    return result.t().contiguous().to(wav.device)


def mono(wav: torch.Tensor) -> torch.Tensor:
    """The mean over the channels: [channels, L] -> [L]; [L] as it is. Raises ShapeError or DtypeError for others."""
    if not wav.is_floating_point():
        raise DtypeError(f"wav: expected a floating-point tensor, got {wav.dtype}")
    if wav.dim() not in (1, 2) or 0 in wav.shape[:-1]:
        raise ShapeError(f"wav: expected shape [L] or [channels, L], got {list(wav.shape)}")
    return wav if wav.dim() == 1 else wav.mean(0)


def _name(source: str | os.PathLike[str] | BinaryIO) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "audio stream"))
