"""What the reader and the writer of .ecdc files share: headers, segments, and what a language model must offer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from fastvoc.ecdc.coder_python import Cdf, Codes
from fastvoc.errors import ArgumentError

MAGIC = b"ECDC"
ORIGINAL, PORTABLE = 0, 0x81
CODE_BITS = 10
SYMBOL_BYTES = 3  # of the longest arithmetic code of a symbol, whose share is 2 of 2^24 at the least
BLOCK = 600  # steps that are handled at a time where a model has no segments
MOST_SAMPLES = 1 << 48
MOST_SCALE = 1e9
HOP = 320  # samples of a step


@dataclass(frozen=True)
class Layout:
    """What the name of a model says of its streams; `segment` and `stride` in samples, None for one endless segment."""

    sample_rate: int
    channels: int
    codebooks: int
    segment: int | None = None
    stride: int | None = None

    @property
    def scaled(self) -> bool:
        """Whether each segment has a volume of its own."""
        return self.segment is not None

    @property
    def frame_rate(self) -> int:
        """Steps per second."""
        return self.sample_rate // HOP

    def count(self, samples: int) -> int:
        """Segments in a stream of so many samples."""
        return 1 if self.stride is None else -(-samples // self.stride)

    def length(self, index: int, samples: int) -> int:
        """Samples in a segment of a stream of `samples` samples."""
        if self.stride is None or self.segment is None:
            return samples
        return min(samples - index * self.stride, self.segment)


LAYOUTS = {
    "encodec_24khz": Layout(24000, 1, 32),
    "encodec_48khz": Layout(48000, 2, 16, 48000, 47520),
}


def steps(samples: int) -> int:
    """Codes per codebook that stand for a number of samples."""
    return -(-samples // HOP)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    model: a name in LAYOUTS. codebooks: codes a step. samples: per channel; None where they are told at the end only.
    lm: whether the codes are coded with a language model; fingerprint: which integer one, "" for floating point.
    """

    model: str
    codebooks: int
    samples: int | None = None
    lm: bool = False
    version: int = ORIGINAL
    fingerprint: str = ""

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.model]

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        if self.version not in (ORIGINAL, PORTABLE):
            return f"version {self.version}, expected {ORIGINAL} or {PORTABLE}"
        if not isinstance(self.model, str) or self.model not in LAYOUTS:
            return f"model {self.model!r:.80}, expected one of {', '.join(LAYOUTS)}"
        if not _is_int(self.codebooks) or not 1 <= self.codebooks <= self.layout.codebooks:
            return f"{self.codebooks!r:.80} codebooks, expected 1 to {self.layout.codebooks}"
        if self.samples is not None and (not _is_int(self.samples) or not 1 <= self.samples <= MOST_SAMPLES):
            return f"{self.samples!r:.80} samples, expected 1 to 2^48"
        if not isinstance(self.lm, bool) or not isinstance(self.fingerprint, str) or len(self.fingerprint) > 80:
            return "what it says of a language model is of the wrong kind"
        if bool(self.fingerprint) != (self.lm and self.version == PORTABLE):
            return f"a language model belongs to version {PORTABLE} if it is an integer one, to {ORIGINAL} if not"
        return None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Block:
    """Codes uint16 [K, T] in the order of the stream; `first` begins a segment, whose volume is `scale` or None."""

    codes: Codes
    first: bool
    scale: float | None = None


class Steps(Protocol):
    """A language model on its way through a segment."""

    def step(self, codes: Codes | None) -> Cdf:
        """Cumulative 24-bit frequencies uint32 [K, 1024] of the next codes, after codes [K]; None at the start."""


class LanguageModel(Protocol):
    """What the arithmetic coder needs; `fingerprint` tells integer models apart, "" is one in floating point."""

    @property
    def fingerprint(self) -> str: ...
    def start(self, codebooks: int) -> Steps: ...


def check_lm(header: Header, lm: LanguageModel | None) -> None:
    """Raises ArgumentError unless `lm` is what a stream needs, or it needs none."""
    if not header.lm:
        return
    needed = f"integer language model {header.fingerprint}" if header.fingerprint else "floating-point language model"
    if lm is None:
        raise ArgumentError(f"lm: the stream needs the {needed}, none was given")
    if lm.fingerprint != header.fingerprint:
        given = f"integer language model {lm.fingerprint}" if lm.fingerprint else "floating-point one"
        raise ArgumentError(f"lm: the stream needs the {needed}, got the {given}")


class Tally:
    """Counts the steps of a stream's segments and compares them with its length, in constant memory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.count = self.total = 0
        self._last: deque[int] = deque(maxlen=2)

    def add(self, number: int) -> str | None:
        """Counts a segment, or a stretch of the endless one; what is wrong with it, if anything."""
        segment = self._layout.segment
        if segment is not None:
            if number > steps(segment):
                return f"a segment of {number} steps, expected at most {steps(segment)}"
            if len(self._last) == 2 and self._last[0] != steps(segment):
                return f"a segment of {self._last[0]} steps amid the stream, expected {steps(segment)}"
            self._last.append(number)
        self.count += 1
        self.total += number
        return None

    def fits(self, samples: int) -> bool:
        """Whether these are the segments of so many samples."""
        if self._layout.segment is None:
            return self.total == steps(samples)
        first = self.count - len(self._last)
        expected = [steps(self._layout.length(first + i, samples)) for i in range(len(self._last))]
        return self._layout.count(samples) == self.count and list(self._last) == expected
