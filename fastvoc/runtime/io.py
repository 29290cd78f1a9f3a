"""Files: writing them so that a reader never sees half of one, and their checksums."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastvoc.errors import LoadError


def given_path(name: str | os.PathLike[str]) -> Path:
    """The path that a caller gave. Raises LoadError for a blank text, which would stand for the current folder."""
    if isinstance(name, str) and not name.strip():
        raise LoadError(f"name: expected a name or a path, got {name!r}")
    return Path(name)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` on success and removes it on failure.

    Until the rename, whatever was at `path` stays untouched. The temporary name keeps the suffix of `path`.
    Raises OSError when the folder does not exist or cannot be written to.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    # Created here, and only if it is new: an unwritable folder shows before any work is done.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave an empty file under the final name
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError when it cannot be read."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
