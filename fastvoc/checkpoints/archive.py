"""Zip and tar archives from untrusted sources: checked before anything is inflated, never unpacked to the disk."""

from __future__ import annotations

import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from fastvoc.checkpoints.checkpoint import refuse

# Deflated weights shrink to a tenth at best; a bomb shrinks to a thousandth.
_MAX_RATIO = 100
_SLACK_BYTES = 1 << 20
_MAX_BYTES = 4 << 30
_MAX_MEMBERS = 1 << 14

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, LookupError, RuntimeError, OSError)
TAR_ERRORS = (tarfile.TarError, EOFError, ValueError, OSError, OverflowError, MemoryError)


def _limit(stored: int) -> int:
    return min(stored * _MAX_RATIO + _SLACK_BYTES, _MAX_BYTES)


def _check_name(path: Path, name: str) -> None:
    if not name or name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or "\0" in name:
        raise refuse(path, f"archive member {name!r:.80} has no name or points outside the archive")


def zip_members(file: IO[bytes], path: Path) -> dict[str, int]:
    """Name and inflated size of every file in a zip. Raises LoadError for bombs, outside names and broken archives."""
    stored = file.seek(0, 2)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except ZIP_ERRORS as error:
        raise refuse(path, f"broken zip archive: {error}") from None
    finally:
        file.seek(0)
    if len(infos) > _MAX_MEMBERS:
        raise refuse(path, f"zip archive of {len(infos)} members, expected at most {_MAX_MEMBERS}")
    total = sum(info.file_size for info in infos)
    if total > _limit(stored):
        raise refuse(path, f"zip archive of {stored} bytes would inflate to {total}: refused as a zip bomb")
    for info in infos:
        _check_name(path, info.filename)
    return {info.filename: info.file_size for info in infos if not info.filename.endswith("/")}


@contextmanager
def zip_member(file: IO[bytes], path: Path, name: str, size: int) -> Iterator[IO[bytes]]:
    """A member of a zip that `zip_members` accepted, as a seekable file of exactly `size` bytes."""
    with tempfile.TemporaryFile() as inflated:
        try:
            with zipfile.ZipFile(file) as archive, archive.open(name) as member:
                _copy(member, inflated, size)
        except ZIP_ERRORS as error:
            raise refuse(path, f"archive member {name!r}: {error}") from None
        yield inflated


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> None:
    total = 0
    while block := source.read(1 << 20):
        total += len(block)
        if total > limit:
            raise ValueError(f"more than {limit} bytes come out of it")
        target.write(block)
    target.seek(0)


@contextmanager
def open_tar(path: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
    """A tar or tar.gz and its plain files by name, a leading `./` removed.

    Raises LoadError for links, devices, outside names, members larger than the archive, bombs and broken archives.
    """
    with _plain_tar(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
                members = dict(_tar_members(archive, path, size))
            except TAR_ERRORS as error:
                raise refuse(path, f"broken tar archive: {error}") from None
            yield archive, members


def _tar_members(archive: tarfile.TarFile, path: Path, size: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for count, info in enumerate(archive):
        if count >= _MAX_MEMBERS:
            raise refuse(path, f"tar archive of more than {_MAX_MEMBERS} members")
        _check_name(path, info.name)
        if not (info.isfile() or info.isdir()) or info.issparse():
            raise refuse(path, f"archive member {info.name!r:.80} is neither a file nor a folder")
        if info.offset_data + info.size > size:
            raise refuse(path, f"archive member {info.name!r:.80} ends beyond the archive: truncated")
        if info.isfile():
            yield str(PurePosixPath(info.name)), info


@contextmanager
def _plain_tar(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            yield file
            return
        file.seek(0)
        limit, total = _limit(path.stat().st_size), 0
        inflate = zlib.decompressobj(wbits=31)
        with tempfile.TemporaryFile() as inflated:
            try:
                while (block := inflate.unconsumed_tail or file.read(1 << 16)) and not inflate.eof:
                    piece = inflate.decompress(block, 1 << 20)
                    total += len(piece)
                    if total > limit:
                        raise refuse(path, f"inflates to more than {limit} bytes: refused as a bomb")
                    inflated.write(piece)
            except zlib.error as error:
                raise refuse(path, f"broken gzip data: {error}") from None
            inflated.seek(0)
            yield inflated
