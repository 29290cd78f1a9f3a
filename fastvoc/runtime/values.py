"""Values that no signal has: NaN, infinity, and numbers so large that layers overflow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1e6  # in magnitude: more than any mel, F0 in Hz or sample of any unit has, and far below an overflow


def wrong_values(x: Tensor) -> str | None:
    """What there is in x that no signal has, None where all is well."""
    if not x.numel():
        return None
    low, high = (t.item() for t in x.detach().aminmax())  # NaN where one is; a seventh of what `isfinite` costs
    if low >= -LARGEST and high <= LARGEST:
        return None
    if math.isfinite(low) and math.isfinite(high):
        return f"{max(low, high, key=abs):.3g} (no signal is beyond {LARGEST:.0e})"
    return "NaN or infinity"


def are_wrong(x: Tensor) -> Tensor:
    """Which values `wrong_values` means."""
    return ~(x.float().abs() <= LARGEST)
