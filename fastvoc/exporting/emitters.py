"""How layers write their nodes: which function does it for the parameters of an op, or for a part of its own kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastvoc.exporting.wire import Wire
from fastvoc.nn.layer import Layer, Part, Plain

Emit = Callable[..., Wire]  # (parameters or part, x, further inputs) -> what it makes
_Emit = TypeVar("_Emit", bound=Emit)

BY_PARAMS: dict[type, Emit] = {}
BY_PART: dict[type, Emit] = {}


def emits(params: type) -> Callable[[_Emit], _Emit]:
    """Notes what writes an op with parameters of this class: (params, x, *further inputs)."""
    return _noting(BY_PARAMS, params)


def emits_part(part: type[Part]) -> Callable[[_Emit], _Emit]:
    """Notes what writes a part that is more than its op: (part, x, *further inputs)."""
    return _noting(BY_PART, part)


def _noting(table: dict[type, Emit], key: type) -> Callable[[_Emit], _Emit]:
    def note(function: _Emit) -> _Emit:
        table[key] = function
        return function

    return note


def emit(part: Part, x: Wire, *more: Wire | None) -> Wire:
    """The nodes of a part. Raises ExportError, which names it, where nothing here writes its like."""
    own = next((BY_PART[cls] for cls in type(part).__mro__ if cls in BY_PART), None)
    if own is not None:
        return own(part, x, *more)
    if isinstance(part, Plain):
        made: object = part.compute(x, *more, None)  # type: ignore[arg-type]  # torch's functions take wires
        assert isinstance(made, Wire)
        return made
    params = part.prepared.params() if isinstance(part, Layer) else None
    if getattr(params, "int8", False):
        raise x.graph.refuse("int8 layers cannot be exported; load the model with dtype='fp32'")
    if type(params) not in BY_PARAMS:
        raise x.graph.refuse(f"{type(part).__name__} cannot be exported")
    return BY_PARAMS[type(params)](params, x, *more)
