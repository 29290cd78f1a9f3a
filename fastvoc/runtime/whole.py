"""Whole numbers that a user gives: lengths, seeds, rows of a table, tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.errors import DtypeError


def whole_numbers(value: object, name: str) -> Tensor:
    """A tensor of any integer type, or a number or sequence of numbers, as int64; the latter on the CPU.

    Raises DtypeError, naming `name`, for anything else, truth values among them.
    """
    try:
        found = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DtypeError(f"{name}: expected whole numbers of 64 bits ({error})") from None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DtypeError(f"{name}: expected whole numbers, got {found.dtype}")
    return found.long()
