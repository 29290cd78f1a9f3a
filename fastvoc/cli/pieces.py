"""What `encode` and `decode` share: a check of the input, a progress bar over pieces of sound, words about speed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from fastvoc.errors import DecodeError


def check_input(source: str) -> None:
    """Raises DecodeError for what is neither a file, nor a pipe, nor -."""
    if source != "-" and (not Path(source).exists() or Path(source).is_dir()):
        raise DecodeError(f"IN: {source}: {'a folder, not a file' if Path(source).is_dir() else 'no such file'}")


@contextmanager
def progress(pieces: Iterable[Tensor], name: str, rate: int, seconds: float | None) -> Iterator[Iterator[Tensor]]:
    """The same pieces [C, n], with a bar on a terminal: seconds of sound done, of so many if they are known."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} s"))
    shown: Any = {"console": console, "transient": True, "disable": not console.is_terminal}
    with Progress(*columns, TimeRemainingColumn(), **shown) as bar:
        task = bar.add_task(name, total=seconds)

        def counted() -> Iterator[Tensor]:
            for piece in pieces:
                yield piece
                bar.advance(task, piece.shape[1] / rate)

        yield counted()


class Counted:
    """A binary file object to write to, and the number of bytes that went into it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.count = 0

    def write(self, data: bytes) -> int:
        """Writes all of it."""
        self._file.write(data)
        self.count += len(data)
        return len(data)

    def flush(self) -> None:
        """Lets it go."""
        self._file.flush()


def standard_output() -> Any:
    """Where bytes go for `-`."""
    return sys.stdout.buffer


def standard_input() -> Any:
    """Where bytes come from for `-`."""
    return sys.stdin.buffer


def language_model_folder(model: str) -> Path | None:
    """Where a language model may lie beside a codec that was given as a file or folder."""
    path = Path(model)
    return path if path.is_dir() else path.parent if path.is_file() else None
