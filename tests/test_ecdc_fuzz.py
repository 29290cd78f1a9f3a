"""Damaged .ecdc streams, made at random but the same every time: a typed error or sound codes, in little memory."""

from __future__ import annotations

import random
import re
import struct
import tracemalloc
from time import perf_counter

import numpy as np
import pytest
from ecdc_cases import STREAMS, parts_of, read, written

from fastvoc import ecdc
from fastvoc.errors import ArgumentError, DecodeError

_WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000)
_VALUES = (b"-1", b"0", b"1", b"33", b"1e9", b"true", b"null", b'"a"', b"[]", b"281474976710656", b"9" * 30, b"NaN")


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to four changes: bits, bytes, numbers, the header's values, parts taken out, doubled or of another stream."""
    for _ in range(rng.randint(1, 4)):
        kind, at = rng.randrange(7), rng.randrange(len(data) or 1)
        end = at + rng.choice((1, 2, 4, 8, 64))
        if kind == 0 and data:
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + rng.randbytes(end - at) + data[end:]
        elif kind == 2:
            data = data[:at] + struct.pack("!I", rng.choice(_WORDS)) + data[at + 4 :]
        elif kind == 3:
            values = list(re.finditer(rb": ([^,}]*)", data[:100]))
            if values:
                found = rng.choice(values)
                data = data[: found.start(1)] + rng.choice(_VALUES) + data[found.end(1) :]
                if rng.random() < 0.8 and b"}" in data:
                    data = data[:5] + struct.pack("!I", max(0, data.index(b"}") - 8)) + data[9:]
        elif kind == 4:
            data = data[:at] + data[end:]
        elif kind == 5:
            data = data[:at] + data[at:end] + data[at:]
        else:
            data = data[:at] + other[rng.randrange(len(other)) :]
    return data


def attack(rounds: int, seed: int) -> dict[str, int]:
    """Reads damaged streams of every kind; counts what came of it."""
    rng = random.Random(seed)
    models = {name: lm for name, (_, _, lm) in STREAMS.items()}
    whole = {name: written(h, parts_of(h, samples), samples, lm) for name, (h, samples, lm) in STREAMS.items()}
    outcomes = {"refused": 0, "read": 0}
    for _ in range(rounds):
        name, other = rng.choice(list(whole)), rng.choice(list(whole))
        data = mutate(rng, whole[name], whole[other])
        start = perf_counter()
        try:
            header, parts = read(data, models[name])
        except DecodeError:
            outcomes["refused"] += 1
        except ArgumentError as error:
            if not str(error).startswith("lm: the stream needs"):
                raise
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert header.problem() is None
            check_parts(header, parts)
        assert perf_counter() - start < 5.0, data
    return outcomes


def check_parts(header: ecdc.Header, parts: list[tuple[np.ndarray, float | None]]) -> None:
    samples, layout = header.samples, header.layout
    assert samples is not None
    assert len(parts) == layout.count(samples)
    for i, (codes, scale) in enumerate(parts):
        extra = codes.shape[1] - ecdc.steps(layout.length(i, samples))
        assert extra == 0 or (extra == 1 and i == len(parts) - 1)
        assert codes.shape[0] == header.codebooks
        assert codes.max() < 1024
        assert (scale is None) == (not layout.scaled)
        assert scale is None or 0 < scale < 1e9


def test_damaged_streams() -> None:
    tracemalloc.start()
    try:
        outcomes = attack(1500, seed=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert min(outcomes.values()) > 20, outcomes
    assert peak < 4 << 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_damaged_streams(seed: int) -> None:
    assert sum(attack(20000, seed).values()) == 20000
