"""The header of a WAV or RF64 file, read as it comes: how the samples are stored, and how many bytes of them follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Sizes that writers to pipes put where they do not know the length (0xFFFFFFFF: ffmpeg; 1 << 31: arecord, sox, Kaldi;
# 2e9: programs that count in samples), or a little less: the header, and what is left over of whole samples and pages.
_PLACEHOLDERS = (2_000_000_000, 1 << 31, (1 << 32) - 1)
_LESS = 1 << 13
_EXTENSIBLE = 0xFFFE


@dataclass(frozen=True)
class WavHeader:
    """Format tag (1: PCM, 3: float), bits of a sample, bytes `block` of one sample of all channels, rate in Hz.

    `start`: bytes before the samples. `size`: bytes of samples that the header declares; `known` is False where it only
    stands in for a length that the writer did not know.
    """

    tag: int
    bits: int
    channels: int
    rate: int
    block: int
    start: int
    size: int
    known: bool


def read_wav_header(take: Callable[[int, str], bytes], error: Callable[[str], Exception]) -> WavHeader:
    """Reads from `RIFF` or `RF64` up to the first sample by `take(count, what)`, which gives `count` bytes or raises.

    Raises `error(text)` for what is no such header.
    """
    head = take(12, "header")
    position, large = 12, 0
    form: bytes | None = None
    while True:
        chunk = take(8, "header")
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        position += 8
        if name == b"data":
            if form is None:
                raise error("the WAV file has samples before their format")
            end = int.from_bytes(head[4:8], "little") + 8
            if head[:4] == b"RF64" and size == 0xFFFFFFFF:
                size, known = large, 0 < large < 1 << 62
            elif size == 0:
                known = end > position and not _is_placeholder(end - 8)
            else:
                known = not _is_placeholder(size)
            return _header(form, position, size, known, error)
        body = take(size + size % 2, f"chunk {name!r}")
        position += len(body)
        if name == b"fmt ":
            form = body
        elif name == b"ds64":
            large = int.from_bytes(body[8:16], "little")


def _is_placeholder(size: int) -> bool:
    return any(whole - _LESS < size <= whole for whole in _PLACEHOLDERS)


def _header(form: bytes, start: int, size: int, known: bool, error: Callable[[str], Exception]) -> WavHeader:
    if len(form) < 16:
        raise error(f"the WAV file's format has {len(form)} bytes, expected 16 or more")

    def number(at: int, length: int = 2) -> int:
        return int.from_bytes(form[at : at + length], "little")

    tag = number(24) if number(0) == _EXTENSIBLE and len(form) >= 26 else number(0)
    return WavHeader(tag, number(14), number(2), number(4, 4), number(12), start, size, known)
