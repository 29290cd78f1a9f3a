"""Activations and small functions inside kernels, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

IDENTITY, LEAKY_RELU, TANH, ELU, GELU, SNAKE = range(6)
KINDS = ("identity", "leaky_relu", "tanh", "elu", "gelu", "snake")


@triton.jit
def sin_squared(x):
    """sin(x)^2: x modulo pi by three constants whose products are exact, then a polynomial; NaN for infinity."""
    k = tl.floor(x * 0.3183098861837907 + 0.5)
    r = x - k * 3.140625
    r = r - k * 9.67502593994140625e-4
    r = r - k * 1.50995799097837867e-7
    r = tl.where((r > 1.6) | (r < -1.6), 0.0, r)  # so large an argument has no phase left
    q = r * r
    s = 2.6057805e-6 * q - 1.9809602e-4
    s = s * q + 8.3330255e-3
    s = s * q - 1.6666656e-1
    s = s * q * r + r
    return s * s


@triton.jit
def sin_cos_from(q, r):
    """Sine and cosine of q quarter turns, a whole number, and r radians, |r| <= pi / 4."""
    z = r * r
    s = 2.7557319e-6 * z - 1.9841270e-4
    s = s * z + 8.3333333e-3
    s = s * z - 1.6666667e-1
    s = s * z * r + r
    c = -2.7557319e-7 * z + 2.4801587e-5
    c = c * z - 1.3888889e-3
    c = c * z + 4.1666667e-2
    c = c * z - 0.5
    c = c * z + 1.0
    turn = q - 4.0 * tl.floor(q * 0.25)
    odd = (turn == 1.0) | (turn == 3.0)
    sine = tl.where(odd, c, s)
    cosine = tl.where(odd, s, c)
    return tl.where(turn >= 2.0, -sine, sine), tl.where((turn == 1.0) | (turn == 2.0), -cosine, cosine)


@triton.jit
def sin_cos_cycles(cycles):
    """Sine and cosine of an angle in cycles, each accurate for |cycles| < 2^21."""
    q = tl.floor(cycles * 4.0 + 0.5)
    sine, cosine = sin_cos_from(q, (cycles - q * 0.25) * 6.283185307179586)
    return sine, cosine


@triton.jit
def sin_cos(x):
    """Sine and cosine of x radians: x modulo pi / 2 by three constants, then polynomials."""
    q = tl.floor(x * 0.6366197723675814 + 0.5)
    r = x - q * 1.5703125
    r = r - q * 4.837512969970703125e-4
    r = r - q * 7.54978995489188e-8
    sine, cosine = sin_cos_from(q, tl.where((r > 0.8) | (r < -0.8), 0.0, r))
    return sine, cosine


@triton.jit
def expm1(x):
    """e^x - 1 for x <= 0."""
    z = x * x
    small = 1.0 / 120.0 * x + 1.0 / 24.0
    small = small * x + 1.0 / 6.0
    small = small * x + 0.5
    small = small * z + x
    return tl.where(x > -0.125, small, tl.exp(x) - 1.0)


@triton.jit
def tanh(x):
    """Through e^(-2 |x|), which cannot overflow."""
    a = tl.abs(x)
    e = expm1(-2.0 * a)
    y = -e / (e + 2.0)
    return tl.where(x < 0, -y, y)


@triton.jit
def activate(x, alpha, inverse, KIND: tl.constexpr, SLOPE: tl.constexpr):
    """An activation of float32 values; KIND by its place in KINDS, alpha and inverse only for a snake."""
    if KIND == 1:
        x = tl.where(x > 0, x, x * SLOPE)
    elif KIND == 2:
        x = tanh(x)
    elif KIND == 3:
        x = tl.where(x > 0, x, expm1(tl.where(x > 0, 0.0, x)))
    elif KIND == 4:
        x = 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
    elif KIND == 5:
        x = x + sin_squared(alpha * x) * inverse
    return x


@triton.jit
def curves_at(curves, place, KIND: tl.constexpr):
    """Where the curves of an activation begin; `place` points to how far behind `curves` that is."""
    return curves + tl.multiple_of(tl.load(place), 16) if KIND == 5 else curves


@triton.jit
def activate_channels(x, curves, c, within, apart, KIND: tl.constexpr, SLOPE: tl.constexpr):
    """An activation of x [rows, channels c] in float32.

    A snake's alpha [channels] lies at `curves`, its inverse `apart` values behind; `within` says where c is one of
    them, None for everywhere.
    """
    alpha = 0.0
    inverse = 0.0
    if KIND == 5:
        if within is None:
            alpha = tl.load(curves + c)[None, :]
            inverse = tl.load(curves + apart + c)[None, :]
        else:
            alpha = tl.load(curves + c, mask=within, other=0.0)[None, :]
            inverse = tl.load(curves + apart + c, mask=within, other=0.0)[None, :]
    return activate(x, alpha, inverse, KIND, SLOPE)
