"""Samples as they arrive: raw PCM or a WAV file on a pipe, whose length nobody may know yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DecodeError

_READ = 1 << 16
_MAX_HEADER = 1 << 20
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Bytes per sample and kind of number, by name.
_FORMATS = {"s16": (2, "i"), "s24": (3, "i"), "s32": (4, "i"), "f32": (4, "f")}
_WAV_PCM, _WAV_FLOAT, _WAV_EXTENSIBLE = 1, 3, 0xFFFE


@dataclass(frozen=True)
class PcmFormat:
    """How samples are stored: little-endian `kind` (s16, s24, s32 or f32), interleaved channels, rate in Hz."""

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
            values = np.frombuffer(data, "<f4").astype(np.float32)
        else:
            raw = np.frombuffer(data, np.uint8).reshape(-1, width)
            wide = np.zeros((len(raw), 4), np.uint8)
            wide[:, 4 - width :] = raw  # in the high bytes, so that the sign is right
            values = (wide.view("<i4")[:, 0] / np.float64(1 << 31)).astype(np.float32)
        return values.reshape(-1, self.channels)


def encode_s16(wav: Tensor) -> bytes:
    """Samples [n] in -1..1 -> 16-bit little-endian bytes."""
    return (wav.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16).numpy().astype("<i2").tobytes()


class PcmReader:
    """Reads a binary file as its bytes come, whatever the size of each read.

    A stream that begins as a WAV file is read as one, its header's format then stands; anything else is raw samples of
    `raw`, or refused when that is None. Chunks are mixed to one channel unless `mix` is False. Raises DecodeError,
    which names the file as `name`, for a WAV file of another kind or one that is cut.
    """

    def __init__(
        self, file: BinaryIO, raw: PcmFormat | None = None, *, mix: bool = True, name: str = "standard input"
    ) -> None:
        self._file, self._mix, self._name = file, mix, name
        self._held, self._left = b"", -1
        if self._fill(12) and self._held[:4] == b"RIFF" and self._held[8:12] == b"WAVE":
            self._held = self._held[12:]
            self.format = self._wav_header()
        elif raw is None:
            raise self._error("no WAV file; give --rate for raw samples")
        else:
            self.format = raw

    def _error(self, text: str) -> DecodeError:
        return DecodeError(f"{self._name}: {text}")

    @property
    def left(self) -> int | None:
        """Samples of each channel that are still to come; None when the header does not say."""
        return None if self._left < 0 else self._left // self.format.frame_bytes

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks of samples [n], unmixed [channels, n], as they come. Raises DecodeError when the last one is cut."""
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
        if self._left > 0:
            raise self._error(f"the WAV file ends {self._left} bytes early")
        if self._held:
            raise self._error(f"{len(self._held)} bytes are left over, a sample has {size}")

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
            raise self._error(f"the WAV file's {what} claims {count} bytes")
        if not self._fill(count):
            raise self._error(f"the WAV file ends in its {what}")
        data, self._held = self._held[:count], self._held[count:]
        return data

    def _wav_header(self) -> PcmFormat:
        found: PcmFormat | None = None
        while True:
            head = self._take(8, "header")
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name == b"data":
                if found is None:
                    raise self._error("the WAV file has samples before their format")
                self._left = -1 if size in _UNKNOWN_SIZES else size // found.frame_bytes * found.frame_bytes
                return found
            body = self._take(size + size % 2, f"chunk {name!r}")
            if name == b"fmt ":
                found = self._wav_format(body)

    def _wav_format(self, body: bytes) -> PcmFormat:
        if len(body) < 16:
            raise self._error(f"the WAV file's format has {len(body)} bytes, expected 16 or more")
        tag, channels = int.from_bytes(body[:2], "little"), int.from_bytes(body[2:4], "little")
        rate, bits = int.from_bytes(body[4:8], "little"), int.from_bytes(body[14:16], "little")
        if tag == _WAV_EXTENSIBLE and len(body) >= 26:
            tag = int.from_bytes(body[24:26], "little")
        kind = {(_WAV_PCM, 16): "s16", (_WAV_PCM, 24): "s24", (_WAV_PCM, 32): "s32", (_WAV_FLOAT, 32): "f32"}
        if (tag, bits) not in kind:
            raise self._error(f"WAV format {tag} with {bits} bits; expected PCM of 16, 24, 32 or float of 32")
        try:
            return PcmFormat(kind[tag, bits], rate, channels)
        except ArgumentError as error:
            raise self._error(f"WAV {error}") from None


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
