"""What tests build once, for all workers and later runs: files in the user's cache, by what they were made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import ROOT

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastvoc-tests"
STALE = 14 * 24 * 3600  # seconds after which what nobody asked for is removed


def kept(name: str, made_of: Iterable[str | Path], make: Callable[[Path], object]) -> Path:
    """The file `name`, which `make(path)` writes unless it was made of the same before.

    `made_of`: texts, files, and folders, which stand for all files in them.
    """
    path = FOLDER / digest(made_of) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_name(f"{name}.lock")):
        if path.exists():
            os.utime(path.parent)
            return path
        _remove_stale(path.parent)
        partial = path.with_name(f"{name}.partial")
        make(partial)
        partial.replace(path)
    return path


def digest(made_of: Iterable[str | Path]) -> str:
    """A name for texts, files and whole folders, by their content."""
    found = hashlib.sha256()
    for part in made_of:
        if isinstance(part, str):
            found.update(f"text {part}\0".encode())
            continue
        for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(f"{path.relative_to(ROOT)}\0".encode())
                found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:24]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Inside a `with` block, one process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_stale(but: Path) -> None:
    for folder in FOLDER.iterdir():
        if folder != but and folder.stat().st_mtime < time.time() - STALE:
            shutil.rmtree(folder, ignore_errors=True)  # another worker may be at it
