"""Samples as they arrive: raw PCM or a WAV file on a pipe, whose length nobody may know yet."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, AudioWarning, DecodeError
from fastvoc.sound.wav_header import WavHeader, read_wav_header

_READ = 1 << 16
_MAX_HEADER = 1 << 20
# Bytes per sample and kind of number, by name.
_FORMATS = {"u8": (1, "u"), "s16": (2, "i"), "s24": (3, "i"), "s32": (4, "i"), "f32": (4, "f"), "f64": (8, "f")}
_WAV_TAGS = {"u": 1, "i": 1, "f": 3}
_WAV_KINDS = {(_WAV_TAGS[kind], 8 * width): name for name, (width, kind) in _FORMATS.items()}


@dataclass(frozen=True)
class PcmFormat:
    """How samples are stored: little-endian `kind` (u8, s16, s24, s32, f32, f64), interleaved channels, rate in Hz."""

    kind: str
    rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _FORMATS:
            raise ArgumentError(f"format: expected one of {', '.join(_FORMATS)}, got {self.kind!r}")
        if self.rate < 1 or not 1 <= self.channels <= 256:
            raise ArgumentError(f"format: expected a positive rate and 1 to 256 channels, got {self}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return _FORMATS[self.kind][0] * self.channels

    def decode(self, data: bytes) -> Tensor:
        """Whole frames of bytes -> the mean over the channels, float32 [n] in -1..1."""
        return torch.from_numpy(self._values(data).mean(1, dtype=np.float32))

    def frames(self, data: bytes) -> Tensor:
        """Whole frames of bytes -> every channel, float32 [channels, n] in -1..1."""
        return torch.from_numpy(self._values(data).T.astype(np.float32, order="C"))

    def _values(self, data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        width, kind = _FORMATS[self.kind]
        if kind == "f":
            values = np.frombuffer(data, f"<f{width}").astype(np.float32)
        elif kind == "u":
            values = np.frombuffer(data, np.uint8).astype(np.float32) / np.float32(128) - np.float32(1)
        elif width == 2:
            values = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        else:
            raw = np.frombuffer(data, np.uint8).reshape(-1, width)
            wide = np.zeros((len(raw), 4), np.uint8)
            wide[:, 4 - width :] = raw  # in the high bytes, so that the sign is right
            values = (wide.view("<i4")[:, 0] / np.float64(1 << 31)).astype(np.float32)
        return values.reshape(-1, self.channels)


def encode_s16(wav: Tensor) -> bytes:
    """Samples [n] in -1..1 -> 16-bit little-endian bytes."""
    return (wav.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16).numpy().astype("<i2").tobytes()


class OtherSound(DecodeError):
    """No WAV file of plain samples. `start`: where its samples begin, `end`: where they end by its header, or None."""

    def __init__(self, text: str, start: int | None = None, end: int | None = None) -> None:
        super().__init__(text)
        self.start, self.end = start, end


class PcmReader:
    """Reads a binary file as its bytes come, whatever the size of each read.

    A stream that begins as a WAV or RF64 file is read as one, its header's format then stands; anything else is raw
    samples of `raw`, or refused when that is None. Chunks are mixed to one channel unless `mix` is False.

    What a pipe gives is taken whole. Where its header declares more than comes, a size that writers put for a length
    they do not know (0, 0xFFFFFFFF, sox's 0x7FFFF000 and their like) is no fault; another one gives an AudioWarning,
    after the last chunk, that names the bytes declared and received. A file that can be moved about in is refused at
    once when it is shorter than its header declares.
    Raises DecodeError, which names the file as `name`, for a header that is cut or broken; OtherSound, which is one,
    for a WAV file of another kind and for what is no WAV file.
    """

    def __init__(
        self, file: BinaryIO, raw: PcmFormat | None = None, *, mix: bool = True, name: str = "standard input"
    ) -> None:
        self._file, self._mix, self._name = file, mix, name
        self._held, self._left = b"", -1
        self._wav = self._fill(12) and self._held[:4] in (b"RIFF", b"RF64") and self._held[8:12] == b"WAVE"
        self._size = 0
        if self._wav:
            self.format = self._begin(read_wav_header(self._take, self._error))
        elif raw is None:
            raise OtherSound(f"{name}: no WAV file; give --rate for raw samples")
        else:
            self.format = raw

    def _begin(self, header: WavHeader) -> PcmFormat:
        present = self._present()
        known = header.known or (present is not None and 0 < header.size <= present)
        if known and present is not None and present < header.size:
            raise self._error(f"the file ends after {present} of {header.size} bytes of samples")
        kind = _WAV_KINDS.get((header.tag, header.bits))
        try:
            found = PcmFormat(kind, header.rate, header.channels) if kind else None
        except ArgumentError as error:
            raise self._error(f"WAV {error}") from None
        if found is None or found.frame_bytes != header.block:
            text = f"WAV format {header.tag}, {header.bits} bits, {header.channels} channels in {header.block} bytes"
            text += "; expected PCM of 8, 16, 24, 32 or float of 32, 64"
            raise OtherSound(f"{self._name}: {text}", header.start, header.start + header.size if known else None)
        if known:
            self._size = self._left = header.size // found.frame_bytes * found.frame_bytes
        return found

    def _present(self) -> int | None:
        """Bytes from here to the end; None for a pipe."""
        if not is_seekable(self._file):
            return None
        here = self._file.tell()
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(here)
        return end - here + len(self._held)

    def _error(self, text: str) -> DecodeError:
        return DecodeError(f"{self._name}: {text}")

    @property
    def left(self) -> int | None:
        """Samples of each channel that are still to come; None when the header does not say."""
        return None if self._left < 0 else self._left // self.format.frame_bytes

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks of samples [n], unmixed [channels, n], as they come. Raises DecodeError when raw samples are cut."""
        size = self.format.frame_bytes
        while True:
            whole = len(self._held) // size * size
            if self._left >= 0:
                whole = min(whole, self._left)
            if whole:
                data, self._held = self._held[:whole], self._held[whole:]
                self._left -= whole if self._left >= 0 else 0
                yield self.format.decode(data) if self._mix else self.format.frames(data)
            if self._left == 0:
                return
            more = self._read()
            if not more:
                break
            self._held += more
        rest = len(self._held)
        if self._left > 0:
            warn_early_end(self._name, self._size - self._left + rest, self._size, "bytes")
        elif self._wav and rest == 1 and self._held == b"\0":
            return  # it fills a chunk of odd length
        elif rest and self._wav:
            warnings.warn(f"{self._name}: the last {rest} bytes are no whole sample of {size}", AudioWarning, 2)
        elif rest:
            raise self._error(f"{rest} bytes are left over, a sample has {size}")

    def _read(self) -> bytes:
        # What is there now; `read` would wait for a full block.
        read1 = getattr(self._file, "read1", None)
        return bytes(read1(_READ) if read1 else self._file.read(_READ))

    def _fill(self, count: int) -> bool:
        while len(self._held) < count and (more := self._read()):
            self._held += more
        return len(self._held) >= count

    def _take(self, count: int, what: str) -> bytes:
        if count > _MAX_HEADER:
            raise OtherSound(f"{self._name}: the WAV file's {what} claims {count} bytes")
        if not self._fill(count):
            raise self._error(f"the WAV file ends in its {what}")
        data, self._held = self._held[:count], self._held[count:]
        return data


def is_seekable(file: object) -> bool:
    """Whether one can move about in a file object, as not in a pipe."""
    seekable = getattr(file, "seekable", None)
    return bool(seekable and seekable())


def warn_early_end(name: str, got: int, declared: int, unit: str) -> None:
    """Says that what came from a pipe is not all that its header declares."""
    warnings.warn(f"{name}: the sound ends after {got} of the {declared} {unit} that it declares", AudioWarning, 3)


class StreamResampler:
    """Band-limited resampling of a signal in chunks, by soxr; equal rates pass through.

    Chunks are [n], or [channels, n] when there are `channels`.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int | None = None) -> None:
        self._many = channels is not None
        self._stream = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, channels or 1, dtype="float32", quality="HQ")

    def push(self, samples: Tensor, *, last: bool = False) -> Tensor:
        """[n] -> the samples [m] that are ready; [channels, n] -> [channels, m]."""
        if self._stream is None:
            return samples
        rows = samples.T.contiguous() if self._many else samples
        made = torch.from_numpy(self._stream.resample_chunk(rows.numpy(), last=last))
        return made.T.contiguous() if self._many else made


def read_frames(file: BinaryIO, bands: int) -> Iterator[Tensor]:
    """Raw float32 mel frames, `bands` values each, as they come -> chunks [bands, n].

    Raises DecodeError when the last frame is cut.
    """
    held, size = b"", 4 * bands
    read1 = getattr(file, "read1", None)
    while more := bytes(read1(_READ) if read1 else file.read(_READ)):
        held += more
        whole = len(held) // size * size
        if whole:
            rows = np.frombuffer(held[:whole], "<f4").reshape(-1, bands)
            held = held[whole:]
            yield torch.from_numpy(rows.T.copy())
    if held:
        raise DecodeError(f"standard input: {len(held)} bytes are left over, a frame has {size}")


def write_now(file: BinaryIO, data: bytes) -> None:
    """Writes all of it and lets it go at once."""
    file.write(data)
    file.flush()
