"""Modules that stay in float32 or float64 where the network around them is cast to less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_NARROW = (torch.float16, torch.bfloat16)


class Wide(nn.Module):
    """A module for which a cast to float16 or bfloat16 only moves its tensors to the device."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def wide(t: Tensor) -> Tensor:
            changed = fn(t)
            return t.to(changed.device) if changed.dtype in _NARROW and self.stays_wide(changed.device) else changed

        return super()._apply(wide, recurse)

    def stays_wide(self, device: torch.device) -> bool:
        """Whether the cast spares the tensors that it moves there."""
        return True


class WideOnCpu(Wide):
    """A module that stays wide on the CPU only, where wide multiplications cost little."""

    def stays_wide(self, device: torch.device) -> bool:
        return device.type == "cpu"
