"""Philox4x32-10, random numbers by position (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random 32-bit words for each counter of four and key of two: int64 tensors that hold 0..2^32 - 1."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        even, odd = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # 64 bits; int64 wraps, its bits are the unsigned ones
        c0, c1, c2, c3 = (odd >> 32) & _WORD ^ c1 ^ k0, odd & _WORD, (even >> 32) & _WORD ^ c3 ^ k1, even & _WORD
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def words(seed: Tensor, position: Tensor, rows: int, domain: int) -> Tensor:
    """[B, rows, S] random words: row r of position p is word r % 4 of the counter (p, r // 4, domain) under the seed.

    seed [B], position [B, S]: int64, 64 bits each, so that p takes two of the counter's words.
    """
    groups = torch.arange(-(-rows // 4), device=seed.device)[:, None]
    at = position[:, None]
    key = seed[:, None, None]
    counter = (at & _WORD, (at >> 32) & _WORD, groups, torch.full_like(groups, domain))
    drawn = philox(counter, (key & _WORD, (key >> 32) & _WORD))
    return torch.stack(drawn, 2).flatten(1, 2)[:, :rows]


def uniform(drawn: Tensor) -> Tensor:
    """Words -> float64 in [0, 1), multiples of 2^-24."""
    return (drawn >> 8).double() * 2.0**-24


def normal(drawn: Tensor) -> Tensor:
    """[B, R, S] words -> [B, R, S] float64, standard normal: rows 2i and 2i + 1 are a pair of Box and Muller.

    An even row is r cos a, an odd one r sin a, with r from the even row's upper 31 bits and a from the odd row's word.
    R is even.
    """
    radius = ((drawn[:, 0::2] >> 1).double() + 0.5) * 2.0**-31
    radius = (-2 * radius.log()).sqrt()
    angle = drawn[:, 1::2].double() * (2.0**-32 * 2 * torch.pi)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten(1, 2)
