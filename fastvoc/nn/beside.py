"""Layers whose weights are constants of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer


class Beside(Layer, nn.Module):
    """A layer of constants, which are where the weight of the layer beside it is, in float32 at least.

    `make` gives them, float32 on the CPU, whatever device is torch's default. No buffer: what builds a model without
    values and assigns them then would leave it without any, and files would hold them.
    """

    _beside: Any

    def __init__(self, beside: nn.Module, make: Callable[[], Tensor]) -> None:
        super().__init__()
        object.__setattr__(self, "_beside", beside)  # no part, so that every weight has one name
        self._make, self._made = make, _always(make)

    @property
    def constant(self) -> Tensor:
        """The constants, float32 or float64."""
        weight: Tensor = self._beside.weight
        made, wide = self._made, weight.dtype is torch.float64
        if made.device != weight.device or (made.dtype is torch.float64) is not wide:
            made = self._made = _always(self._make, weight.device, torch.float64 if wide else torch.float32)
        return made

    def _tensors(self) -> list[Tensor]:
        return [self.constant]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.constant  # noqa: B018  # follows now, not in the first call, which may be one that records a graph
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_made"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_made": _always(state["_make"])})


@torch.inference_mode(False)
def _always(make: Callable[[], Tensor], device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """What calls of every kind share: never an inference tensor."""
    return make().to(device, dtype)
