"""What `encode` and `decode` share: a check of the input, sound in pieces, a bar over them, standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from fastvoc.errors import ArgumentError, DecodeError
from fastvoc.runtime.values import are_wrong, wrong_values
from fastvoc.sound.blocks import fit
from fastvoc.sound.files import AudioBlocks, open_blocks


def check_input(source: str) -> None:
    """Raises DecodeError for what is neither a file, nor a pipe, nor -."""
    if source != "-" and (not Path(source).exists() or Path(source).is_dir()):
        raise DecodeError(f"IN: {source}: {'a folder, not a file' if Path(source).is_dir() else 'no such file'}")


def incoming(
    stack: ExitStack, source: str, rate: int, channels: Callable[[int], int]
) -> tuple[AudioBlocks, Iterator[Tensor]]:
    """The sound of a file, or of standard input for -, open until the stack ends, and its pieces at another rate.

    `channels(n)` are wanted of n; what the change took is said on standard error. Values that no sound has, and none at
    all, raise an ArgumentError that names the input.
    """
    name = "standard input" if source == "-" else source
    sound = stack.enter_context(open_blocks(standard_input() if source == "-" else Path(source)))
    pieces, notes = fit(sound, rate, channels(sound.channels))
    if notes:
        typer.echo(f"{name}: {', '.join(notes)}", err=True)
    return sound, _good(pieces, name, rate)


def _good(pieces: Iterable[Tensor], name: str, rate: int) -> Iterator[Tensor]:
    given = 0
    for piece in pieces:
        if wrong := wrong_values(piece):
            at = given + int(are_wrong(piece).any(0).nonzero()[0])
            raise ArgumentError(f"{name}: {wrong} at {at / rate:.3f} s")
        given += piece.shape[1]
        yield piece
    if not given:
        raise ArgumentError(f"{name}: holds no samples")


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

    def __init__(self, file: BinaryIO) -> None:
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


def standard_output() -> BinaryIO:
    """Where bytes go for `-`."""
    return sys.stdout.buffer


def standard_input() -> BinaryIO:
    """Where bytes come from for `-`."""
    return sys.stdin.buffer


def language_model_folder(model: str) -> Path | None:
    """Where a language model may lie beside a codec that was given as a file or folder."""
    path = Path(model)
    return path if path.is_dir() else path.parent if path.is_file() else None
