"""What was wrong with values on a device, remembered there until the host asks, which alone makes it wait."""

from __future__ import annotations

import torch
from torch import Tensor

CODES, NOT_FINITE = "codes", "not finite"
_flags: dict[tuple[torch.device, str], Tensor] = {}


def flag(device: torch.device, kind: str) -> Tensor:
    """int32 [1] on a device, the same one for all that run there: 0 until something of this kind was met."""
    key = (device, kind)
    if key not in _flags:
        with torch.inference_mode(False):
            made = torch.zeros(1, dtype=torch.int32, device=device)
        return _flags.setdefault(key, made)
    return _flags[key]


def note(kind: str, wrong: Tensor) -> None:
    """Sets the flag of the device of `wrong`, booleans of any shape, where one of them is true."""
    flag(wrong.device, kind).bitwise_or_(wrong.any())


def take(device: torch.device, kind: str) -> bool:
    """Whether the flag was set since the last call; waits for the device, and unsets it."""
    known = _flags.get((device, kind))
    if known is None or not known.item():
        return False
    known.zero_()
    return True
