"""Mels of rows to waveforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import DtypeError, ShapeError, shown
from fastvoc.ray.columns import array, floats
from fastvoc.ray.work import Item, Row, Source, Work

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Vocoding(Work):
    """Mels [n_mels, T] to waveforms; `inputs` are columns by the model's own names, `options` values for all rows."""

    source: Source
    column: str = "mel"
    inputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *self.inputs.values())

    def fields(self) -> list[tuple[str, pa.DataType]]:
        import pyarrow as pa

        return [("wav", pa.large_list(pa.float32())), ("sample_rate", pa.int32())]

    def load(self) -> None:
        self.voc = self.source.vocoder()

    def item(self, row: Row) -> Item:
        mel = torch.from_numpy(floats(row[self.column], self.column)).to(self.voc.device)
        if mel.dim() == 3 and len(mel) == 1:
            mel = mel[0]
        if mel.dim() != 2:
            raise ShapeError(f"{self.column}: expected a mel [{self.voc.n_mels}, T], got {list(mel.shape)}")
        problem = self.voc.examine(mel)
        further = {name: _input(row[column], column) for name, column in self.inputs.items()}
        kind = tuple((name, value.dtype, value.shape[:-1]) for name, value in further.items())
        return Item(mel.shape[1], kind, (mel, further), None if problem is None else f"the mel looks {problem}")

    def run(self, items: Sequence[Item]) -> list[dict[str, object]]:
        further: dict[str, Any] = dict(self.options)
        for name in self.inputs:
            further[name] = _batch([item.values[1][name] for item in items]).to(self.voc.device)
        wavs = self.voc.each([item.values[0] for item in items], check=False, **further)
        return [{"wav": wav.cpu().numpy(), "sample_rate": self.voc.sample_rate} for wav in wavs]

    def duration(self, made: Mapping[str, object]) -> float:
        wav = made["wav"]
        assert isinstance(wav, np.ndarray)
        return len(wav) / self.voc.sample_rate

    def facts(self) -> dict[str, object]:
        options = {name: shown(value) for name, value in sorted(self.options.items())}
        return {
            **super().facts(),
            **self.source.facts(),
            "inputs": dict(sorted(self.inputs.items())),
            "options": options,
        }


def _input(value: object, name: str) -> Tensor:
    """One of the model's further inputs of a row: a number or an array, as float32 or int64."""
    if isinstance(value, bool) or value is None:
        raise DtypeError(f"{name}: expected a number or an array, got {value!r}")
    plain = np.asarray(value) if isinstance(value, int | float | np.number) else array(value, name)
    kind = np.float32 if plain.dtype.kind == "f" else np.int64
    return torch.from_numpy(np.array(plain, kind, order="C"))


def _batch(values: Sequence[Tensor]) -> Tensor:
    """[B, ...]; the last axis, which may be of frames, filled up with zeros."""
    if not values[0].dim():
        return torch.stack(list(values))
    longest = max(value.shape[-1] for value in values)
    return torch.stack([torch.nn.functional.pad(value, (0, longest - value.shape[-1])) for value in values])
