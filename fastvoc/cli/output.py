"""Where a command writes: the file that OUT means, and whether it may be written."""

from __future__ import annotations

import os
from pathlib import Path

from fastvoc.errors import ArgumentError


def output_path(source: str, target: str, suffixes: tuple[str, ...], *, force: bool) -> Path | None:
    """The file to write, None for standard output; a folder gets a file named like the input.

    Raises ArgumentError for another suffix, a folder that does not exist, and a file that exists without `force`.
    """
    if target == "-":
        return None
    path = Path(target)
    if path.is_dir():
        if source == "-":
            raise ArgumentError(f"OUT: {target} is a folder; give a file name for what comes from -")
        path = path / f"{Path(source).stem}{suffixes[0]}"
    check_file("OUT", path, suffixes, force=force)
    return path


def check_file(name: str, path: Path, suffixes: tuple[str, ...], *, force: bool) -> None:
    """Raises ArgumentError, which begins with `name`, for a file that cannot or must not be written."""
    if path.suffix.lower() not in suffixes:
        raise ArgumentError(f"{name}: expected a name that ends in {' or '.join(suffixes)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise ArgumentError(f"{name}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise ArgumentError(f"{name}: {path} is a folder, expected a file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ArgumentError(f"{name}: the folder {path.parent} cannot be written to")
    if path.exists() and not force:
        raise ArgumentError(f"{name}: {path} exists; --force replaces it")
