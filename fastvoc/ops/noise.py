"""Normal noise that depends on seed, position and channel alone."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.ops import _philox

_DOMAIN, _DITHER, _SIGNALS = 2, 3, 4  # signals go on from there


def normal_noise(seed: Tensor, channels: int, steps: int, start: int | Tensor = 0) -> Tensor:
    """[B] int64 seeds -> [B, channels, steps] float64, standard normal: the steps from `start` (one, or [B]) on of each
    item's noise.

    Counter-based (Philox4x32-10 and Box-Muller): neither the batch nor the range asked for changes a value.
    """
    begin = torch.as_tensor(start, device=seed.device).expand(len(seed))
    position = begin[:, None] + torch.arange(steps, device=seed.device)
    drawn = _philox.words(seed, position, channels + channels % 2, _DOMAIN)
    return _philox.normal(drawn)[:, :channels]


def noise_signal(seed: Tensor, steps: int, start: int | Tensor = 0, number: int = 0) -> Tensor:
    """[B] int64 seeds -> [B, 1, steps] float64, standard normal: the steps from `start` (one, or [B]) on of the signal
    `number` of each item's noise.

    As `normal_noise`, of one channel: four steps in a row are drawn together.
    """
    begin = torch.as_tensor(start, device=seed.device).expand(len(seed))
    first = begin // 4
    position = first[:, None] + torch.arange((steps + 6) // 4, device=seed.device)
    drawn = _philox.normal(_philox.words(seed, position, 4, _SIGNALS + number)).transpose(1, 2).flatten(1)
    at = (begin - 4 * first)[:, None] + torch.arange(steps, device=seed.device)
    return drawn.gather(1, at)[:, None]


def triangular_noise(seed: Tensor, steps: int, start: int = 0) -> Tensor:
    """[B] int64 seeds -> [B, steps] float32 in -1..1, the difference of two uniform numbers, from position `start` on.

    Counter-based like `normal_noise`.
    """
    position = start + torch.arange(steps, dtype=torch.int64, device=seed.device).expand(len(seed), steps)
    drawn = _philox.uniform(_philox.words(seed, position, 2, _DITHER))
    return (drawn[:, 0] - drawn[:, 1]).float()
