"""What stands for a tensor where a graph is written: arithmetic and torch's functions on it become nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ExportError
from fastvoc.exporting.package import number

Shape = Sequence[int | None]
Attribute = int | float | str | Sequence[int] | Sequence[float] | None
_LAST = 2**63 - 1


class Writer(Protocol):
    """What a wire needs of its graph (`fastvoc.exporting.graph.Graph`)."""

    def refuse(self, why: str) -> ExportError:
        """The error that the layer which is being written cannot be."""

    def add(
        self, kind: str, *inputs: Wire | None, shape: Shape, dtype: torch.dtype | None = None, **attributes: Attribute
    ) -> Wire:
        """A node with one output."""

    def add_all(
        self,
        kind: str,
        *inputs: Wire | None,
        shapes: Sequence[Shape],
        dtype: torch.dtype | None = None,
        **attributes: Attribute,
    ) -> list[Wire]:
        """A node with several outputs."""

    def weight(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Wire:
        """A tensor that the file holds."""

    def constant(self, values: float | bool | Sequence[int] | Sequence[float], dtype: torch.dtype) -> Wire:
        """A number, or a vector of them."""

    def next_seed(self) -> float:
        """That of the next random values."""


class Wire:
    """A tensor of a graph: its name, its type, and its axes, None where a length is open.

    Takes the operators and the torch functions that networks use between their layers (`FUNCTIONS`); another one
    raises ExportError, which names the layer.
    """

    def __init__(self, graph: Writer, name: str, dtype: torch.dtype, shape: Shape) -> None:
        self.graph, self.name, self.dtype, self.shape = graph, name, dtype, tuple(shape)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        graph = next(wire.graph for wire in _flat((args, kwargs or {})) if isinstance(wire, Wire))
        if func not in FUNCTIONS:
            name = getattr(func, "__name__", str(func))
            raise graph.refuse(f"{name} cannot be exported")
        return FUNCTIONS[func](*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else self.graph.refuse(f"{name} cannot be exported")

    def dim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def size(self, axis: int) -> Wire:
        """The length of an axis, int64 [1]."""
        known = self.shape[axis]
        if known is not None:
            return self.graph.constant([known], torch.int64)
        axis %= len(self.shape)
        return self.graph.add("Shape", self, shape=(1,), dtype=torch.int64, start=axis, end=axis + 1)

    def known(self, axis: int) -> int:
        """The length of an axis that is not open."""
        length = self.shape[axis]
        if length is None:
            raise self.graph.refuse(f"axis {axis} of open length, where a fixed one is needed")
        return length

    def to(self, dtype: torch.dtype) -> Wire:
        """The same values as another type."""
        if dtype is self.dtype:
            return self
        return self.graph.add("Cast", self, shape=self.shape, dtype=dtype, to=number(dtype))

    def like(self, other: Wire | Tensor | float) -> Wire:
        """A number or a tensor as a wire of this one's type."""
        if isinstance(other, Wire):
            return other
        if isinstance(other, Tensor):
            return self.graph.weight(other, self.dtype)
        return self.graph.constant(other, self.dtype)

    def binary(self, kind: str, other: Wire | Tensor | float, *, flipped: bool = False) -> Wire:
        """A node of two values that are broadcast."""
        right = self.like(other)
        one, two = (right, self) if flipped else (self, right)
        return self.graph.add(kind, one, two, shape=broadcast(one.shape, two.shape))

    def unary(self, kind: str) -> Wire:
        """A node of one value."""
        return self.graph.add(kind, self, shape=self.shape)

    def compare(self, kind: str, other: Wire | float) -> Wire:
        """A node of two values that gives truth values."""
        right = self.like(other)
        return self.graph.add(kind, self, right, shape=broadcast(self.shape, right.shape), dtype=torch.bool)

    def where(self, yes: Wire, no: Wire) -> Wire:
        """For truth values: `yes` where true, else `no`."""
        shape = broadcast(self.shape, broadcast(yes.shape, no.shape))
        return self.graph.add("Where", self, yes, no, shape=shape, dtype=yes.dtype)

    def __add__(self, other: Wire | Tensor | float) -> Wire:
        return self.binary("Add", other)

    def __radd__(self, other: Tensor | float) -> Wire:
        return self.binary("Add", other, flipped=True)

    def __sub__(self, other: Wire | Tensor | float) -> Wire:
        return self.binary("Sub", other)

    def __rsub__(self, other: Tensor | float) -> Wire:
        return self.binary("Sub", other, flipped=True)

    def __mul__(self, other: Wire | Tensor | float) -> Wire:
        return self.binary("Mul", other)

    def __rmul__(self, other: Tensor | float) -> Wire:
        return self.binary("Mul", other, flipped=True)

    def __truediv__(self, other: Wire | Tensor | float) -> Wire:
        return self.binary("Div", other)

    def __neg__(self) -> Wire:
        return self.unary("Neg")

    def __matmul__(self, other: Wire | Tensor) -> Wire:
        right = self.like(other)
        batch = broadcast(self.shape[:-2], right.shape[:-2])
        return self.graph.add("MatMul", self, right, shape=(*batch, self.shape[-2], right.shape[-1]))

    def square(self) -> Wire:
        """Its square."""
        return self * self

    def clamp(self, min: float | None = None, max: float | None = None) -> Wire:
        """Its values within bounds."""
        bounds = [None if bound is None else self.like(bound) for bound in (min, max)]
        return self.graph.add("Clip", self, *bounds, shape=self.shape)

    def elu(self) -> Wire:
        """ELU with alpha 1; in float64, for which runtimes have no Elu, from nodes that they have."""
        if self.dtype is not torch.float64:
            return self.unary("Elu")
        zero = self.like(0.0)
        low, high = (self.graph.add(kind, self, zero, shape=self.shape) for kind in ("Min", "Max"))
        return high + (low.unary("Exp") - 1.0)

    def gelu(self) -> Wire:
        """x * Phi(x)."""
        half = (self * math.sqrt(0.5)).unary("Erf") + 1.0
        return self * half * 0.5

    def reshape(self, *sizes: int | Wire, shape: Shape) -> Wire:
        """In the same order with other axes: 0 keeps an axis' length, -1 is what is left; `shape` is what comes out."""
        if all(isinstance(size, int) for size in sizes):
            target = self.graph.constant(cast("tuple[int, ...]", sizes), torch.int64)
        else:
            parts = [self.graph.constant([s], torch.int64) if isinstance(s, int) else s for s in sizes]
            target = concat(parts, 0)
        return self.graph.add("Reshape", self, target, shape=shape)

    def unflatten(self, axis: int, sizes: Sequence[int]) -> Wire:
        """An axis as several."""
        axis %= len(self.shape)
        rest = self.shape[axis + 1 :]
        if sum(length is None for length in rest) > 1:
            raise self.graph.refuse("unflatten before several axes of open length cannot be exported")
        # Behind the axis, a length must be known, or be the one that is left.
        plain = [0] * axis + list(sizes) + [-1 if length is None else length for length in rest]
        return self.reshape(*plain, shape=(*self.shape[:axis], *sizes, *rest))

    def flatten(self, start: int = 0, end: int = -1) -> Wire:
        """Several axes as one."""
        start, end = start % len(self.shape), end % len(self.shape)
        merged, rest = self.shape[start : end + 1], self.shape[end + 1 :]
        whole = None if None in merged else math.prod(cast("tuple[int, ...]", merged))
        sizes: list[int | Wire] = [*[0] * start, -1 if whole is None else whole]
        shape = (*self.shape[:start], whole, *rest)
        for axis, length in enumerate(rest, end + 1):
            sizes.append(self.size(axis) if length is None else length)
        if whole is not None and sum(isinstance(size, Wire) for size in sizes) == 1:
            sizes = [-1 if isinstance(size, Wire) else size for size in sizes]
        return self.reshape(*sizes, shape=shape)

    def permute(self, *order: int) -> Wire:
        """The axes in another order."""
        shape = [self.shape[axis] for axis in order]
        return self.graph.add("Transpose", self, shape=shape, perm=list(order))

    def transpose(self, one: int, other: int) -> Wire:
        """Two axes exchanged."""
        order = list(range(len(self.shape)))
        order[one], order[other] = order[other], order[one]
        return self.permute(*order)

    def unsqueeze(self, axis: int) -> Wire:
        """A new axis of length 1."""
        axis %= len(self.shape) + 1
        shape = (*self.shape[:axis], 1, *self.shape[axis:])
        return self.graph.add("Unsqueeze", self, self.graph.constant([axis], torch.int64), shape=shape)

    def expand(self, *sizes: int | Wire, shape: Shape) -> Wire:
        """Repeated along axes of length 1 to these lengths, 1 keeps one; `shape` is what comes out."""
        parts = [self.graph.constant([s], torch.int64) if isinstance(s, int) else s for s in sizes]
        return self.graph.add("Expand", self, concat(parts, 0), shape=shape)

    def sliced(self, axis: int, start: int | Wire, end: int | Wire | None = None, step: int = 1) -> Wire:
        """The steps [start, end) of an axis; to the end when None."""
        axis %= len(self.shape)
        length = self.shape[axis]
        bounds = [start, _LAST if end is None else end]
        left: int | None = None
        if length is not None and isinstance(start, int) and not isinstance(bounds[1], Wire):
            left = len(range(*slice(start, bounds[1], step).indices(length)))
        wires = [self.graph.constant([b], torch.int64) if isinstance(b, int) else b for b in bounds]
        more = [self.graph.constant([n], torch.int64) for n in (axis, step)]
        shape = (*self.shape[:axis], left, *self.shape[axis + 1 :])
        return self.graph.add("Slice", self, *wires, *more, shape=shape)

    def chunk(self, count: int, axis: int = 0) -> list[Wire]:
        """An axis in equal parts."""
        axis %= len(self.shape)
        if self.known(axis) % count:
            raise self.graph.refuse(f"chunk: {self.known(axis)} steps in {count} parts cannot be exported")
        each = self.known(axis) // count
        shape = (*self.shape[:axis], each, *self.shape[axis + 1 :])
        sizes = self.graph.constant([each] * count, torch.int64)
        return self.graph.add_all("Split", self, sizes, shapes=[shape] * count, axis=axis)

    def __getitem__(self, index: Any) -> Wire:
        """By whole numbers, slices without negative steps, None and an ellipsis."""
        parts = list(index) if isinstance(index, tuple) else [index]
        taken = sum(part is not None and part is not Ellipsis for part in parts)
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (len(self.shape) - taken)
        wire, axis = self, 0
        for part in parts:
            if part is None:
                wire, axis = wire.unsqueeze(axis), axis + 1
            elif isinstance(part, int):
                shape = (*wire.shape[:axis], *wire.shape[axis + 1 :])
                wire = self.graph.add("Gather", wire, self.graph.constant(part, torch.int64), shape=shape, axis=axis)
            elif isinstance(part, slice):
                if part != slice(None):
                    wire = wire.sliced(axis, part.start or 0, part.stop, part.step or 1)
                axis += 1
            else:
                raise self.graph.refuse(f"an index of {type(part).__name__} cannot be exported")
        return wire

    def padded(self, left: int, right: int | Wire, mode: str = "constant") -> Wire:
        """The last axis [..., T] lengthened on both sides: constant (zeros), reflect or edge."""
        if left == 0 and isinstance(right, int) and right == 0:
            return self
        zeros = [0] * (len(self.shape) - 1)
        if isinstance(right, int):
            pads = self.graph.constant([*zeros, left, *zeros, right], torch.int64)
        else:
            pads = concat([self.graph.constant([*zeros, left, *zeros], torch.int64), right], 0)
        length = self.shape[-1]
        whole = None if length is None or not isinstance(right, int) else length + left + right
        return self.graph.add("Pad", self, pads, shape=(*self.shape[:-1], whole), mode=mode)


def broadcast(one: Shape, two: Shape) -> tuple[int | None, ...]:
    """The shape of two values that are broadcast; an open length stays open beside 1."""
    longest = max(len(one), len(two))
    rows = [[*[1] * (longest - len(shape)), *shape] for shape in (one, two)]
    return tuple(b if a == 1 else a if b in (1, None) else b for a, b in zip(*rows, strict=True))


def concat(wires: Sequence[Wire], axis: int) -> Wire:
    """Values one after the other along an axis."""
    first = wires[0]
    axis %= len(first.shape)
    lengths = [wire.shape[axis] for wire in wires]
    whole = None if None in lengths else sum(cast("list[int]", lengths))
    shape = (*first.shape[:axis], whole, *first.shape[axis + 1 :])
    return first.graph.add("Concat", *wires, shape=shape, axis=axis)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in _flat(item)]
    return _flat(list(value.values())) if isinstance(value, dict) else [value]


def _leaky_relu(x: Wire, negative_slope: float = 0.01, inplace: bool = False) -> Wire:
    return x.graph.add("LeakyRelu", x, shape=x.shape, alpha=float(negative_slope))


def _gelu(x: Wire, approximate: str = "none") -> Wire:
    if approximate != "none":
        raise ExportError(f"gelu: approximate={approximate!r} cannot be exported")
    return x.gelu()


def _cat(wires: Sequence[Wire], dim: int = 0) -> Wire:
    return concat(wires, dim)


def _embedding(index: Wire, table: Tensor, **options: object) -> Wire:
    if any(value not in (None, False, 2.0) for value in options.values()):
        raise index.graph.refuse(f"an embedding with {options} cannot be exported")
    graph = index.graph
    rows = graph.weight(table)
    return graph.add("Gather", rows, index, shape=(*index.shape, rows.shape[1]), dtype=rows.dtype, axis=0)


def _swapped(kind: str) -> Callable[..., Wire]:
    """A function of two values of which either may be the wire."""

    def call(one: Wire | Tensor | float, two: Wire | Tensor | float) -> Wire:
        if isinstance(one, Wire):
            return one.binary(kind, two)
        assert isinstance(two, Wire)
        return two.binary(kind, one, flipped=True)

    return call


FUNCTIONS: dict[Any, Callable[..., Wire]] = {
    torch.abs: lambda x: x.unary("Abs"),
    torch.tanh: lambda x: x.unary("Tanh"),
    torch.sin: lambda x: x.unary("Sin"),
    torch.cos: lambda x: x.unary("Cos"),
    torch.exp: lambda x: x.unary("Exp"),
    torch.log: lambda x: x.unary("Log"),
    torch.sigmoid: lambda x: x.unary("Sigmoid"),
    torch.square: lambda x: x.square(),
    torch.clamp: lambda x, min=None, max=None: x.clamp(min, max),
    torch.cat: _cat,
    F.leaky_relu: _leaky_relu,
    F.elu: lambda x, alpha=1.0, inplace=False: x.elu(),
    F.gelu: _gelu,
    F.embedding: _embedding,
    torch.addcmul: lambda x, y, z: x + y * z,
    **{function: _swapped("Add") for function in (torch.add, Tensor.add)},
    **{function: _swapped("Sub") for function in (torch.sub, Tensor.sub)},
    **{function: _swapped("Mul") for function in (torch.mul, Tensor.mul)},
    **{function: _swapped("Div") for function in (torch.div, Tensor.div)},
}
