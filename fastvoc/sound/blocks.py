"""Sound of any length in pieces: fitting it to a model's rate and channels, writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError
from fastvoc.runtime.io import atomic_path
from fastvoc.sound.audio import to_int16
from fastvoc.sound.files import AudioBlocks, import_audio_package
from fastvoc.sound.pcm import StreamResampler

_LARGEST_WAV = (1 << 32) - 1024
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def fit(sound: AudioBlocks, rate: int, channels: int) -> tuple[Iterator[Tensor], list[str]]:
    """The sound at another rate and with 1 or 2 channels, [channels, n], and what that took, in words."""
    notes = []
    mixed, doubled = channels != sound.channels and (channels == 1 or sound.channels > 2), False
    if mixed:
        notes.append(f"{sound.channels} channels mixed to one")
    if channels == 2 and (mixed or sound.channels == 1):
        doubled = True
        notes.append("one channel used for both")
    if rate != sound.rate:
        notes.append(f"resampled from {sound.rate} to {rate} Hz")

    def pieces() -> Iterator[Tensor]:
        kept = 1 if mixed else sound.channels
        resampler = StreamResampler(sound.rate, rate, kept)
        for wav in sound.pieces:
            one = wav.mean(0, keepdim=True) if mixed else wav
            yield _doubled(resampler.push(one), doubled)
        yield _doubled(resampler.push(torch.zeros(kept, 0, dtype=torch.float32, device="cpu"), last=True), doubled)

    return pieces(), notes


def _doubled(wav: Tensor, wanted: bool) -> Tensor:
    return wav.expand(2, -1) if wanted else wav


@contextmanager
def write_blocks(
    target: Path | BinaryIO, rate: int, channels: int, samples: int | None, *, float32: bool = False
) -> Iterator[Callable[[Tensor], None]]:
    """Gives a function that writes pieces [channels, n]: 16-bit samples, rounded and clamped, or 32-bit float ones.

    A path ending in .wav or .flac is replaced at once when the block is left without an error. A file object gets a
    WAV, whose header does not say how long it is when `samples` is None.
    Raises ArgumentError for another suffix, float32 FLAC, NaN, infinity, and more than a WAV file can hold.
    """
    width = 4 if float32 else 2
    if not isinstance(target, Path):
        size = None if samples is None else samples * channels * width
        target.write(_wav_header(rate, channels, size, float32=float32))

        def write(wav: Tensor) -> None:
            target.write(_samples(wav, float32).numpy().tobytes())

        yield write
        return
    kind = _FORMATS.get(target.suffix.lower())
    if kind is None or (float32 and kind == "FLAC"):
        raise ArgumentError(
            f"OUT: expected a name that ends in .wav{'' if float32 else ' or .flac'}, got {target.name!r}"
        )
    soundfile = import_audio_package("soundfile")
    subtype = "FLOAT" if float32 else "PCM_16"
    written = 0
    with (
        atomic_path(target) as temporary,
        soundfile.SoundFile(temporary, "w", rate, channels, subtype, format=kind) as file,
    ):

        def write_file(wav: Tensor) -> None:
            nonlocal written
            written += wav.shape[1] * channels * width
            if kind == "WAV" and written > _LARGEST_WAV:
                raise ArgumentError(f"OUT: a WAV file holds 4 GB at most; give {target.with_suffix('.flac').name}")
            try:
                file.write(_samples(wav, float32).numpy())
            except soundfile.LibsndfileError as error:
                raise OSError(f"{target}: {error.error_string}") from error

        yield write_file


def _samples(wav: Tensor, float32: bool) -> Tensor:
    """[channels, n] as it is stored, [n, channels]."""
    if not float32:
        return to_int16(wav).T.contiguous()
    if not bool(wav.isfinite().all()):
        raise ArgumentError("wav: holds NaN or infinity")
    return wav.float().T.contiguous()


def _wav_header(rate: int, channels: int, size: int | None, *, float32: bool) -> bytes:
    known = size is not None and size <= _LARGEST_WAV
    width, kind = (4, 3) if float32 else (2, 1)

    def number(value: int, length: int = 4) -> bytes:
        return value.to_bytes(length, "little")

    whole = size if known and size is not None else 0xFFFFFFFF - 36
    return b"".join(
        (
            b"RIFF" + number(36 + whole) + b"WAVEfmt " + number(16) + number(kind, 2) + number(channels, 2),
            number(rate) + number(rate * channels * width) + number(channels * width, 2) + number(8 * width, 2),
            b"data" + number(whole if known else 0xFFFFFFFF),
        )
    )
