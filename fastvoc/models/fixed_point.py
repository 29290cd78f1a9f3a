"""Integer arithmetic in place of a network's real numbers: the same on every machine. Values are integers of 2^-16.

`csrc/coder/integer_lm.cpp` computes the same; here it is written down. All tables come from whole-number arithmetic of
any length, never from a machine's own exponentials.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

LIMIT = (1 << 30) - 1
ACTIVATION_BITS = 14
_LOG2_E = 1549082005  # 2^30 log2(e)
_EPSILON = 42950  # 2^32 1e-5
_GELU_END = 8 << 16
_BITS = 160  # of the tables' own arithmetic
_ONE = 1 << _BITS
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def clamp(x: Ints) -> Ints:
    """Within ±(2^30 - 1), so that the sum of two values always has room."""
    return np.clip(x, -LIMIT, LIMIT)


def shift_right(x: Ints, shift: int | Ints) -> Ints:
    """x / 2^shift to the nearest, halves up."""
    return np.asarray((x + (np.int64(1) << shift >> 1)) >> shift, np.int64)


def normalise(x: Ints, bits: int) -> tuple[Ints, int]:
    """`x` shifted down until `bits` bits and a sign hold it, and by how much."""
    shift = max(0, int(np.abs(x).max()).bit_length() - bits)
    return shift_right(x, shift), shift


def activation_bits(terms: int) -> int:
    """The most bits of a factor that keep a sum of so many products with 7-bit weights below 2^31."""
    return min(ACTIVATION_BITS, 31 - (127 * terms).bit_length())


def product_bits(terms: int) -> int:
    """The most bits of both factors that keep a sum of so many products below 2^31."""
    return min(ACTIVATION_BITS, (31 - terms.bit_length()) // 2)


def layer_norm(x: Ints, weight: Ints, bias: Ints) -> Ints:
    """(x - mean) / sqrt(variance + 1e-5) * weight + bias."""
    size = len(x)
    centred = x - (2 * int(x.sum()) + size) // (2 * size)
    d, shift = normalise(centred, 22)
    variance = int((d * d).sum()) // size + (_EPSILON >> 2 * shift)
    inverse = (1 << 52) // isqrt(variance << 16)
    return clamp(shift_right(shift_right(d * inverse, 28) * weight, 16) + bias)


def exp_negative(x: Ints) -> Ints:
    """2^30 exp(-x) for x >= 0."""
    table = exp2_table()
    t = x * _LOG2_E >> 30
    i, r = t >> 8 & 255, t & 255
    between = table[i] - ((table[i] - table[i + 1]) * r >> 8)
    return np.where(t >> 16 > 30, 0, between >> np.minimum(t >> 16, 30))


def gelu(x: Ints) -> Ints:
    """x times the standard normal distribution function of x, straight lines between steps of 2^-7."""
    table = gelu_table()
    inside = np.clip(x, -_GELU_END, _GELU_END - 1)
    i, r = (inside + _GELU_END) >> 9, inside & 511
    between = table[i] + shift_right((table[i + 1] - table[i]) * r, 9)
    return np.where(x >= _GELU_END, x, np.where(x < -_GELU_END, 0, between))


def cosine(turns: npt.NDArray[np.uint64]) -> Ints:
    """Cosine of an angle in units of 2^-64 turns."""
    table = cosine_table()
    i, r = (turns >> np.uint64(52)).astype(np.int64), (turns >> np.uint64(36) & np.uint64(0xFFFF)).astype(np.int64)
    return np.asarray(table[i] + shift_right((table[i + 1] - table[i]) * r, 16), np.int64)


@cache
def exp2_table() -> Ints:
    """2^30 2^(-i/256), i from 0 to 256."""
    root = _ONE // 2
    for _ in range(8):
        root = isqrt(root * _ONE)
    values = [_ONE]
    for _ in range(256):
        values.append(values[-1] * root >> _BITS)
    return _rounded(values, 30)


@cache
def cosine_table() -> Ints:
    """cos(2 pi i / 4096), i from 0 to 4096."""
    step = 0  # of a quarter of a turn, halved ten times
    for _ in range(10):
        step = isqrt((_ONE + step) * _ONE // 2)
    rise = isqrt(_ONE * _ONE - step * step)
    cos, sin, values = _ONE, 0, []
    for _ in range(4097):
        values.append(cos)
        cos, sin = (cos * step - sin * rise) >> _BITS, (sin * step + cos * rise) >> _BITS
    return _rounded(values, 16)


@cache
def gelu_table() -> Ints:
    """gelu(i / 128), i from -1024 to 1024."""
    with localcontext(Context(prec=60)):
        scale = int(_ONE / (2 * _PI).sqrt())
    positive = []
    for i in range(1025):
        x = i * _ONE // 128
        term, total, n = x, 0, 0
        while term:
            total += term // (2 * n + 1) * (-1) ** n
            n += 1
            term = (term * x >> _BITS) * x // (2 * n) >> _BITS
        positive.append(x * (_ONE // 2 + (total * scale >> _BITS)) >> _BITS)
    table = _rounded(positive, 16)
    # gelu(-x) = gelu(x) - x, and the steps are whole numbers of 2^-16.
    return np.concatenate([(table - 512 * np.arange(1025))[:0:-1], table])


@cache
def turns_per_step(size: int) -> npt.NDArray[np.uint64]:
    """How far each of `size` position channels turns in a step, in units of 2^-64 turns: from 1 radian to 1e-4."""
    with localcontext(Context(prec=60)):
        falls = [(Decimal(10000).ln() * -i / (size - 1)).exp() for i in range(size)]
        values = [int((fall * 2**64 / (2 * _PI)).to_integral_value()) for fall in falls]
    return np.array(values, np.uint64)


def _rounded(values: list[int], bits: int) -> Ints:
    return np.array([((value >> (_BITS - bits - 1)) + 1) >> 1 for value in values], np.int64)
