"""Reading and writing .ecdc streams: the published format byte for byte, fastvoc's own, and what both refuse."""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ecdc_cases import (
    MONO,
    STEREO,
    STREAMS,
    ToyLm,
    golden_lm,
    parts_of,
    random_codes,
    read,
    rounds_as_golden,
    same,
    written,
)

from fastvoc import ecdc
from fastvoc.errors import ArgumentError, DecodeError, DtypeError, ShapeError
from fastvoc.models.encodec_lm import FloatLm
from helpers import GoldenCase


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> tuple[bytes, Any, list[tuple[np.ndarray, float | None]]]:
    """Bytes of a small stream, the language model it needs, and its segments."""
    header, samples, lm = STREAMS[request.param]
    parts = parts_of(header, samples)
    return written(header, parts, samples, lm), lm, parts


def original(header: dict[str, Any] | bytes, payload: bytes = b"") -> bytes:
    """A stream of version 0 with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("!4sBI", b"ECDC", 0, len(text)) + text + payload


class Stingy(io.RawIOBase):
    """A file object that gives a few bytes a read, and cannot seek."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._most, self._at = data, most, 0

    def read(self, size: int = -1) -> bytes:
        end = self._at + min(self._most, size if size >= 0 else self._most)
        part, self._at = self._data[self._at : end], min(end, len(self._data))
        return part


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["mono", "stereo"])
@pytest.mark.parametrize("coded", [False, True])
def test_golden_files(golden: Callable[[str], GoldenCase], kind: str, coded: bool) -> None:
    case = golden("encodec_ecdc")
    data = (case.dir / f"{kind}_{'lm' if coded else 'plain'}.ecdc").read_bytes()
    lm = FloatLm(golden_lm(case, kind)) if coded else None
    if lm is not None and not rounds_as_golden(case):
        with pytest.raises(DecodeError, match="round in another way"):
            read(data, lm)
        return
    header, parts = read(data, lm)
    assert header == ecdc.Header(MONO, 4, 4877, coded) if kind == "mono" else ecdc.Header(STEREO, 2, 49000, coded)
    names = ["codes_mono"] if kind == "mono" else ["codes_stereo_seg0", "codes_stereo_seg1"]
    assert [codes.tolist() for codes, _ in parts] == [case.outputs[name][0].tolist() for name in names]
    if kind == "stereo":
        assert [scale for _, scale in parts] == case.outputs["scale_stereo"].tolist()
    assert written(header, parts, header.samples or 0, lm) == data


def test_round_trip(stream: Any) -> None:
    data, lm, parts = stream
    header, found = read(data, lm)
    assert same(found, parts)
    assert header.samples in (3201, 47545)
    assert written(header, parts, header.samples, lm) == data


@pytest.mark.parametrize("samples", [1, 320, 321, 95999, 192001, 600 * 320, 1200 * 320 + 1])
@pytest.mark.parametrize("version", [ecdc.ORIGINAL, ecdc.PORTABLE])
def test_lengths_of_endless_segments(samples: int, version: int) -> None:
    header = ecdc.Header(MONO, 1, version=version)
    parts = parts_of(header, samples)
    codes = parts[0][0]
    assert codes.shape[1] == -(-samples // 320)
    cuts = sorted({1, min(5, codes.shape[1]), codes.shape[1] // 2})
    pieces = [(piece, None) for piece in np.split(codes, cuts, axis=1) if piece.size]
    data = written(header, pieces, samples)
    assert data == written(header, parts, samples)
    assert same(read(data)[1], parts)


@pytest.mark.parametrize("samples", [1, 47520, 47521, 47545, 48000, 48001, 95040, 95520, 95521, 100000])
@pytest.mark.parametrize("version", [ecdc.ORIGINAL, ecdc.PORTABLE])
def test_lengths_of_segments(samples: int, version: int) -> None:
    header = ecdc.Header(STEREO, 2, version=version)
    parts = parts_of(header, samples)
    sizes = [-(-min(samples - o, 48000) // 320) for o in range(0, samples, 47520)]
    assert [codes.shape[1] for codes, _ in parts] == sizes
    header, found = read(written(header, parts, samples))
    assert header.samples == samples
    assert same(found, parts)


def test_a_coded_portable_stream_remembers_across_records() -> None:
    header = ecdc.Header(MONO, 2, lm=True, version=ecdc.PORTABLE, fingerprint="toy")
    parts = [(random_codes(2, 1500), None)]
    data = written(header, parts, 1500 * 320, ToyLm("toy"))
    assert same(read(data, ToyLm("toy"))[1], parts)
    blocks = list(ecdc.Reader(io.BytesIO(data)).blocks(ToyLm("toy")))
    assert [(block.codes.shape[1], block.first) for block in blocks] == [(600, True), (600, False), (300, False)]


@pytest.mark.parametrize("most", [1, 4, 5, 6])
def test_short_reads(stream: Any, most: int) -> None:
    data, lm, parts = stream
    assert same(read(Stingy(data, most), lm)[1], parts)


def test_pipes(stream: Any) -> None:
    data, lm, parts = stream
    source, sink = os.pipe()

    def feed() -> None:
        with os.fdopen(sink, "wb", buffering=0) as file:
            for at in range(0, len(data), 100):
                file.write(data[at : at + 100])

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(source, "rb") as file:
        assert same(read(file, lm)[1], parts)
    thread.join()


def test_truncated_at_every_byte(stream: Any) -> None:
    data, lm, _ = stream
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            read(Stingy(data[:size], 7), lm)


def test_anything_after_the_end_is_refused(stream: Any) -> None:
    data, lm, _ = stream
    for tail in (b"\0", b"\0" * 10, data):
        with pytest.raises(DecodeError, match="after the end"):
            read(data + tail, lm)


def test_every_flipped_bit_of_a_portable_stream_shows(stream: Any) -> None:
    data, lm, _ = stream
    if data[4] == ecdc.ORIGINAL:
        return  # it has no checksums
    for at in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises((DecodeError, ArgumentError)):  # ArgumentError: another language model is named
            read(bytes(damaged), lm)


def test_lost_and_moved_records_show() -> None:
    header = ecdc.Header(STEREO, 1, version=ecdc.PORTABLE)
    samples = 47520 * 3 + 48000
    data = written(header, parts_of(header, samples), samples)
    start = 9 + data[8] + 4
    size = 4 + 4 + 4 + 188 + 4
    records = [data[at : at + size] for at in range(start, start + 4 * size, size)]
    for order in ((1, 0, 2, 3), (0, 2, 3), (0, 1, 1, 2, 3), ()):
        with pytest.raises(DecodeError):
            read(data[:start] + b"".join(records[i] for i in order) + data[start + 4 * size :])


@pytest.mark.parametrize("seconds", [0.28, 0.56, 0.68, 2.24])
def test_a_step_more_for_version_0_1_1(seconds: float) -> None:
    samples = round(seconds * 24000)
    header = ecdc.Header(MONO, 3, samples)
    (codes, _), *_ = parts_of(header, samples + 320)
    number = codes.shape[1]
    assert number == ecdc.steps(samples) + 1
    longer = written(ecdc.Header(MONO, 3), [(codes, None)], number * 320).replace(
        b"%d" % (number * 320), b"%d" % samples
    )
    longer = longer[:5] + struct.pack("!I", longer.index(b"}") - 8) + longer[9:]
    assert same(read(longer)[1], [(codes, None)])
    shorter = written(header, [(codes[:, :-1], None)], samples)
    assert same(read(shorter)[1], [(codes[:, :-1], None)])
    for size in range(len(shorter) + 1, len(longer)):
        with pytest.raises(DecodeError):
            read(longer[:size])


def test_a_step_more_in_coded_streams() -> None:
    samples, lm = 6720, ToyLm()
    codes = random_codes(8, ecdc.steps(samples) + 1)
    data = written(ecdc.Header(MONO, 8, lm=True), [(codes, None)], 7040, lm).replace(b"7040", b"6720")
    assert same(read(data, lm)[1], [(codes, None)])
    shorter = written(ecdc.Header(MONO, 8, samples, True), [(codes[:, :-1], None)], samples, lm)
    assert same(read(shorter, lm)[1], [(codes[:, :-1], None)])


GOOD = {"m": MONO, "al": 640, "nc": 2, "lm": False}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({**GOOD, "m": "encodec_32khz"}, "model 'encodec_32khz'"),
        ({**GOOD, "m": [MONO]}, "model ['encodec_24khz']"),
        ({**GOOD, "m": "x" * 3000}, "model 'xxx"),
        ({**GOOD, "m": {"a": 1}}, "model"),
        ({**GOOD, "nc": 0}, "0 codebooks, expected 1 to 32"),
        ({**GOOD, "nc": -1}, "-1 codebooks"),
        ({**GOOD, "nc": 33}, "33 codebooks"),
        ({**GOOD, "nc": 1 << 70}, "codebooks"),
        ({**GOOD, "nc": "2"}, "'2' codebooks"),
        ({**GOOD, "nc": True}, "True codebooks"),
        ({**GOOD, "nc": 2.0}, "2.0 codebooks"),
        ({**GOOD, "nc": None}, "values for m, al, nc, lm"),
        ({**GOOD, "m": STEREO, "nc": 17}, "17 codebooks, expected 1 to 16"),
        ({**GOOD, "al": 0}, "0 samples"),
        ({**GOOD, "al": -640}, "-640 samples"),
        ({**GOOD, "al": True}, "True samples"),
        ({**GOOD, "al": 640.5}, "640.5 samples"),
        ({**GOOD, "al": 1e300}, "samples"),
        ({**GOOD, "al": 10**300}, "samples"),
        ({**GOOD, "al": float("nan")}, "nan samples"),
        ({**GOOD, "al": None}, "values for m, al, nc, lm"),
        ({**GOOD, "lm": 1}, "language model"),
        ({**GOOD, "lm": "true"}, "language model"),
        ({"m": MONO, "nc": 2, "lm": False}, "values for m, al, nc, lm"),
        (b"[1]", "expected an object"),
        (b"null", "expected an object"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 4000, "not valid JSON"),
        (b'{"a":' * 800, "not valid JSON"),
        (b'{"al": ' + b"9" * 4050 + b"}", ""),
    ],
)
def test_lying_headers(header: dict[str, Any] | bytes, message: str) -> None:
    with pytest.raises(DecodeError) as refusal:
        read(original(header, bytes(100)))
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with ECDC"),
        (b"EC", "ends early"),
        (b"RIFF" + bytes(40), "does not begin with ECDC"),
        (b"ECDC\x01" + bytes(40), "version 1 of the format"),
        (struct.pack("!4sBI", b"ECDC", 0, 0xFFFFFFFF) + bytes(100), "a header of 4294967295 bytes"),
        (struct.pack("!4sBI", b"ECDC", 0x81, 4097) + bytes(5000), "a header of 4097 bytes"),
    ],
)
def test_other_files(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        ecdc.Reader(io.BytesIO(data))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -0.5, 0.0, -0.0, 1e30])
def test_volumes_that_cannot_be(scale: float) -> None:
    data = original({"m": STEREO, "al": 320, "nc": 1, "lm": False}, struct.pack("!f", scale) + bytes(2))
    with pytest.raises(DecodeError, match="scale"):
        read(data)
    with pytest.raises(ArgumentError, match="scale"):
        written(ecdc.Header(STEREO, 1), [(np.zeros((1, 1), np.uint16), scale)], 320)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("header", [{"al": 1 << 40, "nc": 32}, {"al": 1 << 48}, {"m": STEREO, "al": 1 << 47, "nc": 16}])
def test_terabytes_on_paper_cost_nothing(header: dict[str, Any], coded: bool) -> None:
    payload = struct.pack("!f", 0.5) * 3000
    data = original({**GOOD, **header, "lm": coded}, payload)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            read(data, ToyLm() if coded else None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(data) + (4 << 20)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (struct.pack("!II", 4097, 0), "4097 steps"),
        (struct.pack("!II", 10, 1 << 31), "bytes of codes"),
        (struct.pack("!II", 10, 12), "12 bytes of codes, expected 13 to 13"),
        (struct.pack("!II", 10, 13) + bytes(13), "ends early"),
        (struct.pack("!II", 10, 13) + bytes(17), "record 0 is damaged"),
    ],
)
def test_lying_records(record: bytes, message: str) -> None:
    header = ecdc.Header(MONO, 1, version=ecdc.PORTABLE)
    data = written(header, [(np.zeros((1, 1), np.uint16), None)], 1)
    start = 9 + data[8] + 4
    with pytest.raises(DecodeError, match=message):
        read(data[:start] + record)


def test_memory_does_not_grow_with_the_stream() -> None:
    header = ecdc.Header(MONO, 32)
    codes = random_codes(32, 600)

    def peak(repeats: int) -> int:
        samples = repeats * 600 * 320
        file = io.BytesIO(written(header, [(codes, None)] * repeats, samples))
        tracemalloc.start()
        try:
            for block in ecdc.Reader(file).blocks():
                assert np.array_equal(block.codes, codes)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < 1.2 * peak(6)


def test_reading_errors_are_told() -> None:
    class Broken(io.RawIOBase):
        name = "broken.ecdc"

        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(DecodeError, match=r"broken\.ecdc: Input/output error"):
        ecdc.Reader(Broken())
    with pytest.raises(DecodeError, match="reading gave str"):
        ecdc.Reader(io.StringIO("ECDC"))  # type: ignore[arg-type]


def test_the_language_model_must_fit() -> None:
    header, samples, lm = STREAMS["mono portable coded"]
    data = written(header, parts_of(header, samples), samples, lm)
    for other, message in (
        (None, "needs the integer language model toy, none was given"),
        (ToyLm("another"), "needs the integer language model toy, got the integer language model another"),
        (ToyLm(), "got the floating-point one"),
    ):
        with pytest.raises(ArgumentError, match=message):
            ecdc.Reader(io.BytesIO(data)).blocks(other)
        with pytest.raises(ArgumentError, match=message):
            ecdc.Writer(io.BytesIO(), header, other)


@pytest.mark.parametrize(
    ("codes", "scale", "error", "message"),
    [
        (np.zeros((2, 3)), None, DtypeError, "expected an array of integers, got float64"),
        ([[1]], None, DtypeError, "expected an array of integers, got list"),
        (np.zeros((3, 3), np.int64), None, ShapeError, r"expected shape \[2, T\], got \[3, 3\]"),
        (np.zeros((2, 0), np.int64), None, ShapeError, "got .2, 0"),
        (np.zeros(2, np.int64), None, ShapeError, "got .2"),
        (np.full((2, 3), -1), None, ArgumentError, "expected 0 to 1023, got -1 to -1"),
        (np.full((2, 3), 1024, np.uint16), None, ArgumentError, "got 1024 to 1024"),
        (np.zeros((2, 3), np.int8), 0.5, ArgumentError, "has no volumes"),
    ],
)
def test_the_writer_refuses(codes: Any, scale: float | None, error: type, message: str) -> None:
    with ecdc.Writer(io.BytesIO(), ecdc.Header(MONO, 2)) as writer, pytest.raises(error, match=message):
        writer.write(codes, scale)


def test_the_writer_refuses_what_does_not_make_a_stream() -> None:
    zeros = np.zeros((1, 150), np.uint16)
    with pytest.raises(ArgumentError, match="header: 17 codebooks"):
        ecdc.Writer(io.BytesIO(), ecdc.Header(STEREO, 17))
    with pytest.raises(ArgumentError, match="header: a language model belongs to version"):
        ecdc.Writer(io.BytesIO(), ecdc.Header(MONO, 1, lm=True, version=ecdc.PORTABLE), ToyLm())
    for header, samples, message in (
        (ecdc.Header(MONO, 1), 150 * 320 + 1, "150 steps in 1 parts were written, which do not stand for 48001"),
        (ecdc.Header(MONO, 1, 47999), 48000, "the header says 47999"),
        (ecdc.Header(MONO, 1), 0, "0 samples"),
    ):
        file = io.BytesIO()
        with ecdc.Writer(file, header) as writer:
            writer.write(zeros)
            with pytest.raises(ArgumentError, match=message):
                writer.close(samples)
        assert header.samples or not file.getvalue()
    with ecdc.Writer(io.BytesIO(), ecdc.Header(STEREO, 1)) as writer:
        with pytest.raises(ArgumentError, match="needs the volume"):
            writer.write(zeros)
        with pytest.raises(ArgumentError, match="151 steps, expected at most 150"):
            writer.write(np.zeros((1, 151), np.uint16), 1.0)
        for number in (150, 149, 2):
            writer.write(zeros[:, :number], 1.0)
        with pytest.raises(ArgumentError, match="a segment of 149 steps amid the stream"):
            writer.write(zeros, 1.0)


@dataclass(frozen=True)
class Rounded:
    """A language model of which each `way` shifts the symbols by another few shares of 2^24."""

    way: int
    fingerprint: str = ""

    def start(self, codebooks: int) -> RoundedSteps:
        return RoundedSteps(self.way, codebooks)


class RoundedSteps:
    def __init__(self, way: int, codebooks: int) -> None:
        shares = np.full(1024, 16000, np.int64)
        shares[0] += way
        self._table = np.tile(np.cumsum(shares).astype(np.uint32), (codebooks, 1))

    def step(self, codes: np.ndarray | None) -> np.ndarray:
        return self._table


@pytest.mark.parametrize("samples", [320 * 40, 320 * 600, 320 * 601, 6720, 47520 * 2 + 5000])
def test_other_ways_of_rounding_are_tried(samples: int) -> None:
    ways = [Rounded(n) for n in range(12)]
    header = ecdc.Header(STEREO if samples == 100040 else MONO, 2, samples, True)
    parts = parts_of(header, samples)
    for made in (ways[0], ways[1], ways[11]):
        data = written(header, parts, samples, made)
        reader = ecdc.Reader(Stingy(data, 50))
        blocks = list(reader.blocks(ways[0], ways[1:]))
        assert reader.lm == made
        assert np.array_equal(np.concatenate([b.codes for b in blocks], 1), np.concatenate([c for c, _ in parts], 1))
        with pytest.raises(DecodeError, match="round in another way"):
            read(data, Rounded(500))
        with pytest.raises(DecodeError, match=r"round in another way .*; 12 ways of rounding were tried"):
            list(ecdc.Reader(io.BytesIO(data)).blocks(Rounded(500), [Rounded(n) for n in range(501, 512)]))
        with pytest.raises(DecodeError, match="after the end"):
            list(ecdc.Reader(io.BytesIO(data + b"\0")).blocks(made, ways))


def test_wrong_codes_do_not_pass() -> None:
    """Of many short streams read with the wrong model none gives codes, though nothing else of them shows it."""
    for seed in range(100):
        header = ecdc.Header(MONO, 4, 320 * 20, True)
        data = written(header, [(random_codes(4, 20, seed), None)], 320 * 20, Rounded(0))
        with pytest.raises(DecodeError, match="round in another way"):
            read(data, Rounded(1))
