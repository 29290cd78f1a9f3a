"""Layers whose weights are constants of the configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer


class Beside(Layer, nn.Module):
    """A layer of constants, float32 on the CPU, which follow the weight of the layer beside it, in float32 at least.

    No buffer: what builds a model without values and assigns them then would leave it without any.
    """

    _beside: Any

    def __init__(self, beside: nn.Module, constant: Tensor) -> None:
        super().__init__()
        object.__setattr__(self, "_beside", beside)  # no part, so that every weight has one name
        self._given = self._made = constant

    @property
    def constant(self) -> Tensor:
        """The constants, float32 or float64."""
        weight: Tensor = self._beside.weight
        made, wide = self._made, weight.dtype is torch.float64
        if made.device != weight.device or (made.dtype is torch.float64) is not wide:
            with torch.inference_mode(False):
                made = self._made = self._given.to(weight.device, torch.float64 if wide else torch.float32)
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.constant  # noqa: B018  # follows now, not in the first call, which may be one that records a graph
        return self
