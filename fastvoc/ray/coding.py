"""Waveforms of rows to codes, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ray.columns import array, floats, whole
from fastvoc.ray.work import Item, Row, Source, Work
from fastvoc.runtime.values import wrong_values
from fastvoc.sound.audio import mono, resample

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Encoding(Work):
    """Waveforms [S] or [C, S] to codes; `rate` is a column of their sample rates, where they are not the codec's."""

    source: Source
    column: str = "wav"
    rate: str | None = None
    bandwidth: float | None = None
    codebooks: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.rate is None else (self.column, self.rate)

    def fields(self) -> list[tuple[str, pa.DataType]]:
        import pyarrow as pa

        scale = pa.list_(pa.float32())
        rows = pa.large_list(pa.large_list(pa.uint16()))
        return [("codes", rows), ("scale", scale), ("samples", pa.int64()), ("sample_rate", pa.int32())]

    def load(self) -> None:
        self.codec = self.source.codec()
        self.codec.codebooks(self.bandwidth, self.codebooks)

    def item(self, row: Row) -> Item:
        wav = torch.from_numpy(floats(row[self.column], self.column))
        if self.rate is not None and (rate := whole(row[self.rate], self.rate)) != self.codec.sample_rate:
            wav = resample(mono(wav) if self.codec.channels == 1 else wav, rate, self.codec.sample_rate)
        wav = self.codec.check_wav(wav.to(self.codec.device))
        if wrong := wrong_values(wav):
            raise ArgumentError(f"{self.column}: holds {wrong}")
        return Item(-(-wav.shape[1] // self.codec.hop), None, (wav,))

    def run(self, items: Sequence[Item]) -> list[dict[str, object]]:
        wavs = [item.values[0] for item in items]
        sizes = [wav.shape[1] for wav in wavs]
        batch = wavs[0].new_zeros((len(wavs), self.codec.channels, max(sizes)))
        for line, wav in zip(batch, wavs, strict=True):
            line[:, : wav.shape[1]] = wav
        made = self.codec.encode(batch, self.bandwidth, sizes, codebooks=self.codebooks, check=False)
        return [self._row(made.segments, made.scale, i, size) for i, size in enumerate(sizes)]

    def _row(self, segments: tuple[Tensor, ...], scale: Tensor | None, i: int, size: int) -> dict[str, object]:
        frames = self.codec.config.frames(size)
        codes = torch.cat([segment[i, :, :count] for segment, count in zip(segments, frames, strict=False)], 1)
        volumes = None if scale is None else scale[i, : len(frames)].cpu().numpy()
        rows = list(codes.cpu().numpy().astype(np.uint16))
        return {"codes": rows, "scale": volumes, "samples": size, "sample_rate": self.codec.sample_rate}

    def duration(self, made: Mapping[str, object]) -> float:
        return whole(made["samples"], "samples") / self.codec.sample_rate

    def facts(self) -> dict[str, object]:
        wanted = {"bandwidth": self.bandwidth, "codebooks": self.codebooks}
        return {**super().facts(), **self.source.facts(), **wanted}


@dataclass
class Decoding(Work):
    """Codes [K, T] to waveforms; `scale` and `samples` are the columns that `Encoding` makes, where there are any."""

    source: Source
    column: str = "codes"
    scale: str | None = None
    samples: str | None = None
    seed: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *(name for name in (self.scale, self.samples) if name is not None))

    def fields(self) -> list[tuple[str, pa.DataType]]:
        import pyarrow as pa

        wav = pa.large_list(pa.float32()) if self.codec.channels == 1 else pa.large_list(pa.large_list(pa.float32()))
        return [("wav", wav), ("sample_rate", pa.int32())]

    def load(self) -> None:
        self.codec = self.source.codec()
        self.codec.check_decode_inputs({} if self.seed is None else {"seed": self.seed})

    def item(self, row: Row) -> Item:
        value = array(row[self.column], self.column)
        if value.dtype.kind not in "iu" or value.ndim != 2 or not value.size:
            form = f"whole numbers [K, T], T > 0, got {value.dtype} {list(value.shape)}"
            raise (ShapeError if value.dtype.kind in "iu" else DtypeError)(f"{self.column}: expected {form}")
        codes = torch.from_numpy(value.astype(np.int64)).to(self.codec.device)
        volumes = None
        if self.scale is not None and row[self.scale] is not None:
            volumes = torch.from_numpy(floats(row[self.scale], self.scale)).to(codes.device)
        samples = None if self.samples is None else whole(row[self.samples], self.samples)
        frames = [codes.shape[1]] if samples is None else self._frames(samples, codes.shape[1])
        segments = list(codes.split(frames, 1))
        own = None if volumes is None else volumes[None]
        self.codec.checked(_given([part[None] for part in segments]), own, None if samples is None else [samples])
        kind = len(codes), volumes is None, None if samples is not None else codes.shape[1]
        return Item(codes.shape[1], kind, (segments, volumes, samples))

    def _frames(self, samples: int, got: int) -> list[int]:
        if samples < 1:
            raise ArgumentError(f"{self.samples}: expected 1 or more, got {samples}")
        frames = self.codec.config.frames(samples)
        if sum(frames) != got:
            raise ShapeError(f"{self.column}: {samples} samples have {sum(frames)} frames of codes, got {got}")
        return frames

    def run(self, items: Sequence[Item]) -> list[dict[str, object]]:
        most = max(items, key=lambda item: len(item.values[0])).values[0]
        batch = []
        for place in range(len(most)):
            parts = [item.values[0][place] if place < len(item.values[0]) else None for item in items]
            longest = max(part.shape[1] for part in parts if part is not None)
            segment = most[0].new_zeros((len(items), len(most[0]), longest))
            for line, part in zip(segment, parts, strict=True):
                if part is not None:
                    line[:, : part.shape[1]] = part
            batch.append(segment)
        volumes = None
        if items[0].values[1] is not None:
            volumes = items[0].values[1].new_ones((len(items), len(most)))
            for line, item in zip(volumes, items, strict=True):
                line[: len(item.values[1])] = item.values[1]
        sizes = None if items[0].values[2] is None else [item.values[2] for item in items]
        wavs = self.codec.decode(_given(batch), volumes, sizes, seed=self.seed, check=False).cpu().numpy()
        found = []
        for i in range(len(items)):
            wav = wavs[i] if sizes is None else wavs[i, :, : sizes[i]]
            sound = wav[0] if self.codec.channels == 1 else list(wav)
            found.append({"wav": sound, "sample_rate": self.codec.sample_rate})
        return found

    def duration(self, made: Mapping[str, object]) -> float:
        wav = made["wav"]
        return len(wav if isinstance(wav, np.ndarray) else wav[0]) / self.codec.sample_rate  # type: ignore[index]

    def facts(self) -> dict[str, object]:
        return {**super().facts(), **self.source.facts(), "seed": self.seed}


def _given(segments: list[Tensor]) -> Tensor | list[Tensor]:
    """Segments as a codec takes them: of a list with one, a codec of several rates would think that it is a level."""
    return segments[0] if len(segments) == 1 else segments
