"""Reading .ecdc streams. Nothing is allocated because a header says so: memory follows the data that are there."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from fastvoc.ecdc import coder
from fastvoc.ecdc.coder_python import Cdf, Codes
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
_MISREAD = (
    "damaged, or made where the language model's floating-point probabilities round in another way "
    "(another number of threads, processor or release of torch)"
)


class Source:
    """A binary file object, which may give less than it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        # read1 does not wait for more than a pipe holds.
        self._read = getattr(file, "read1", file.read)
        self._name = str(getattr(file, "name", "ecdc stream"))
        self._buffer, self._at, self._ended = bytearray(), 0, False
        self._held: int | None = None
        self.position = 0

    def error(self, text: str) -> DecodeError:
        return DecodeError(f"{self._name}: {text}")

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only where the stream ends."""
        while len(self._buffer) - self._at < size and not self._ended:
            done = self._at if self._held is None else self._held
            del self._buffer[:done]
            self._at -= done
            self._held = None if self._held is None else 0
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

    def hold(self) -> None:
        """From here on bytes are kept, until `release`."""
        self._held = self._at

    def held(self) -> bytes:
        """What was taken since `hold`."""
        return bytes(memoryview(self._buffer)[self._held : self._at])

    def rewind(self) -> None:
        """Goes back to where `hold` was."""
        assert self._held is not None
        self.position -= self._at - self._held
        self._at = self._held

    def release(self) -> None:
        """Lets go of what `hold` keeps."""
        self._held = None

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
        self._models: list[LanguageModel] = []
        self.header = self._read_header()

    @property
    def position(self) -> int:
        """Bytes consumed so far."""
        return self._source.position

    @property
    def lm(self) -> LanguageModel | None:
        """The language model in use: the one that read the segment before, at first the one given."""
        return self._models[0] if self._models else None

    def blocks(self, lm: LanguageModel | None = None, others: Iterable[LanguageModel] = ()) -> Iterator[Block]:
        """The codes, a segment or a stretch of one at a time; to be called once. `header.samples` is known after it.

        A segment of version 0 with a language model has no checksum, but its codes must be coded into its bytes again;
        it is given once that is so, in memory that grows with it. `others` are tried in turn where `lm` reads it wrong:
        the same model with its sums rounded in other ways. Raises ArgumentError when the stream needs a language model
        and `lm` is none or another one.
        """
        models = [lm, *others]
        for model in models:
            check_lm(self.header, model)
        self._models = [model for model in models if model is not None and self.header.lm]
        return self._original() if self.header.version == ORIGINAL else self._portable(self.lm)

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

    def _original(self) -> Iterator[Block]:
        layout, total = self.header.layout, self.header.samples
        assert total is not None
        for index in range(layout.count(total)):
            samples = layout.length(index, total)
            spare = 0
            if index == layout.count(total) - 1:
                # Version 0.1.1 of the package divides first and, for some lengths, wants a step more than it makes.
                spare = max(0, math.ceil(samples / layout.sample_rate * layout.frame_rate) - steps(samples))
            scale = self._scale()
            parts = (self._coded if self._models else self._plain)(steps(samples), spare)
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

    def _coded(self, number: int, spare: int) -> Iterator[Codes]:
        source, problem = self._source, ""
        source.hold()
        for index, lm in enumerate(self._models):
            try:
                blocks = self._read_as(lm, number, spare)
            except _Misread as error:
                problem = problem or str(error)
                source.rewind()
                continue
            source.release()
            # What follows was made in the same way.
            self._models.insert(0, self._models.pop(index))
            return iter(blocks)
        tried = f"; {len(self._models)} ways of rounding were tried" if len(self._models) > 1 else ""
        raise source.error(problem + tried)

    def _read_as(self, lm: LanguageModel, number: int, spare: int) -> list[Codes]:
        """The codes of a segment of version 0, in stretches. Raises _Misread when `lm` is not what it was made with."""
        source, model = self._source, lm.start(self.header.codebooks)
        decoder, again = _Decoder(source, self.header.codebooks), [_Again() for _ in range(spare + 1)]
        blocks: list[Codes] = []
        block: list[Codes] = []
        codes: Codes | None = None
        for step in range(number + spare):
            table = model.step(codes)
            codes = decoder.pull(table)
            block.append(codes)
            for other in again:
                other.push(codes, table)
            whole = step + 1 >= number and again.pop().finish() == source.held()
            if whole or len(block) == BLOCK:
                blocks.append(np.stack(block, axis=1))
                block = []
            if whole:
                return blocks
        raise _Misread(f"the segment before byte {source.position}: {_MISREAD}")

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


class _Misread(Exception):
    """A segment of version 0 is damaged, or was made with other numbers than it was read with."""


class _Again:
    """What codes are coded into. The coder ends with the low end of its last interval, so wrong codes end otherwise."""

    def __init__(self) -> None:
        self._encoder, self._bytes = coder.implementation().ArithmeticEncoder(), bytearray()

    def push(self, codes: Codes, cdf: Cdf) -> None:
        self._encoder.push(codes, cdf)
        self._bytes += self._encoder.take()

    def finish(self) -> bytes:
        return bytes(self._bytes + self._encoder.finish())


class _Decoder:
    """The arithmetic code of a segment of version 0, which does not say how long it is."""

    def __init__(self, source: Source, codebooks: int) -> None:
        self._source, self._most = source, SYMBOL_BYTES * (codebooks + 1)
        self._decoder = coder.implementation().ArithmeticDecoder()

    def pull(self, cdf: Cdf) -> Codes:
        try:
            codes, used = self._decoder.pull(cdf, self._source.peek(self._most))
        except EOFError:
            raise _Misread(f"the stream ends early, within a segment: {_MISREAD}") from None
        except LookupError:
            raise _Misread(f"near byte {self._source.position}: {_MISREAD}") from None
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
