"""Reading .ecdc streams. Nothing is allocated because a header says so: memory follows the data that are there."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from fastvoc import coder
from fastvoc.coder_python import Cdf, Codes
from fastvoc.ecdc.layout import (
    BLOCK,
    CODE_BITS,
    MAGIC,
    MOST_SAMPLES,
    MOST_SCALE,
    ORIGINAL,
    PORTABLE,
    SYMBOL_BYTES,
    Block,
    Header,
    LanguageModel,
    Steps,
    Tally,
    check_lm,
    steps,
)
from fastvoc.errors import DecodeError

_MOST_TEXT = 4096
_MOST_STEPS = 4096  # of a record
_CHUNK = 1 << 16


class Source:
    """A binary file object, which may give less than it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        # read1 does not wait for more than a pipe holds.
        self._read = getattr(file, "read1", file.read)
        self._name = str(getattr(file, "name", "ecdc stream"))
        self._buffer, self._at, self._ended = bytearray(), 0, False
        self.position = 0

    def error(self, text: str) -> DecodeError:
        return DecodeError(f"{self._name}: {text}")

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only where the stream ends."""
        while len(self._buffer) - self._at < size and not self._ended:
            del self._buffer[: self._at]
            self._at = 0
            try:
                more = self._read(_CHUNK)
            except OSError as error:
                raise self.error(str(error.strerror or error)) from error
            if not isinstance(more, bytes | bytearray):
                raise self.error(f"reading gave {type(more).__name__}, expected bytes")
            self._buffer += more
            self._ended = not more
        return bytes(memoryview(self._buffer)[self._at : self._at + size])

    def skip(self, size: int) -> None:
        self._at += size
        self.position += size

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises DecodeError when the stream ends before."""
        data = self.peek(size)
        if len(data) < size:
            raise self.error(f"the stream ends early, after {self.position + len(data)} bytes")
        self.skip(size)
        return data

    def end(self) -> None:
        """Raises DecodeError unless the stream ends here."""
        if self.peek(1):
            raise self.error(f"more data after the end of the stream, from byte {self.position} on")


class Reader:
    """Reads a binary file object from its header on; pipes and objects that give less than asked for will do.

    Raises DecodeError, here and while `blocks` is consumed, for anything but a whole and sound stream.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._source = Source(file)
        self._crc = 0
        self.header = self._read_header()

    @property
    def position(self) -> int:
        """Bytes consumed so far."""
        return self._source.position

    def blocks(self, lm: LanguageModel | None = None) -> Iterator[Block]:
        """The codes, a segment or a stretch of one at a time; to be called once. `header.samples` is known after it.

        Raises ArgumentError when the stream needs a language model and `lm` is none or another one.
        """
        check_lm(self.header, lm)
        lm = lm if self.header.lm else None
        return self._original(lm) if self.header.version == ORIGINAL else self._portable(lm)

    def _read_header(self) -> Header:
        source = self._source
        head = source.peek(9)
        if not head or head[:4] != MAGIC[: len(head)]:
            raise source.error("no .ecdc stream: it does not begin with ECDC")
        _, version, size = struct.unpack("!4sBI", source.take(9))
        if version not in (ORIGINAL, PORTABLE):
            raise source.error(f"version {version} of the format, expected {ORIGINAL} or {PORTABLE}")
        if size > _MOST_TEXT:
            raise source.error(f"a header of {size} bytes, expected at most {_MOST_TEXT}")
        text = source.take(size)
        if version == PORTABLE:
            self._check_crc(head + text, b"", "the header")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise source.error(f"the header is not valid JSON: {error}") from None
        header = self._parse(values, version)
        if problem := header.problem():
            raise source.error(f"illegal header: {problem}")
        return header

    def _parse(self, values: Any, version: int) -> Header:
        names = ("m", "al", "nc", "lm") if version == ORIGINAL else ("m", "nc", "lm")
        if not isinstance(values, dict) or any(values.get(name) is None for name in names):
            raise self._source.error(f"illegal header: expected an object with values for {', '.join(names)}")
        if version == ORIGINAL:
            return Header(values["m"], values["nc"], values["al"], values["lm"])
        return Header(values["m"], values["nc"], None, values["lm"] != "", version, values["lm"])

    def _scale(self) -> float | None:
        if not self.header.layout.scaled:
            return None
        scale = float(struct.unpack("!f", self._source.take(4))[0])
        if not 0 < scale < MOST_SCALE:
            raise self._source.error(f"scale {scale}, expected a positive number")
        return scale

    def _original(self, lm: LanguageModel | None) -> Iterator[Block]:
        layout, total = self.header.layout, self.header.samples
        assert total is not None
        for index in range(layout.count(total)):
            samples = layout.length(index, total)
            spare = 0
            if index == layout.count(total) - 1:
                # Version 0.1.1 of the package divides first and, for some lengths, wants a step more than it makes.
                spare = max(0, math.ceil(samples / layout.sample_rate * layout.frame_rate) - steps(samples))
            scale = self._scale()
            parts = self._coded(steps(samples), spare, lm) if lm else self._plain(steps(samples), spare)
            for number, codes in enumerate(parts):
                yield Block(codes, number == 0, scale)
        self._source.end()

    def _plain(self, number: int, spare: int) -> Iterator[Codes]:
        while number > 0:
            block = min(number, BLOCK)
            if spare and block == number:
                longer = self._plain_size(number + spare)
                if len(self._source.peek(longer + 1)) == longer:
                    block = number = number + spare
            yield self._unpack(self._source.take(self._plain_size(block)), block)
            number -= block

    def _plain_size(self, number: int) -> int:
        return -(-number * self.header.codebooks * CODE_BITS // 8)

    def _unpack(self, data: bytes, number: int) -> Codes:
        codes: Codes = coder.implementation().unpack(data, CODE_BITS, number * self.header.codebooks)
        return np.ascontiguousarray(codes.reshape(number, -1).T)

    def _coded(self, number: int, spare: int, lm: LanguageModel) -> Iterator[Codes]:
        decoder, model = _Decoder(self._source, self.header.codebooks), lm.start(self.header.codebooks)
        codes: Codes | None = None
        while number > 0:
            block: list[Codes] = []
            while number > 0 and len(block) < BLOCK:
                codes = decoder.pull(model.step(codes))
                block.append(codes)
                number -= 1
            if number == 0 and spare and self._source.peek(1):
                block.append(decoder.pull(model.step(codes)))
            yield np.stack(block, axis=1)

    def _portable(self, lm: LanguageModel | None) -> Iterator[Block]:
        header, source, tally = self.header, self._source, Tally(self.header.layout)
        stream: _Stream | None = None
        while number := struct.unpack("!I", head := source.take(4))[0]:
            where = f"record {tally.count}"
            problem = tally.add(number) if number <= _MOST_STEPS else f"{number} steps, expected at most {_MOST_STEPS}"
            if problem:
                raise source.error(f"{where}: {problem}")
            first = header.layout.scaled or tally.count == 1
            scale = self._scale()
            size = struct.unpack("!I", source.take(4))[0]
            if lm is None:
                least = most = self._plain_size(number)
            else:
                least, most = SYMBOL_BYTES, SYMBOL_BYTES * (number * header.codebooks + 1)
            if not least <= size <= most:
                raise source.error(f"{where}: {size} bytes of codes, expected {least} to {most}")
            data = source.take(size)
            if lm is None:
                codes = self._unpack(data, number)
            else:
                stream = _Stream(lm, header.codebooks) if first or stream is None else stream
                found = stream.decode(data, number)
                if found is None:
                    raise source.error(f"{where}: damaged codes")
                codes = found
            packed = struct.pack("!I", size) if scale is None else struct.pack("!fI", scale, size)
            self._check_crc(head + packed + data, codes.T.astype("<u2").tobytes(), where)
            yield Block(codes, first, scale)
        (samples,) = struct.unpack("!Q", tail := source.take(8))
        self._check_crc(head + tail, b"", "the end")
        if not 1 <= samples <= MOST_SAMPLES or not tally.fits(samples):
            raise source.error(f"{samples} samples do not fit {tally.total} steps in {tally.count} records")
        source.end()
        self.header = replace(header, samples=samples)

    def _check_crc(self, data: bytes, codes: bytes, where: str) -> None:
        self._crc = zlib.crc32(codes, zlib.crc32(data, self._crc))
        (stated,) = struct.unpack("!I", self._source.take(4))
        if stated != self._crc:
            text = f"{where} is damaged: its checksum is {self._crc:08x}, stated is {stated:08x}"
            raise self._source.error(text)


class _Decoder:
    """The arithmetic code of a segment of version 0, which does not say how long it is."""

    def __init__(self, source: Source, codebooks: int) -> None:
        self._source, self._most = source, SYMBOL_BYTES * (codebooks + 1)
        self._decoder = coder.implementation().ArithmeticDecoder()

    def pull(self, cdf: Cdf) -> Codes:
        try:
            codes, used = self._decoder.pull(cdf, self._source.peek(self._most))
        except EOFError:
            raise self._source.error("the stream ends early, within a segment") from None
        except LookupError:
            raise self._source.error(
                f"near byte {self._source.position}: damaged, or made where the language model's floating-point "
                "probabilities round in another way"
            ) from None
        self._source.skip(used)
        result: Codes = codes
        return result


class _Stream:
    """The codes of one segment, in one or more records."""

    def __init__(self, lm: LanguageModel, codebooks: int) -> None:
        self._steps: Steps = lm.start(codebooks)
        self._codebooks = codebooks
        self._codes: Codes | None = None

    def decode(self, data: bytes, number: int) -> Codes | None:
        """The codes of a record; None when `data` is no whole code of so many steps."""
        decoder, at = coder.implementation().ArithmeticDecoder(), 0
        block: list[Codes] = []
        try:
            for _ in range(number):
                cdf = self._steps.step(self._codes)
                self._codes, used = decoder.pull(cdf, data[at : at + SYMBOL_BYTES * (self._codebooks + 1)])
                at += used
                block.append(self._codes)
        except (EOFError, LookupError):
            return None
        return np.stack(block, axis=1) if at == len(data) else None
