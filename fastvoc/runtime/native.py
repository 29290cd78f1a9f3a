"""A native op stated once: a named tuple of what is packed for it, and a fake, which says what its calls add and make.

The op's schema is read from both: the fields of the tuple by their annotations, then the inputs of a call. So what is
packed is spread into a call, `op(*packed, x, ...)`, and a call with everything but its inputs is a `partial` of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

import torch
from torch import Tensor

from fastvoc.runtime import library as _library
from fastvoc.runtime.lengths import on_device

_Packed = TypeVar("_Packed", bound=tuple[Any, ...])
_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "int",
    bool: "bool",
    float: "float",
    list[int]: "int[]",
    list[float]: "float[]",
    list[Tensor]: "Tensor[]",
    tuple[Tensor, Tensor]: "(Tensor, Tensor)",
    tuple[Tensor, Tensor, Tensor]: "(Tensor, Tensor, Tensor)",
}


class Nothing(NamedTuple):
    """What is packed where there is nothing to pack."""


class Native(Generic[_Packed]):
    """A native op in the namespace `_fastvoc` on what is packed as `packed`, a class made of NamedTuple.

    fake(packed, x, ...) gives an empty output; `body` takes the same and computes, where no library does. The inputs of
    a call are those of the function `inputs`, else of the body or the fake, without what is packed, which it names
    `params` or takes first. What is named in `mutates` is changed in place.
    """

    def __init__(
        self,
        name: str,
        packed: type[_Packed],
        fake: Callable[..., Any],
        inputs: Callable[..., Any] | None = None,
        mutates: Sequence[str] = (),
        body: Callable[..., Any] | None = None,
    ) -> None:
        self.name, self._class = name, packed
        said = inputs or body or fake
        fields = get_type_hints(packed)
        self._count = len(fields)
        taken = [_argument(key, kind, mutates) for key, kind in fields.items()] + _inputs(said, mutates)
        _library.define(f"{name}({', '.join(taken)}) -> {_TYPES[get_type_hints(said)['return']]}")
        torch.library.register_fake(f"_fastvoc::{name}", self._spread(fake))
        if body is not None:
            torch.library.impl(f"_fastvoc::{name}", ("CPU", "CUDA"), self._spread(body))
        self.op: Callable[..., Any] = getattr(torch.ops._fastvoc, name).default

    def run(self, x: Tensor, packed: _Packed, *args: Tensor | int | None) -> Tensor:
        """The op on x and the further inputs of a call; lengths and other whole numbers may be on the CPU."""
        there = [a if a is None or isinstance(a, int) else on_device(a, x) for a in args]
        y: Tensor = self.op(*packed, x, *there)
        return y

    @cached_property
    def fast(self) -> Callable[..., Any]:
        """The op for the hot paths: past the Python method around it, which torch.compile would need."""
        return _library.native(self.name)

    def bound(self, packed: Sequence[Any]) -> Callable[..., Any]:
        """The op on what is packed, or on the first fields of it, for the hot paths; all it is called with is there."""
        return partial(self.fast, *packed)

    def _spread(self, function: Callable[..., Any]) -> Callable[..., Any]:
        count, make = self._count, self._class

        def called(*args: Any, **kwargs: Any) -> Any:
            return function(make(*args[:count]), *args[count:], **kwargs)

        return called


def _inputs(function: Callable[..., Any], mutates: Sequence[str]) -> list[str]:
    """The inputs of a call as a schema has them."""
    hints, taken = get_type_hints(function), list(inspect.signature(function).parameters.values())
    packed = next((p for p in taken if p.name == "params"), taken[0])
    inputs = [p for p in taken if p is not packed]
    return [_argument(p.name, hints[p.name], mutates) + ("=None" if p.default is None else "") for p in inputs]


def _argument(name: str, kind: Any, mutates: Sequence[str]) -> str:
    declared = _TYPES[kind]
    if name in mutates:
        declared = declared.replace("Tensor", f"Tensor({chr(ord('a') + mutates.index(name))}!)")
    return f"{declared} {name}"


def like_rows(_: object, x: Tensor, *__: object) -> Tensor:
    """The fake of an op that keeps the shape [B, C, T] and makes it time-major."""
    return x.new_empty((x.shape[0], x.shape[2], x.shape[1])).transpose(1, 2)
