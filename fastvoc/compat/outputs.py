"""What transformers-style classes return: values by name, by attribute and by place."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import fields
from typing import Any

import torch


class ModelOutput(OrderedDict[str, Any]):
    """Base of outputs; a subclass is a dataclass of fields. A field that is None has no key and no place."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value

    def __getitem__(self, key: str | int | slice) -> Any:
        """By name, or as a tuple's element or slice."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in the order of the fields."""
        return tuple(super(ModelOutput, self).__getitem__(key) for key in self)


class BatchFeature(UserDict[str, Any]):
    """What a feature extractor returns: a dictionary whose values are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:
            raise AttributeError(name)
        return self.data[name]

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Moves the tensors, and casts those of floating-point type, as `torch.Tensor.to` does."""
        device = kwargs.get("device", next((a for a in args if isinstance(a, str | int | torch.device)), None))
        for name, value in self.data.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.data[name] = value.to(*args, **kwargs)
            elif isinstance(value, torch.Tensor) and device is not None:
                self.data[name] = value.to(device)
        return self
