"""Codes of several rates in one tensor: the codes of a frame one below the other, the coarse codebook's first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvoc.errors import ShapeError


def packed(levels: Sequence[Tensor], rates: Sequence[int]) -> Tensor:
    """Codes [..., frames * rates[k]] of every codebook k in order of time -> [..., sum(rates), frames].

    `rates` may be of more codebooks than there are levels. Raises ShapeError for levels that do not fit together.
    """
    shapes = [list(level.shape) for level in levels]
    fits = 1 <= len(levels) <= len(rates) and all(level.dim() in (1, 2) for level in levels)
    if fits:
        lead, frames = levels[0].shape[:-1], levels[0].shape[-1] // rates[0]
        wanted = [[*lead, frames * rate] for rate in rates[: len(levels)]]
        fits = shapes == wanted
    if not fits:
        parts = " : ".join(map(str, rates))
        raise ShapeError(f"codes: expected 1..{len(rates)} levels [T_k] or [B, T_k] with T_k as {parts}, got {shapes}")
    rows = [level.unflatten(-1, (frames, rate)).mT for level, rate in zip(levels, rates, strict=False)]
    return torch.cat(rows, -2)


def unpacked(codes: Tensor, rates: Sequence[int]) -> list[Tensor]:
    """Codes [..., sum(rates), frames] -> those of every codebook in order of time, [..., frames * rate]."""
    return [rows.mT.flatten(-2) for rows in codes.split(list(rates), -2)]
