"""Training clips: lists and folders of audio, random segments, gain and speed variation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.runtime.values import wrong_values
from fastvoc.sound import audio
from fastvoc.sound.files import READABLE
from fastvoc.training.config import TrainConfig

SUFFIXES = tuple(sorted(READABLE | {".npy"}))
PEAK = 0.95
_QUIETER_DB = 10.0
_EQ_TAIL = 1024  # samples at either end, behind which a smooth filter has died away


def find_clips(source: str | Path) -> list[Path]:
    """The clips of a folder (all levels, sorted), or those that a text file lists, one path a line, relative to it.

    In a list, what follows a `|` is ignored, so that the published file lists of LJ Speech can be used; a name without
    suffix means `.wav`. Raises LoadError when there is none or one is missing.
    """
    source = Path(source)
    if source.is_dir():
        clips = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    elif source.is_file():
        names = [line.split("|")[0].strip() for line in source.read_text(encoding="utf-8").splitlines()]
        clips = [source.parent / (name if Path(name).suffix else f"{name}.wav") for name in names if name]
    else:
        raise LoadError(f"{source}: no such folder or list of clips")
    if not clips:
        raise LoadError(f"{source}: no clip found (suffixes {', '.join(SUFFIXES)})")
    for clip in clips:
        if not clip.is_file():
            raise LoadError(f"{clip}: listed, but not there")
    return clips


def read_clip(path: Path, sample_rate: int) -> Tensor:
    """A clip as mono float32 [L] at `sample_rate`. A `.npy` file holds samples [L] at that rate already.

    Raises LoadError for a clip without samples and for a `.npy` of another kind, DecodeError for unreadable audio.
    """
    clip = _read(path, sample_rate)
    if not len(clip):
        raise LoadError(f"{path}: a clip without samples")
    if wrong := wrong_values(clip):
        raise LoadError(f"{path}: {wrong} in a clip")
    return clip


def _read(path: Path, sample_rate: int) -> Tensor:
    if path.suffix.lower() == ".npy":
        samples = np.load(path, allow_pickle=False)
        if samples.ndim != 1 or samples.dtype not in (np.float32, np.int16):
            raise LoadError(f"{path}: expected float32 or int16 samples [L], got {samples.dtype} {list(samples.shape)}")
        scale = 32768.0 if samples.dtype == np.int16 else 1.0
        return torch.from_numpy(samples.astype(np.float32) / scale)
    wav, rate = audio.read_audio(path)
    return audio.resample(audio.mono(wav), rate, sample_rate).reshape(-1)


class Clips:
    """Training batches, each a pure function of the seed and its number, so that a resumed run draws the same ones.

    `part` (number, count): of every batch, only the items of one of `count` equal parts.
    """

    def __init__(self, paths: Sequence[Path], config: TrainConfig, part: tuple[int, int] = (0, 1)) -> None:
        if not paths:
            raise ArgumentError("paths: expected at least one training clip")
        if config.batch_size % part[1]:
            raise ArgumentError(f"part: a batch of {config.batch_size} cannot be cut into {part[1]} equal parts")
        self._config, self._part = config, part
        self._clips: list[list[Tensor]] = []
        for path in paths:
            wav = read_clip(path, config.sampling_rate)
            self._clips.append([_at_speed(wav, speed, config.sampling_rate) for speed in config.speeds])

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._clips) // self._config.batch_size)

    @property
    def seconds(self) -> float:
        """Length of all clips at their own speed."""
        return sum(len(versions[0]) for versions in self._clips) / self._config.sampling_rate

    def batch(self, number: int) -> Tensor:
        """Waveforms [batch_size / parts, 1, segment_size] of batch `number` (from 0, over all epochs)."""
        share = self._config.batch_size // self._part[1]
        begin = number * self._config.batch_size + self._part[0] * share
        items = []
        for position in range(begin, begin + share):
            epoch, place = divmod(position, len(self._clips))
            order = np.random.default_rng((self._config.seed, 0, epoch)).permutation(len(self._clips))
            items.append(self._segment(int(order[place]), np.random.default_rng((self._config.seed, 1, position))))
        return torch.stack(items)[:, None]

    def _segment(self, clip: int, random: np.random.Generator) -> Tensor:
        c = self._config
        wav = self._excerpt(clip, random)
        if c.eq_db:
            wav = equalised(wav, random, c.eq_db)
        if c.mixing and random.random() < c.mixing:
            other = self._excerpt(int(random.integers(len(self._clips))), random)
            wav = (wav + other * 10 ** (-random.uniform(0, _QUIETER_DB) / 20)) / 2
        return wav

    def _excerpt(self, clip: int, random: np.random.Generator) -> Tensor:
        size = self._config.segment_size
        versions = self._clips[clip]
        wav = versions[int(random.integers(len(versions)))]
        start = int(random.integers(max(1, len(wav) - size + 1)))
        segment = wav[start : start + size]
        gain = 10 ** (-random.uniform(0, self._config.gain_db) / 20) if self._config.gain_db else 1.0
        padded = torch.zeros(size, dtype=wav.dtype, device=wav.device)
        padded[: len(segment)] = segment * gain
        return padded


def equalised(wav: Tensor, random: np.random.Generator, most_db: float) -> Tensor:
    """Samples [L] through a zero-phase filter whose gain goes smoothly through seven random ones, up to +-`most_db`.

    The seven lie evenly on the logarithm of the frequency, from 1/128 of the Nyquist frequency on.
    """
    padded = len(wav) + 2 * _EQ_TAIL
    frequencies = np.arange(padded // 2 + 1) / (padded // 2)
    places = np.log2(np.maximum(frequencies, 2.0**-7)) + 7
    gains = np.interp(places, np.linspace(0, 7, 7), random.uniform(-most_db, most_db, 7))
    spectrum = torch.fft.rfft(torch.nn.functional.pad(wav, (_EQ_TAIL, _EQ_TAIL)))
    factors = torch.from_numpy(10 ** (gains / 20)).to(wav)
    filtered: Tensor = torch.fft.irfft(spectrum * factors, padded)
    return filtered[_EQ_TAIL : _EQ_TAIL + len(wav)]


def _at_speed(wav: Tensor, speed: float, sample_rate: int) -> Tensor:
    if speed != 1.0:
        wav = audio.resample(wav, round(sample_rate * speed), sample_rate)
    return wav * (PEAK / wav.abs().max().clamp(min=1e-5))
