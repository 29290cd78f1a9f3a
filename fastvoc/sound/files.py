"""Sound from files and pipes, in pieces of any length: which formats there are, and how much sound came."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from fastvoc.errors import AudioWarning, DecodeError, FastvocError
from fastvoc.sound.pcm import OtherSound, PcmReader, is_seekable, warn_early_end

# What soundfile reads, by its names, and the suffixes that mean sound and nothing else. The content decides, not these.
FORMATS = {
    "WAV": (".wav", ".wave"),
    "RF64": (".rf64",),
    "W64": (".w64",),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3", ".mp2"),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
}
READABLE = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_BLOCK = 1 << 16
_IN_MEMORY = 1 << 26
_NO_LENGTH = 1 << 62  # from here on a length says that nobody knows it
_AIFF_UNKNOWN = 0x7F000000  # what sox writes to a pipe, and above


@dataclass(frozen=True)
class AudioBlocks:
    """A sound in pieces [channels, n], float32 in -1..1; `samples` of each channel, None when nobody knows."""

    rate: int
    channels: int
    samples: int | None
    pieces: Iterator[Tensor]


@contextmanager
def open_blocks(source: str | os.PathLike[str] | BinaryIO, name: str = "standard input") -> Iterator[AudioBlocks]:
    """Opens a file, or a binary file object such as a pipe; WAV comes as it arrives, other formats are stored first.

    The pieces are the samples of one read of it all, bit for bit. MP3 is read to its end, whatever length is estimated
    for it; sound behind the end that its header declares gives an AudioWarning, and so does Ogg without a last page.
    Raises DecodeError that names the source (a file object by `name`), here or on the way, when it is no audio or
    shorter than it declares. A pipe that is shorter gives its sound and an AudioWarning that names both lengths, or
    none where the declared one only stands in for a length that the writer did not know. What its decoder takes for
    broken, as FLAC cut within a frame, raises from a pipe too; an MP3 without a header's length cannot be told cut.
    """
    with ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            name = os.fspath(source)
            try:
                source = stack.enter_context(Path(source).open("rb"))
            except OSError as error:
                raise DecodeError(f"{name}: {error.strerror or error}") from error
        file = _Recorder(source)
        try:
            reader = PcmReader(file, mix=False, name=name)  # type: ignore[arg-type]
        except OtherSound as other:
            start, end = other.start, other.end
        else:
            file.stop()
            yield AudioBlocks(reader.format.rate, reader.format.channels, reader.left, iter(reader))
            return
        # The library of formats wants to move about in the file, and hides errors of reading.
        store = stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY))
        store.write(file.stop())
        shutil.copyfileobj(source, store)
        piped, total = not is_seekable(source), store.tell()
        if start is not None and end is None and total < 1 << 32:
            _patch(store, 4, total - 8, "little", 4)
            _patch(store, start - 4, total - start, "little", 4)
        store.seek(total)
        _check_end(total, end or _declared_end(store), name, "bytes", piped=piped)
        yield _by_soundfile(stack, store, name, piped=piped)


class _Recorder:
    """A file object that keeps what it gave until told to stop."""

    def __init__(self, file: Any) -> None:
        self._read = getattr(file, "read1", file.read)
        self.seekable = lambda: is_seekable(file)
        self.seek, self.tell = getattr(file, "seek", None), getattr(file, "tell", None)
        self._given: bytearray | None = bytearray()

    def read1(self, size: int) -> bytes:
        data = bytes(self._read(size))
        if self._given is not None:
            self._given += data
        return data

    def stop(self) -> bytes:
        given, self._given = bytes(self._given or b""), None
        return given


def _check_end(got: int, declared: int, name: str, unit: str, *, piped: bool) -> None:
    """Refuses a file, and tells of a pipe, that is shorter than it declares."""
    if got < declared < _NO_LENGTH:
        if not piped:
            raise DecodeError(f"{name}: the file ends after {got} of {declared} {unit}")
        warn_early_end(name, got, declared, unit)


def _declared_end(store: IO[bytes]) -> int:
    """The bytes that an AIFF, AU, W64 or CAF file says it has up to the end of its samples, 0 when it does not say.

    The library of formats does not compare them. It needs W64's and CAF's: a true one is put where there is none.
    """
    total = store.tell()
    store.seek(0)
    head = store.read(24)
    order: Any
    if head[:4] == b"FORM":
        size = int.from_bytes(head[4:8], "big")
        return size + 8 if size < _AIFF_UNKNOWN else 0
    if head[:4] == b".snd":
        size = int.from_bytes(head[8:12], "big")
        return size + int.from_bytes(head[4:8], "big") if size < 0xFFFFFFFF else 0
    # Where the chunks begin, how long a chunk's name is, what its size counts besides the body, what it is rounded to.
    if head[:4] == b"riff":
        position, name, besides, step, order = 40, 16, 24, 8, "little"
        if int.from_bytes(head[16:], order) >= _NO_LENGTH:
            _patch(store, 16, total, order)
    elif head[:4] == b"caff":
        position, name, besides, step, order = 8, 4, 0, 1, "big"
    else:
        return 0
    while position + name + 8 <= total:
        store.seek(position)
        chunk = store.read(name + 8)
        size, body = int.from_bytes(chunk[name:], order), position + name + 8
        if chunk[:4] == b"data" and size < _NO_LENGTH:
            return body + size - besides
        if chunk[:4] == b"data":
            _patch(store, position + name, total - body + besides, order)
        if chunk[:4] == b"data" or size < besides:
            return 0
        position = body + -(-(size - besides) // step) * step
    return 0


def _patch(store: IO[bytes], position: int, value: int, order: Any, length: int = 8) -> None:
    store.seek(position)
    store.write(value.to_bytes(length, order))


class _Counting:
    """An MP3 file that does not say where it ends, so that its frames are counted and not estimated.

    The decoder's library divides the file's length by the first frame's, unless the length is 0.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ends, self._at_end = 0, False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        self._ends += whence == os.SEEK_END
        self._at_end = whence == os.SEEK_END and self._ends > 1  # the first asks for the size of the whole file
        self._file.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._at_end else self._file.tell()

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def _by_soundfile(stack: ExitStack, store: IO[bytes], name: str, *, piped: bool) -> AudioBlocks:
    soundfile = import_audio_package("soundfile")

    base: Any = soundfile.SoundFile

    class Forward(base):
        """Does not move about while it reads: after a move an MP3 decoder lacks the frames that the next builds on."""

        def seekable(self) -> bool:
            return False

    def opened(file: Any) -> Any:
        store.seek(0)
        return Forward(file)

    try:
        sound = opened(store)
        declared, mp3 = sound.frames, sound.format == "MP3"
        if mp3:
            estimated = declared
            sound.close()
            sound = opened(_Counting(store))
            declared = sound.frames
            if declared <= estimated:
                sound.close()
                sound = opened(store)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"{name}: {error.error_string}") from error
    stack.callback(sound.close)

    def pieces() -> Iterator[Tensor]:
        given = 0
        try:
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                given += len(block)
                yield torch.from_numpy(block.T.copy())
        except soundfile.LibsndfileError as error:
            raise DecodeError(f"{name}: {error.error_string}") from error
        _check_end(given, declared, name, "samples", piped=piped)
        if mp3 and given == declared:
            _warn_mp3_rest(store, name)
        elif sound.format == "OGG":
            _warn_ogg_cut(store, name)

    return AudioBlocks(sound.samplerate, sound.channels, declared if 0 <= declared < _NO_LENGTH else None, pieces())


def _warn_mp3_rest(store: IO[bytes], name: str) -> None:
    """Says so when an MP3's decoder left more than a few frames, unless the file ends in a tag."""
    rest = _size(store) - store.tell()
    if rest > 1 << 12 and not any(tag in _tail(store, 512) for tag in (b"APETAGEX", b"LYRICS")):
        warnings.warn(f"{name}: the last {rest} bytes, behind the end of its sound, are not read", AudioWarning, 3)


def _warn_ogg_cut(store: IO[bytes], name: str) -> None:
    """Says so when the last page of an Ogg file does not call itself the last."""
    tail = _tail(store, 1 << 16)  # longer than any page
    page = tail[tail.rfind(b"OggS") :]
    if len(page) > 5 and not page[5] & 4:
        warnings.warn(f"{name}: it has no last page, so it was cut", AudioWarning, 3)


def _size(store: IO[bytes]) -> int:
    here = store.tell()
    size = store.seek(0, os.SEEK_END)
    store.seek(here)
    return size


def _tail(store: IO[bytes], length: int) -> bytes:
    store.seek(-min(length, _size(store)), os.SEEK_END)
    return store.read()


def import_audio_package(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: the C library that soundfile binds is absent
        raise FastvocError(f"audio needs the package {package} ({error}): pip install {package}") from error
