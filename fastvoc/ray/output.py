"""Where a job's rows go: Parquet or audio files in a folder that all workers see, each there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

from fastvoc.errors import ArgumentError, DecodeError, FastvocError, shown
from fastvoc.ray.columns import floats
from fastvoc.runtime.io import atomic_path, create
from fastvoc.sound.audio import encode

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("parquet", "wav", "flac")
FAILED = "_failed"
_FACTS = "_fastvoc.json"


@dataclass(frozen=True)
class Output:
    """A folder for one job's rows, by the column `key`; `float32` writes 32-bit samples into WAV.

    A row is there once its file is. Parquet files are named by the rows that they were made of, so that a block that a
    lost worker had written before is written again under its own name; audio files are named by their row's id.
    """

    folder: Path
    key: str
    format: str
    float32: bool = False
    token: str = ""

    def begin(self, facts: Mapping[str, object]) -> Output:
        """The folder, made ready for a job whose facts these are; failures of earlier jobs in it are forgotten.

        Raises ArgumentError for no such format, a file in the folder's place, a folder that has other things in it, or
        the rows of a job with other facts.
        """
        if self.format not in FORMATS:
            raise ArgumentError(f"format: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.float32 and self.format != "wav":
            raise ArgumentError(f"float32: of .wav files, not of {self.format}")
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(f"output: expected a folder, {self.folder} is a file")
        own = {**facts, "format": self.format, "float32": self.float32, "id": self.key}
        text = json.dumps(own, indent=1, sort_keys=True)
        stated = self.folder / _FACTS
        if stated.exists():
            _compare(stated, own)
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise ArgumentError(f"output: expected a new or empty folder or one of an earlier job, got {self.folder}")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(stated) as temporary:
                temporary.write_text(text + "\n")
        for pattern in (f"{FAILED}/*.parquet", ".part-*.parquet"):  # the latter of workers that were lost
            for old in self.folder.glob(pattern):
                old.unlink()
        made = Output(self.folder, self.key, self.format, self.float32, secrets.token_hex(8))
        made._mark.write_text("a job writes here\n")
        return made

    def end(self) -> None:
        """The job is over."""
        self._mark.unlink(missing_ok=True)

    @property
    def _mark(self) -> Path:
        return self.folder / f".{self.token}.job"

    def check(self) -> None:
        """Raises FastvocError in a worker that does not see the folder of the job."""
        if not self._mark.exists():
            raise FastvocError(f"output: {self.folder} on this node is not the folder that the job began with")

    def written(self) -> pa.Array | None:
        """The ids in the Parquet files that are there; None for audio files, which `there` looks for one by one."""
        if self.format != "parquet":
            return None
        import pyarrow as pa

        chunks = []
        for path in sorted(self.folder.glob("part-*.parquet")):
            chunks += _read_ids(path, self.key)
        return pa.concat_arrays(chunks) if chunks else None

    def there(self, ids: pa.ChunkedArray, written: pa.Array | None) -> list[bool]:
        """Which rows were written by an earlier job. What this one wrote is made and written again."""
        if self.format == "parquet":
            import pyarrow.compute as pc

            if written is None:
                return [False] * len(ids)
            found: list[bool] = pc.is_in(ids, value_set=written.cast(ids.type)).to_pylist()
            return found
        began = self._mark.stat().st_mtime_ns
        return [self._older(name, began) for name in ids.to_pylist()]

    def _older(self, name: object, began: int) -> bool:
        try:
            return self.place(name).stat().st_mtime_ns < began
        except (FastvocError, OSError):
            return False

    def place(self, name: object) -> Path:
        """The audio file of a row. Raises ArgumentError for an id that is no name of a file inside the folder."""
        text = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
        if not isinstance(text, str) or not text or "\0" in text or "\\" in text:
            raise ArgumentError(f"{self.key}: expected a text or a whole number, got {shown(name)}")
        inner = PurePosixPath(text)
        parts = text.split("/")
        if inner.is_absolute() or any(part in ("", ".", "..") or part.startswith((".", "_")) for part in parts):
            raise ArgumentError(f"{self.key}: expected a name of a file inside the output, got {shown(name)}")
        return self.folder.joinpath(*parts[:-1], f"{parts[-1]}.{self.format}")

    def check_id(self, name: object) -> str:
        """A row's id as a text. Raises ArgumentError for one that cannot be kept."""
        if self.format != "parquet":
            self.place(name)
        elif name is None or isinstance(name, float):
            raise ArgumentError(f"{self.key}: expected a text or a whole number, got {shown(name)}")
        return str(name)

    def sound(self, name: str, wav: object, rate: int) -> None:
        """Writes the audio file of a row. Raises ArgumentError where this job has another sound there, and leaves that.

        The same one is there when a worker was lost after it had written it.
        """
        place = self.place(name)
        samples = torch.from_numpy(floats(wav, "wav"))
        data = encode(samples, rate, suffix=place.suffix, float32=self.float32)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not create(place, data) and place.read_bytes() != data:
            raise ArgumentError(f"{self.key}: {name!r} comes twice, with another sound; the first one is kept")

    def write(self, good: pa.Table, bad: pa.Table, given: pa.Table) -> None:
        """Writes what a block of rows gave: the rows that were made, as Parquet, and those that failed with `error`."""
        part = f"part-{_digest(given)}.parquet"
        if self.format == "parquet" and good.num_rows:
            _write_table(good, self.folder / part)
        failed = self.folder / FAILED / part
        if bad.num_rows:
            failed.parent.mkdir(exist_ok=True)
            _write_table(bad, failed)
        else:
            failed.unlink(missing_ok=True)  # of a worker that was lost


def _digest(table: pa.Table) -> str:
    """Of the rows of a block: the same for one that is made again, another for other rows of the same ids."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]


def _read_ids(path: Path, key: str) -> list[pa.Array]:
    """A column of a Parquet file. Raises DecodeError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        chunks: list[pa.Array] = pq.read_table(path, columns=[key]).column(0).chunks
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(f"{path}: no Parquet file of a job, or damaged ({error})") from None
    return chunks


def _write_table(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(table, os.fspath(temporary))


def _compare(path: Path, own: Mapping[str, object]) -> None:
    """Raises ArgumentError where a folder's rows are of another job."""
    try:
        stated = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArgumentError(f"output: {path} is damaged ({error})") from None
    if not isinstance(stated, dict):
        raise ArgumentError(f"output: {path} is damaged: no table of facts")
    plain = json.loads(json.dumps(own))
    for name in sorted({*stated, *plain}):
        if stated.get(name) != plain.get(name):
            raise ArgumentError(
                f"output: {path.parent} has rows made with {name} {shown(stated.get(name))}, not "
                f"{shown(plain.get(name))}; give another folder"
            )
