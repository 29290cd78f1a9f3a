"""What transformers-style classes return: values by name, by attribute and by place."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, NoReturn

import numpy as np
import torch
from torch.utils import _pytree as pytree  # what accelerate and torch's own parallel modules walk through

from fastvoc.errors import ArgumentError, FastvocError


class ModelOutput(OrderedDict[str, Any]):
    """Base of outputs; a subclass is a dataclass of fields. A field that is None has no key and no place.

    An attribute and its key are one value, whichever is set. A mapping, or pairs, may take the place of the fields.
    Every subclass is a node of torch's pytrees.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()

        def unflatten(values: Iterable[Any], names: list[str]) -> ModelOutput:
            output = cls()
            for name, value in zip(names, values, strict=True):
                output[name] = value
            return output

        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output)),
            unflatten,
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
            flatten_with_keys_fn=lambda output: (
                [(pytree.MappingKey(name), value) for name, value in output.items()],
                list(output),
            ),
        )

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # every subclass is a dataclass
        first = getattr(self, names[0])
        if first is None or isinstance(first, torch.Tensor) or len(self) > 1:
            return
        pairs = _pairs(first)
        if pairs is not None:
            for name, value in [(names[0], None), *pairs]:
                if value is None:
                    setattr(self, name, None)
                else:
                    self[name] = value

    def __getitem__(self, key: str | int | slice) -> Any:
        """By name, or as a tuple's element or slice."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in getattr(self, "__dataclass_fields__", ()):
            if value is not None:
                super().__setitem__(name, value)
            elif name in self:
                super().__delitem__(name)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in the order of the keys."""
        return tuple(self.values())

    def __reduce__(self) -> Any:
        own = {name: value for name, value in vars(self).items() if name not in self}
        own = {name: value for name, value in own.items() if name not in getattr(self, "__dataclass_fields__", ())}
        return type(self), (), own or None, None, iter(self.items())

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise FastvocError(f"{type(self).__name__}: keys are set one by one, and None as an attribute removes one")

    __delitem__ = __delattr__ = setdefault = pop = popitem = update = clear = _refuse


def _pairs(value: Any) -> list[tuple[str, Any]] | None:
    """The pairs of name and value in a mapping, a list or an iterator; None for anything else."""
    if not isinstance(value, Mapping | list | tuple | Iterator):
        return None
    pairs = list(value.items() if isinstance(value, Mapping) else value)
    named = [isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs]
    return [(name, item) for name, item in pairs] if pairs and all(named) else None


class BatchFeature(UserDict[str, Any]):
    """What a feature extractor returns: a dictionary whose values are attributes, too.

    Args:
        data: the values by name.
        tensor_type: "pt" or "np" for `convert_to_tensors`; None leaves the values as they are.
        skip_tensor_conversion: names that it leaves as they are.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        tensor_type: str | None = None,
        skip_tensor_conversion: Iterable[str] | None = None,
    ) -> None:
        super().__init__(data)
        self.skip_tensor_conversion = skip_tensor_conversion
        self.convert_to_tensors(tensor_type)

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:
            raise AttributeError(name)
        return self.data[name]

    def convert_to_tensors(
        self, tensor_type: str | None = None, skip_tensor_conversion: Iterable[str] | None = None
    ) -> BatchFeature:
        """Makes tensors ("pt") or arrays ("np") of arrays and lists; None leaves everything as it is.

        Raises ArgumentError for another type and for a value whose items differ in length, before any is replaced.
        """
        kind = getattr(tensor_type, "value", tensor_type)  # an enumeration's member, too
        if kind not in (None, "pt", "np"):
            raise ArgumentError(f"tensor_type: expected pt, np or None, got {tensor_type!r}")
        skipped = set(skip_tensor_conversion or self.skip_tensor_conversion or ())
        if kind is not None:
            made = {name: _converted(name, value, kind) for name, value in self.data.items() if name not in skipped}
            self.data.update(made)
        return self

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Moves the tensors, and casts those of floating-point type, as `torch.Tensor.to` does."""
        device = kwargs.get("device", next((a for a in args if isinstance(a, str | int | torch.device)), None))
        for name, value in self.data.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.data[name] = value.to(*args, **kwargs)
            elif isinstance(value, torch.Tensor) and device is not None:
                self.data[name] = value.to(device)
        return self


def _converted(name: str, value: Any, kind: str) -> Any:
    if not isinstance(value, torch.Tensor | np.ndarray | list | tuple | int | float):
        return value
    if kind == "pt" and isinstance(value, torch.Tensor):
        return value
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
            value = torch.stack(tuple(value))
        if isinstance(value, torch.Tensor):
            return value if kind == "pt" else value.numpy(force=True)
        array = np.asarray(value)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ArgumentError(f"{name}: makes no one tensor: {error}") from None
    if kind == "np":
        return array
    if array.dtype.kind not in "biuf":
        return value
    # torch.tensor makes float32 of plain numbers.
    plain = not isinstance(value, np.ndarray) and not (isinstance(value, list | tuple) and _arrays(value))
    return torch.tensor(value, device="cpu") if plain else torch.from_numpy(array)


def _arrays(value: Any) -> bool:
    return bool(value) and (isinstance(value[0], np.ndarray) or (isinstance(value[0], list) and _arrays(value[0])))
