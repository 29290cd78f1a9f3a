"""Normal noise that depends on seed, position and channel alone."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.ops import _philox

_DOMAIN, _DITHER = 2, 3


def normal_noise(seed: Tensor, channels: int, steps: int, start: int | Tensor = 0) -> Tensor:
    """[B] int64 seeds -> [B, channels, steps] float64, standard normal: the steps from `start` (one, or [B]) on of each
    item's noise.

    Counter-based (Philox4x32-10 and Box-Muller): neither the batch nor the range asked for changes a value.
    """
    begin = torch.as_tensor(start, device=seed.device).expand(len(seed))
    position = begin[:, None] + torch.arange(steps, device=seed.device)
    drawn = _philox.words(seed, position, channels + channels % 2, _DOMAIN)
    return _philox.normal(drawn)[:, :channels]


def triangular_noise(seed: Tensor, steps: int, start: int = 0) -> Tensor:
    """[B] int64 seeds -> [B, steps] float32 in -1..1, the difference of two uniform numbers, from position `start` on.

    Counter-based like `normal_noise`.
    """
    position = start + torch.arange(steps, dtype=torch.int64, device=seed.device).expand(len(seed), steps)
    drawn = _philox.uniform(_philox.words(seed, position, 2, _DITHER))
    return (drawn[:, 0] - drawn[:, 1]).float()
