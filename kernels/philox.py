"""Philox4x32-10 inside kernels, by the counters of `fastvoc.ops._philox`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four random 32-bit words of counters and keys, all held in uint64."""
    for _ in tl.static_range(10):
        even = c0 * 0xD2511F53
        odd = c2 * 0xCD9E8D57
        c0 = (odd >> 32) ^ c1 ^ k0
        c1 = odd & 0xFFFFFFFF
        c2 = (even >> 32) ^ c3 ^ k1
        c3 = even & 0xFFFFFFFF
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


@triton.jit
def words(seed, position, group, DOMAIN: tl.constexpr):
    """Words 4 * group .. 4 * group + 3 of the positions [N], int64, under a seed."""
    at = position.to(tl.uint64, bitcast=True)
    key = seed.to(tl.uint64, bitcast=True)
    zero = at * 0
    k0 = zero + (key & 0xFFFFFFFF)
    k1 = zero + (key >> 32)
    return philox(at & 0xFFFFFFFF, at >> 32, zero + group, zero + DOMAIN, k0, k1)


@triton.jit
def cycles(word):
    """A word as a fraction of a turn, in [-1/2, 1/2)."""
    signed = (word << 32).to(tl.int64, bitcast=True) >> 32
    return signed.to(tl.float32) * 2.3283064365386963e-10


@triton.jit
def radius(word):
    """The radius of a pair of normal numbers, by Box and Muller, from a word's upper 31 bits."""
    u = ((word >> 1).to(tl.float64) + 0.5) * 4.656612873077393e-10
    return tl.sqrt((-2.0 * tl.log(u)).to(tl.float32))


@triton.jit
def unit(word):
    """A word as a number in [0, 1), a multiple of 2^-24."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08
