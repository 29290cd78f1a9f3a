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


def create(path: Path, data: bytes) -> bool:
    """Writes a new file, there whole or not at all; False, and nothing is changed, where one is there already.

    Of several that write at once one succeeds, on file systems that have links. Raises OSError as `atomic_path`.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            if path.exists():
                return False
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError when it cannot be read."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
