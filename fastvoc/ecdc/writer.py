"""Writing .ecdc streams."""

from __future__ import annotations

import json
import math
import shutil
import struct
import tempfile
import zlib
from dataclasses import replace
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from fastvoc.ecdc import coder
from fastvoc.ecdc.coder_python import Codes
from fastvoc.ecdc.layout import BLOCK, CODE_BITS, MAGIC, MOST_SCALE, ORIGINAL, Header, LanguageModel, Tally, check_lm
from fastvoc.errors import ArgumentError, DtypeError, ShapeError

_SPOOL = 1 << 20


class Writer:
    """Writes codes to a binary file object: `write` for each segment or piece of the stream, then `close`.

    A header of version 0 that does not know the number of samples is written by `close`; until then, what follows it
    waits in a temporary file. Raises ArgumentError for an illegal header and for a language model that does not fit it.
    """

    def __init__(self, file: BinaryIO, header: Header, lm: LanguageModel | None = None) -> None:
        if problem := header.problem():
            raise ArgumentError(f"header: {problem}")
        check_lm(header, lm)
        self.header = header
        self._lm = lm if header.lm else None
        self._tally = Tally(header.layout)
        self._coder: _Coder | None = None
        self._pending: Codes = np.empty((header.codebooks, 0), np.uint16)  # of the next record
        self._crc = 0
        self._file = self._target = file
        if header.version == ORIGINAL and header.samples is None:
            self._target = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # type: ignore[assignment]  # noqa: SIM115
        else:
            self._put(_head(header))
        if header.version != ORIGINAL:
            self._put_crc()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, codes: npt.NDArray[Any], scale: float | None = None) -> None:
        """Adds codes [K, T], integers from 0 to 1023: a segment of a model with segments, else the next steps.

        `scale` is the volume of the segment, for models that have one. Raises ShapeError, DtypeError or ArgumentError.
        """
        checked, scaled = self._check(codes, scale), self.header.layout.scaled
        if problem := self._tally.add(checked.shape[1]):
            raise ArgumentError(f"codes: {problem}")
        if self._coder is None or scaled:
            self._coder = _Coded(self._lm, self.header.codebooks) if self._lm else _Plain()
        if self.header.version == ORIGINAL:
            if scale is not None:
                self._put(struct.pack("!f", scale))
            self._put(self._coder.push(checked))
            if scaled:
                self._put(self._coder.finish())
        elif scaled:
            self._record(checked, scale)
        else:
            self._pending = np.concatenate([self._pending, checked], axis=1)
            while self._pending.shape[1] >= BLOCK:
                self._record(self._pending[:, :BLOCK], None)
                self._pending = self._pending[:, BLOCK:]

    def close(self, samples: int) -> None:
        """Ends the stream, which stands for so many samples per channel. The file object stays open.

        Raises ArgumentError when the header says another number, or the codes written stand for another.
        """
        header = replace(self.header, samples=samples)
        if problem := header.problem():
            raise ArgumentError(f"samples: {problem}")
        if self.header.samples not in (None, samples):
            raise ArgumentError(f"samples: the header says {self.header.samples}, got {samples}")
        if not self._tally.fits(samples):
            written = f"{self._tally.total} steps in {self._tally.count} parts were written"
            raise ArgumentError(f"samples: {written}, which do not stand for {samples}")
        if header.version != ORIGINAL:
            if self._pending.size:
                self._record(self._pending, None)
            self._put(struct.pack("!IQ", 0, samples))
            self._put_crc()
            return
        if self._coder is not None and not header.layout.scaled:
            self._put(self._coder.finish())
        if self._target is not self._file:
            self._file.write(_head(header))
            self._target.seek(0)
            shutil.copyfileobj(self._target, self._file)
            self.discard()

    def discard(self) -> None:
        """Gives up the temporary file, if any; leaving the `with` block does the same."""
        if self._target is not self._file:
            self._target.close()

    def _check(self, codes: npt.NDArray[Any], scale: float | None) -> Codes:
        if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu":
            got = codes.dtype if isinstance(codes, np.ndarray) else type(codes).__name__
            raise DtypeError(f"codes: expected an array of integers, got {got}")
        if codes.ndim != 2 or len(codes) != self.header.codebooks or not codes.shape[1]:
            raise ShapeError(f"codes: expected shape [{self.header.codebooks}, T], got {list(codes.shape)}")
        if codes.min() < 0 or codes.max() >= 1 << CODE_BITS:
            raise ArgumentError(f"codes: expected 0 to {(1 << CODE_BITS) - 1}, got {codes.min()} to {codes.max()}")
        if (scale is not None) != self.header.layout.scaled:
            has = "needs the volume of each segment" if scale is None else "has no volumes"
            raise ArgumentError(f"scale: {self.header.model} {has}, got {scale!r}")
        # A volume that is 0 as a float32 would not be read back.
        if scale is not None and not (math.isfinite(scale) and 1e-45 < scale < MOST_SCALE):
            raise ArgumentError(f"scale: expected a positive number below {MOST_SCALE:g}, got {scale!r}")
        return codes.astype(np.uint16)

    def _record(self, codes: Codes, scale: float | None) -> None:
        assert self._coder is not None
        data = self._coder.push(codes) + self._coder.finish()
        volume = b"" if scale is None else struct.pack("!f", scale)
        self._put(struct.pack("!I", codes.shape[1]) + volume + struct.pack("!I", len(data)) + data)
        self._crc = zlib.crc32(codes.T.astype("<u2").tobytes(), self._crc)
        self._put_crc()

    def _put(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._target.write(data)

    def _put_crc(self) -> None:
        self._target.write(struct.pack("!I", self._crc))


def _head(header: Header) -> bytes:
    values: dict[str, Any] = {"m": header.model}
    if header.version == ORIGINAL:
        values |= {"al": header.samples, "nc": header.codebooks, "lm": header.lm}
    else:
        values |= {"nc": header.codebooks, "lm": header.fingerprint}
    text = json.dumps(values).encode()
    return struct.pack("!4sBI", MAGIC, header.version, len(text)) + text


class _Coder(Protocol):
    """Codes [K, T] in, bytes out; `finish` gives the last ones, after which the next code may begin."""

    def push(self, codes: Codes) -> bytes: ...
    def finish(self) -> bytes: ...


class _Plain:
    """Ten bits a code."""

    def __init__(self) -> None:
        self._rest: Codes = np.empty(0, np.uint16)

    def push(self, codes: Codes) -> bytes:
        flat = np.concatenate([self._rest, codes.T.ravel()])
        whole = len(flat) // 4 * 4  # these fill whole bytes
        self._rest = flat[whole:]
        return self._pack(flat[:whole])

    def finish(self) -> bytes:
        flat, self._rest = self._rest, self._rest[:0]
        return self._pack(flat)

    def _pack(self, flat: Codes) -> bytes:
        data: bytes = coder.implementation().pack(flat, CODE_BITS)
        return data


class _Coded:
    """The arithmetic coder, with what a language model expects."""

    def __init__(self, lm: LanguageModel, codebooks: int) -> None:
        self._steps = lm.start(codebooks)
        self._encoder = coder.implementation().ArithmeticEncoder()
        self._last: Codes | None = None

    def push(self, codes: Codes) -> bytes:
        for column in np.ascontiguousarray(codes.T):
            self._encoder.push(column, self._steps.step(self._last))
            self._last = column
        data: bytes = self._encoder.take()
        return data

    def finish(self) -> bytes:
        data: bytes = self._encoder.finish()
        return data
