"""Configurations that may not change once their model is made: no release says what upstream would do with them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING

from fastvoc.errors import ArgumentError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Fixed:
    """The values of a configuration when its model was made."""

    def __init__(self, config: DataclassInstance) -> None:
        self._values = deepcopy(vars(config))
        self._names = [field.name for field in fields(config)]

    def check(self, config: DataclassInstance) -> None:
        """Raises ArgumentError naming the field that is another now."""
        now = vars(config)
        if now == self._values:
            return
        for name in self._names:
            if now.get(name) != self._values[name]:
                made = f"the model was made with {self._values[name]!r}, got {now.get(name)!r}"
                raise ArgumentError(f"config.{name}: {made}; make a model of the changed configuration")
