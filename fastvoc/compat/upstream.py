"""Modules that hold one of fastvoc's models under another package's names and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from fastvoc.runtime.packing import fold_weight_norm

_PAIRS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


class Upstream(nn.Module):
    """A module that shares the parts of a model; `names` gives its top parts other names.

    The model itself is no part, so that every parameter has one name.
    """

    _model: Any

    def __init__(self, model: nn.Module, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        for name, part in model.named_children():
            self.add_module((names or {}).get(name, name), part)
        object.__setattr__(self, "_model", model)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """As `torch.nn.Module.load_state_dict`, of a state under upstream's names or this module's own.

        Raises ArgumentError for what the class says in its own words.
        """
        keys: _IncompatibleKeys = super().load_state_dict(self._own_state(state_dict), strict, assign)
        return keys

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state of any of the forms that upstream's files have, as `state_dict` gives it."""
        return state

    def apply_weight_norm(self) -> None:
        """Does nothing: states with weight norm are taken without it, and folded."""

    def remove_weight_norm(self) -> None:
        """Does nothing: weight norm is folded when the weights are read."""


class WeightNormed(Upstream):
    """An Upstream that takes states of modules with weight norm, in either of torch's namings, and without."""

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The same with the pairs of weight norm folded."""
        return folded(state)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with every pair of weight norm replaced by its weight; half a pair stays as it is."""
    result = dict(state)
    for magnitude, direction in _PAIRS:
        for name in state:
            module = name.removesuffix(magnitude)
            other = module + direction
            if module != name and other in state:
                with torch.no_grad():
                    result[f"{module}weight"] = fold_weight_norm(result.pop(name), result.pop(other))
    return result


class Attributes(dict[str, Any]):
    """A dictionary whose values are attributes, too: the `h` of the HiFi-GAN repositories."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def attributes(h: Any) -> Attributes:
    """A mapping, or any object with attributes, as `Attributes`."""
    return Attributes(h if isinstance(h, Mapping) else vars(h))
