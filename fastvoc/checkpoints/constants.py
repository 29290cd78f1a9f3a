"""Comparing a constant in a file with the one that the model computes with, at the precision of the file."""

from __future__ import annotations

import torch
from torch import Tensor

_NARROW = (torch.bfloat16, torch.float16, torch.float32)


def off_by(value: Tensor, expected: Tensor, tolerance: float) -> float | None:
    """None when `value` is `expected` but for `tolerance` and rounding, otherwise the largest difference.

    The precision is the narrowest that holds every value: that of the file, or one which the file had before.
    """
    value, wide = value.detach().cpu(), expected.double()
    held = (dtype for dtype in _NARROW if torch.equal(value.to(dtype).to(value.dtype), value))
    kind = max(map(torch.finfo, (value.dtype, *held)), key=lambda kind: kind.eps)
    difference = (value.double() - wide).abs()
    if bool((difference <= tolerance + kind.eps / 2 * wide.abs().clamp(min=kind.smallest_normal)).all()):
        return None
    return float(difference.max())
