"""Audio files and streams: reading, writing, resampling, downmixing.

soundfile and soxr are imported by the functions that use them, so that models run where they are absent.
"""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import torch

from fastvoc.errors import ArgumentError, DecodeError, DtypeError, FastvocError, ShapeError
from fastvoc.io import atomic_path

READABLE = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"})
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_BLOCK = 1 << 16
_UNKNOWN_SIZE = 0x7FFFF000  # smallest size that writers to pipes put where they do not know the length


def read_audio(source: str | os.PathLike[str] | BinaryIO) -> tuple[torch.Tensor, int]:
    """Decodes a file, or a binary file object such as a pipe, to its end.

    Returns float32 samples [channels, L] in -1..1 and the sample rate in Hz. A WAV whose header does not
    know its length, as written to a pipe, is read up to the end of the data.
    Raises DecodeError that names the source when it is missing, no audio, or shorter than its header says.
    """
    soundfile = import_audio_package("soundfile")
    name = _name(source)
    try:
        data = _read_all(source)
    except OSError as error:
        raise DecodeError(f"{name}: {error.strerror or error}") from error
    data = _with_known_length(data, name)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            blocks = []
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(torch.from_numpy(block))
            declared, rate, channels = file.frames, file.samplerate, file.channels
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"{name}: {error.error_string}") from error
    wav = torch.cat(blocks).t().contiguous() if blocks else torch.zeros(channels, 0, dtype=torch.float32, device="cpu")
    if wav.shape[1] < declared < 1 << 62:
        raise DecodeError(f"{name}: the file ends after {wav.shape[1]} of {declared} samples")
    return wav, rate


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
    """The mean over the channels: [channels, L] -> [L]; [L] as it is. Raises ShapeError for another rank."""
    if wav.dim() not in (1, 2) or 0 in wav.shape[:-1]:
        raise ShapeError(f"wav: expected shape [L] or [channels, L], got {list(wav.shape)}")
    return wav if wav.dim() == 1 else wav.mean(0)


def _with_known_length(data: bytes, name: str) -> bytes:
    """Puts the true sizes into a WAV whose writer did not know them; DecodeError for a truncated one."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return data
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] != b"data":
            position += 8 + size + size % 2
            continue
        present = len(data) - position - 8
        riff_end = int.from_bytes(data[4:8], "little") + 8
        if (size >= _UNKNOWN_SIZE and size > present) or (size == 0 and riff_end < len(data)):
            head = b"RIFF" + (len(data) - 8).to_bytes(4, "little") + data[8 : position + 4]
            return head + present.to_bytes(4, "little") + data[position + 8 :]
        if size > present:
            raise DecodeError(f"{name}: the file ends after {present} of {size} bytes of samples")
        return data
    raise DecodeError(f"{name}: the WAV file has no complete data chunk")


def _read_all(source: str | os.PathLike[str] | BinaryIO) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    parts = []
    while part := source.read(_BLOCK):
        parts.append(part)
    return b"".join(parts)


def _name(source: str | os.PathLike[str] | BinaryIO) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "audio stream"))


def import_audio_package(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: the C library that soundfile binds is absent
        raise FastvocError(f"audio needs the package {package} ({error}): pip install {package}") from error
