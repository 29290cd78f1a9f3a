"""The bit packer and the arithmetic coder: compiled and in Python the same, and right where numbers carry far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvoc.ecdc import coder
from helpers import GoldenCase, need

TOTAL = 1 << 24


@pytest.fixture(params=["python", "cpp"])
def impl(request: pytest.FixtureRequest) -> Any:
    if request.param == "cpp":
        need("native", coder.problem())
    return coder.implementation(request.param)


def both() -> list[Any]:
    need("native", coder.problem())
    return [coder.implementation(name) for name in ("cpp", "python")]


def table(*weights: float) -> np.ndarray:
    """Cumulative frequencies [1, N] that end at 2^24."""
    shares = np.floor(np.array(weights) / sum(weights) * (TOTAL - 2 * len(weights))).astype(np.int64) + 2
    shares[np.argmax(shares)] += TOTAL - shares.sum()
    return np.cumsum(shares).astype(np.uint32)[None]


def encode(impl: Any, symbols: list[int], tables: list[np.ndarray]) -> bytes:
    encoder = impl.ArithmeticEncoder()
    parts = []
    for symbol, cdf in zip(symbols, tables, strict=True):
        encoder.push(np.array([symbol], np.uint16), cdf)
        parts.append(encoder.take())
    return b"".join([*parts, encoder.finish()])


def decode(impl: Any, data: bytes, tables: list[np.ndarray], window: int = 6) -> list[int]:
    decoder, symbols, at = impl.ArithmeticDecoder(), [], 0
    for cdf in tables:
        found, used = decoder.pull(cdf, data[at : at + window])
        symbols.append(int(found[0]))
        at += used
    assert at == len(data)
    return symbols


def test_an_unbuilt_coder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from fastvoc.ecdc import coder_python

    monkeypatch.setattr(coder, "__file__", str(tmp_path / "ecdc" / "coder.py"))
    coder.problem.cache_clear()
    try:
        assert coder.problem() == "the coder is not built (pure-Python install)"
        assert coder.implementation() is coder_python
        monkeypatch.setattr(coder, "_MODULE", "_C_coder_of_another")
        (tmp_path / "_C_coder_of_another.cpython-27.so").touch()
        coder.problem.cache_clear()
        assert "another Python (_C_coder_of_another.cpython-27.so)" in str(coder.problem())
    finally:
        coder.problem.cache_clear()


@given(st.data())
def test_packing_is_the_same_in_both(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 16))
    codes = np.array(data.draw(st.lists(st.integers(0, (1 << width) - 1), max_size=40)), np.uint16)
    bits = "".join(f"{code:0{width}b}"[::-1] for code in codes.tolist())
    expected = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    for impl in both():
        assert impl.pack(codes, width) == expected
        assert impl.unpack(expected, width, len(codes)).tolist() == codes.tolist()
        assert impl.unpack(expected + b"\xff", width, len(codes)).dtype == np.uint16


@pytest.mark.parametrize("count", range(1, 9))
def test_the_last_byte_may_be_begun(count: int) -> None:
    for impl in both():
        assert impl.pack(np.full(count, 1, np.uint16), 1) == bytes([(1 << count) - 1])


def test_packing_refuses(impl: Any) -> None:
    with pytest.raises(ValueError, match="fit"):
        impl.pack(np.array([1024], np.uint16), 10)
    with pytest.raises(TypeError):
        impl.pack(np.array([-1], np.int64), 10)
    for width in (0, 17):
        with pytest.raises(ValueError, match="width"):
            impl.pack(np.zeros(3, np.uint16), width)
    for count in (5, 1 << 40, (1 << 61) + 1):
        with pytest.raises(EOFError):
            impl.unpack(bytes(6), 10, count)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1e-9, 0.01, 0.5, 1.0, 30.0])), max_size=200))
def test_the_code_is_the_same_in_both(steps: list[tuple[int, float]]) -> None:
    symbols = [symbol for symbol, _ in steps]
    tables = [table(*(weight if i == symbol else 1.0 for i in range(5))) for symbol, weight in steps]
    codes = [encode(impl, symbols, tables) for impl in both()]
    assert codes[0] == codes[1]
    for impl in both():
        assert decode(impl, codes[0], tables) == symbols


def around_the_middle(length: int) -> list[np.ndarray]:
    """Tables whose symbol 1 keeps both 0111... and 1000... possible, step after step."""
    tables, low, width, digits = [], 0, 1, 0
    for _ in range(length):
        while width < TOTAL:
            low, width, digits = low * 2, width * 2, digits + 1
        middle = ((1 << digits - 1) - low) * TOTAL // width
        first, end = middle - 100000, middle + 100000
        tables.append(np.array([[first, end, TOTAL]], np.uint32))
        begin = -(-first * width // TOTAL)
        low, width = low + begin, (end - 1) * width // TOTAL - begin + 1
    return tables


@pytest.mark.parametrize("length", [1, 20, 700])
def test_carries_run_far(length: int) -> None:
    tables = around_the_middle(length + 1)
    for last, run in (0, "0" + "1" * 6 * length), (2, "1" + "0" * 6 * length):
        symbols = [1] * length + [last]
        codes = [encode(impl, symbols, tables) for impl in both()]
        assert codes[0] == codes[1]
        digits = "".join(f"{byte:08b}"[::-1] for byte in codes[0])
        assert digits.startswith(run)
        for impl in both():
            assert decode(impl, codes[0], tables, window=9) == symbols


def test_long_codes_are_given_out_as_they_come(impl: Any) -> None:
    encoder = impl.ArithmeticEncoder()
    cdf = np.repeat(table(*[1.0] * 1024), 8, axis=0)
    sizes = []
    for t in range(200):
        encoder.push(np.arange(t, t + 8, dtype=np.uint16), cdf)
        sizes.append(len(encoder.take()))
    assert 9 <= min(sizes[3:]) <= max(sizes) <= 11
    assert len(encoder.finish()) < 8


def test_a_new_code_begins_after_the_end(impl: Any) -> None:
    encoder = impl.ArithmeticEncoder()
    assert encoder.finish() == b""
    made = []
    for _ in range(2):
        encoder.push(np.array([1, 0], np.uint16), np.repeat(table(1.0, 2.0), 2, axis=0))
        made.append(encoder.take() + encoder.finish())
    assert made[0] == made[1]
    assert len(made[0]) == 4


@pytest.mark.golden
def test_golden_probabilities_give_the_golden_code(impl: Any, golden: Callable[[str], GoldenCase]) -> None:
    from fastvoc.models.encodec_lm import quantised_cdf

    case = golden("encodec_ecdc")
    cdf = quantised_cdf(case.outputs["lm_probs_mono"])
    assert np.array_equal(cdf[:3].astype(np.int64), case.outputs["lm_cdf_mono"].numpy())
    codes = case.outputs["codes_mono"][0].numpy().astype(np.uint16).T
    data = (case.dir / "mono_lm.ecdc").read_bytes()
    data = data[9 + data[8] :]
    encoder, decoder, made, at = impl.ArithmeticEncoder(), impl.ArithmeticDecoder(), b"", 0
    for column, step in zip(np.ascontiguousarray(codes), cdf, strict=True):
        encoder.push(column, step)
        made += encoder.take()
        found, used = decoder.pull(step, data[at : at + 16])
        assert np.array_equal(found, column)
        at += used
    assert made + encoder.finish() == data
    assert at == len(data)


def test_the_coder_refuses(impl: Any) -> None:
    good = table(1.0, 1.0)
    one = np.array([0], np.uint16)
    for cdf, reason in (
        (np.array([[TOTAL - 1, TOTAL]], np.uint32), "steps"),
        (np.array([[5, TOTAL + 1]], np.uint32), "steps"),
        (np.zeros((1, 0), np.uint32), "shape"),
        (np.zeros((1, 1 << 17), np.uint32), "shape"),
        (np.zeros(4, np.uint32), "shape"),
    ):
        with pytest.raises(ValueError, match=reason):
            impl.ArithmeticEncoder().push(np.array([1], np.uint16), cdf)
    with pytest.raises(ValueError, match="outside"):
        impl.ArithmeticEncoder().push(np.array([2], np.uint16), good)
    with pytest.raises(ValueError, match="one for each row"):
        impl.ArithmeticEncoder().push(np.array([0, 0], np.uint16), good)
    with pytest.raises(TypeError):
        impl.ArithmeticEncoder().push(one, good.astype(np.float64))
    with pytest.raises(EOFError):
        impl.ArithmeticDecoder().pull(good, b"\x00\x00")


def test_a_code_between_two_symbols_belongs_to_none(impl: Any) -> None:
    # A share of 3 * 2^20 widens to 1.5 * 2^24, where the shares of the next table round apart.
    first = np.array([[3 << 20, TOTAL]], np.uint32)
    second = np.array([[1000, TOTAL]], np.uint32)
    outcomes = []
    for offset in (1498, 1499, 1500):
        bits = f"{offset:027b}" + "0" * 5
        data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, 32, 8))
        try:
            outcomes.append(decode(impl, data, [first, second]))
        except LookupError:
            outcomes.append([])
    assert outcomes == [[0, 0], [], [0, 1]]
