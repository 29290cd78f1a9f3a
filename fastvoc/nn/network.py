"""A network stated once.

A model says in `network(run, x)` what happens to a signal: `run(layer, x)` takes a value through a layer, `run.add`,
`run.join` and `run.map` through functions. Called with a `Trace` it computes nothing and leaves a `Network`, the list
of its steps, of which everything else is a reading: a whole call, with lengths, with gradients, in pieces
(`fastvoc.nn.pieces`) and in chunks (`fastvoc.nn.streams`), which input an output depends on, the layers' names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from itertools import compress, repeat
from math import ceil, lcm
from operator import add, attrgetter, getitem, is_not
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Part
from fastvoc.nn.prepared import EITHER, Prepared
from fastvoc.nn.weights import Weights
from fastvoc.ops._checks import check_lengths
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.registry import settings

Function = Callable[..., Tensor]
Span = tuple[int, int]


@dataclass(frozen=True)
class Value:
    """What a step gives and others take; 0 is nothing."""

    index: int


_NOTHING = Value(0)
_PACKINGS = attrgetter("packings")


@dataclass(frozen=True)
class Step:
    """A part, or a function of aligned steps, on values (0: none) -> the value `output`; `done` are needed no more."""

    name: str
    does: Part | Function
    inputs: tuple[int, ...]
    output: int
    done: tuple[int, ...] = ()


class Trace:
    """What `network` is given: notes the steps and computes nothing. `names` are those of the model's modules."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._uses: dict[str, int] = {}
        self.steps: list[Step] = []
        self._values = 0

    def value(self) -> Value:
        """A value that comes from outside."""
        self._values += 1
        return Value(self._values)

    def __call__(self, part: Part, x: Value, *more: Value | None) -> Value:
        """x through a part, with its further inputs."""
        further = [*more, *[None] * (part.MORE - len(more))]
        name = self._names.get(id(part)) or getattr(part, "name", "") or f"step.{len(self.steps)}"
        uses = self._uses.get(name, 0)
        self._uses[name] = uses + 1
        once_more = f"{name}.{uses}" if uses else name  # states are kept by name
        return self._add(once_more, part, (x, *(value or _NOTHING for value in further)))

    def join(self, function: Function, *values: Value) -> Value:
        """A function of tensors [B, C, T] that makes each step of the same step of all."""
        return self._add(f"step.{len(self.steps)}", function, values)

    def map(self, function: Function, x: Value) -> Value:
        """A function of a tensor [B, C, T] that makes each step of the same step."""
        return self.join(function, x)

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        return self.join(add, x, y)

    def _add(self, name: str, does: Part | Function, inputs: Sequence[Value]) -> Value:
        output = self.value()
        self.steps.append(Step(name, does, tuple(v.index for v in inputs), output.index))
        return output


class _Entry(NamedTuple):
    """A step as a call runs it: run(*values) for a function, else run(x, *more, lengths) with x as `dtype` if given.

    `either`: x may also be float32 or bfloat16.
    """

    run: Callable[..., Any]
    function: bool
    dtype: torch.dtype | None
    either: bool
    first: int
    more: tuple[int, ...]
    output: int
    lengths: Callable[[Any], Any] | None
    done: tuple[int, ...]


class Network:
    """The steps that make of the values 1, 2, ... the value `output`.

    per_frame: steps of each input value for one step of the first, 0 for one that is not a signal.
    """

    def __init__(self, steps: Sequence[Step], per_frame: Sequence[int], output: int) -> None:
        last = {index: i for i, step in enumerate(steps) for index in step.inputs}
        ends: dict[int, list[int]] = {}
        for index, i in last.items():
            if index:
                ends.setdefault(i, []).append(index)
        self.steps = [Step(s.name, s.does, s.inputs, s.output, tuple(ends.get(i, ()))) for i, s in enumerate(steps)]
        self.per_frame, self.output = tuple(per_frame), output
        self._count = max([output, len(per_frame), *(step.output for step in steps)]) + 1
        self._kept: tuple[Any, Any, dict[Any, list[_Entry]]] = (None, None, {})
        self.cut: dict[str, Any] = {}  # how long signals are cut on a device, which `fastvoc.nn.pieces` finds out once

    @classmethod
    def of(cls, model: nn.Module, method: Callable[..., Value], per_frame: Sequence[int]) -> Network:
        """What `method(run, *values)` of a model says of as many values as `per_frame` has."""
        trace = Trace({id(module): name for name, module in model.named_modules()})
        output = method(trace, *(trace.value() for _ in per_frame))
        return cls(trace.steps, per_frame, output.index)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Names and parts in order of use."""
        return ((step.name, step.does) for step in self.steps if isinstance(step.does, Part))

    @cached_property
    def layers(self) -> dict[str, Prepared]:
        """The ops by name, in order of use."""
        return {
            f"{name}.{op}" if op else name: prepared
            for name, part in self.parts()
            for op, prepared in part.ops().items()
        }

    def __call__(self, *values: Tensor | None, lengths: Any = None, backend: str | None = None) -> Tensor:
        """One call on whole signals; `lengths` are those of the first value."""
        held: list[Any] = [None] * self._count
        held[1 : len(values) + 1] = values
        valid: list[Any] = [None] * self._count
        if lengths is not None:
            x = held[1]
            check_lengths("model", lengths, x.shape[0], x.shape[2])
            unit = self.per_frame[0]
            valid[1 : len(values) + 1] = [lengths if n == unit else lengths * n // unit for n in self.per_frame]
        take = held.__getitem__
        for run, function, dtype, either, first, more, output, grow, done in self._entries(backend):
            x = held[first]
            if function:
                held[output] = run(x, *map(take, more))
            else:
                steps = valid[first]
                if dtype is not None and not (either and x.dtype in EITHER):
                    x = x.to(dtype)
                if either and steps is not None and type(steps) is not Tensor:
                    steps = on_device(steps, x)
                held[output] = run(x, *map(take, more), steps)
            valid[output] = valid[first] if grow is None or lengths is None else grow(valid[first])
            for index in done:
                held[index] = None
        result: Tensor = held[self.output]
        return result

    def _entries(self, backend: str | None) -> list[_Entry]:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(self._hooks):
            return [self._watched(step, backend) for step in self.steps]
        tensors, packings = self._tensors(), [*map(_PACKINGS, self._layer_list)]
        key = backend, settings()
        weights, packed, tables = self._kept
        same = packed == packings and weights.are(tensors)
        if not same or key not in tables:
            weights = weights if same else Weights(tensors)
            entries = [self._bound(step, backend) for step in self.steps]
            tables = {**(tables if same else {}), key: entries}
            self._kept = weights, packings, tables  # one tuple is replaced, so that threads need no lock
        return tables[key]

    def _bound(self, step: Step, backend: str | None) -> _Entry:
        if not isinstance(step.does, Part):
            return _entry(step, step.does)
        run, either = step.does.bound(backend)
        return _entry(step, run, step.does.dtype, either)

    def _watched(self, step: Step, backend: str | None) -> _Entry:
        """The same by way of the layer itself, where autograd or a hook must see it."""
        part = step.does
        if not isinstance(part, Part):
            return _entry(step, part)
        call: Callable[..., Tensor] = part  # type: ignore[assignment]
        return _entry(step, lambda x, *more: call(x, *more[:-1], lengths=more[-1], backend=backend), part.dtype)

    @cached_property
    def _layer_list(self) -> list[Prepared]:
        return list(self.layers.values())

    @cached_property
    def _hooks(self) -> list[Any]:
        modules = [m for _, part in self.parts() if isinstance(part, nn.Module) for m in part.modules()]
        return [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]

    def _tensors(self) -> list[Tensor]:
        """All tensors that its parts' modules hold, asked for in every call: past `Module.__getattr__`."""
        dicts, sizes, owners, keys = self._places
        if sizes != [*map(len, dicts)]:  # something was parametrised, or is no longer
            self.__dict__.pop("_places", None)
            _, _, owners, keys = self._places
        found = [*map(getitem, owners, keys)]
        return [*compress(found, map(is_not, found, repeat(None)))]

    @cached_property
    def _places(self) -> tuple[list[dict[str, Any]], list[int], list[dict[str, Any]], list[str]]:
        """The dictionaries of the modules and their sizes; for each tensor its dictionary and key."""
        modules = {id(m): m for _, part in self.parts() for owner in part.owners() for m in owner.modules()}.values()
        dicts = [d for m in modules for d in (m._parameters, m._buffers, m._modules)]
        places = [(d, key) for m in modules for d in (m._parameters, m._buffers) for key in d]
        return dicts, [*map(len, dicts)], [d for d, _ in places], [key for _, key in places]

    @cached_property
    def _spans(self) -> list[Callable[[int, int], list[Span]]]:
        """For every step, the spans of its inputs that a span of its output depends on, far from either end."""
        return [_reader(step) for step in self.steps]

    def reads(self, first: int, last: int) -> Span:
        """The first and the last frame that the output steps [first, last] depend on, far from either end."""
        spans: dict[int, Span] = {self.output: (first, last)}
        for step, reader in zip(reversed(self.steps), reversed(self._spans), strict=True):
            if step.output in spans:
                for index, span in zip(step.inputs, reader(*spans.pop(step.output)), strict=True):
                    spans[index] = _hull(spans[index], span) if index in spans else span
        signals = [(index, rate) for index, rate in enumerate(self.per_frame, 1) if rate and index in spans]
        frames = [(spans[index][0] // rate, spans[index][1] // rate) for index, rate in signals]
        return min(low for low, _ in frames), max(high for _, high in frames)

    @cached_property
    def rates(self) -> dict[int, Fraction]:
        """Steps of every value for a frame."""
        rates = {index: Fraction(rate) for index, rate in enumerate(self.per_frame, 1)}
        far = 1 << 20
        for step in self.steps:
            rate = rates[step.inputs[0]]
            if isinstance(step.does, Part):
                unit = lcm(*range(1, 33)) * 1025
                grown = step.does.output_lengths(far * unit) - step.does.output_lengths((far - 1) * unit)
                rate *= Fraction(grown, unit)
            rates[step.output] = rate
        return rates

    def tiles(self) -> tuple[int, int]:
        """At multiples of how many frames a part of a signal begins, so that its tiles are those of the whole.

        And how many frames its tiles may read beside what it depends on.
        """
        grain, slack = 1, 0
        for step in self.steps:
            if isinstance(step.does, Part):
                tile, reach = step.does.tiles()
                rate = self.rates[step.output]
                grain = lcm(grain, (tile / rate).numerator)
                slack += ceil(reach / rate)
        return grain, slack

    @property
    def hop(self) -> int:
        """Output steps for a frame."""
        return int(self.rates[self.output])

    @cached_property
    def widest(self) -> int:
        """Floats for a frame of the widest value that a part makes."""
        return int(max(part.width() * self.rates[s.output] for s in self.steps if isinstance(part := s.does, Part)))

    def length(self, steps: int) -> int:
        """Output steps made from a number of steps of the first value."""
        made = {1: steps}
        for step in self.steps:
            count = made.get(step.inputs[0], 0)
            made[step.output] = step.does.output_lengths(count) if isinstance(step.does, Part) else count
        return made[self.output]

    def stretches(self) -> list[Network]:
        """A chain of parts cut before and behind each that remembers the past: what is between runs on its own."""
        groups: list[list[Step]] = []
        for step in self.steps:
            if not groups or _remembers(step) or _remembers(groups[-1][-1]):
                groups.append([])
            groups[-1].append(step)
        return [self] if len(groups) == 1 else [self._stretch(group) for group in groups]

    def _stretch(self, steps: list[Step]) -> Network:
        first = steps[0].inputs[0]
        moved = {0: 0, first: 1} | {step.output: i for i, step in enumerate(steps, 2)}
        own = [Step(s.name, s.does, tuple(moved[i] for i in s.inputs), moved[s.output]) for s in steps]
        return Network(own, (int(self.rates[first]),), moved[steps[-1].output])


def mean(*values: Tensor) -> Tensor:
    """Of tensors of one shape, added up in order."""
    return reduce(add, values) / len(values)


def stacked(*values: Tensor) -> Tensor:
    """The channels of all, in the memory layout that the layers make."""
    return torch.cat([value.transpose(1, 2) for value in values], 2).transpose(1, 2)


def _remembers(step: Step) -> bool:
    return isinstance(step.does, Part) and step.does.REACH == "past"


def _entry(step: Step, run: Callable[..., Any], dtype: torch.dtype | None = None, either: bool = False) -> _Entry:
    part = step.does if isinstance(step.does, Part) else None
    grow = None if part is None or type(part).output_lengths is Part.output_lengths else part.output_lengths
    return _Entry(run, part is None, dtype, either, step.inputs[0], step.inputs[1:], step.output, grow, step.done)


def _reader(step: Step) -> Callable[[int, int], list[Span]]:
    part = step.does
    if not isinstance(part, Part):
        return lambda first, last: [(first, last)] * len(step.inputs)
    reads, per = part.opened("torch", exact=True).reads, part.per_step()
    return lambda first, last: [reads(first, last), *((first // n, last // n) for n in per)]


def _hull(one: Span, other: Span) -> Span:
    return min(one[0], other[0]), max(one[1], other[1])
