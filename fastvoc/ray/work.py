"""What a worker does with rows: loads a model, checks a row, and makes the values of a batch of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DtypeError, shown
from fastvoc.loaded import LoadedModel
from fastvoc.loading import load_codec, load_vocoder
from fastvoc.vocoder import Vocoder

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, object]
_Kind = TypeVar("_Kind", Vocoder, Codec)


@dataclass(frozen=True)
class Source:
    """A model as workers load it: a name, path or hub id, or one that is loaded, with `load`'s options."""

    model: str | LoadedModel
    device: str = "cpu"
    dtype: str | None = None
    backend: str | None = None

    @classmethod
    def of(
        cls, model: str | os.PathLike[str] | LoadedModel, device: str, dtype: str | None, backend: str | None
    ) -> Source:
        """Paths are made absolute, as workers run elsewhere. Raises ArgumentError for options of a loaded model."""
        if isinstance(model, LoadedModel):
            if dtype is not None or backend is not None:
                raise ArgumentError("dtype, backend: only for a model that workers load, this one is loaded")
            return cls(model, device)
        if not isinstance(model, str | os.PathLike):
            raise DtypeError(f"model: expected a name, a path or a loaded model, got {shown(model)}")
        name = os.fspath(model)
        return cls(os.path.abspath(name) if os.path.exists(name) else name, device, dtype, backend)

    def facts(self) -> dict[str, object]:
        """What is told of it beside the rows that it made."""
        return {"model": str(self.model), "dtype": self.dtype or "as loaded"}

    def vocoder(self) -> Vocoder:
        """Raises LoadError for a codec, and what `load` raises."""
        if isinstance(self.model, LoadedModel):
            return self._moved(self.model, Vocoder)
        return load_vocoder(self.model, device=self.device, dtype=self.dtype, backend=self.backend)

    def codec(self) -> Codec:
        """Raises LoadError for a vocoder, and what `load` raises."""
        if isinstance(self.model, LoadedModel):
            return self._moved(self.model, Codec)
        return load_codec(self.model, device=self.device, dtype=self.dtype, backend=self.backend)

    def _moved(self, model: LoadedModel, kind: type[_Kind]) -> _Kind:
        if not isinstance(model, kind):
            raise ArgumentError(f"model: expected a {kind.__name__}, got {model}")
        return model if model.device == torch.device(self.device) else model.to(self.device)


@dataclass(frozen=True)
class Item:
    """A row that fits: its frames, what else the rows of a batch have in common, its values, and a warning or None."""

    length: int
    kind: Hashable
    values: tuple[Any, ...]
    warning: str | None = None


class Work(ABC):
    """A job's work on rows. It is made where the job begins, and loads its model where it runs."""

    column: str  # the one that is read and not kept

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Those that a row must have."""

    @abstractmethod
    def fields(self) -> list[tuple[str, pa.DataType]]:
        """The columns that are made."""

    @abstractmethod
    def load(self) -> None:
        """Loads the model."""

    @abstractmethod
    def item(self, row: Row) -> Item:
        """A row, checked. Raises FastvocError."""

    @abstractmethod
    def run(self, items: Sequence[Item]) -> list[dict[str, object]]:
        """The values of `fields` for items of one kind, as one batch."""

    @abstractmethod
    def duration(self, made: Mapping[str, object]) -> float:
        """Seconds of audio of a row."""

    def facts(self) -> dict[str, object]:
        """What a folder's rows have in common: two jobs that differ in these do not write into one folder."""
        return {"work": type(self).__name__}
