"""A network on a batch of signals that arrive in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import add
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.layer import Part
from fastvoc.nn.network import Network, Step
from fastvoc.nn.prepared import EITHER
from fastvoc.ops import join, stream
from fastvoc.ops._triton import triton_sum
from fastvoc.ops.join import Join, Sum
from fastvoc.ops.stream import OpStream
from fastvoc.runtime.native import Native

# Makes one state in the place of those of a network's first steps, or None where it cannot.
Fuse = Callable[[Sequence[Any]], OpStream | None]


class _State(Protocol):
    """Something that a stream keeps between two chunks."""

    @property
    def counters(self) -> Any: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, tensors: dict[str, Tensor], counters: Any) -> None: ...


class ModelStream:
    """A batch of streams through a model, all at the same point; `parts` hold the state, by name."""

    parts: dict[str, _State]

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        """[B, n_mels, n >= 0] -> the samples [B, 1, m >= 0] that these frames complete; `final` ends the streams."""
        raise NotImplementedError

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The first and last frame that the samples [first, last] depend on, far from either end."""
        raise NotImplementedError

    @property
    def counters(self) -> dict[str, Any]:
        """Where every part stands: streams with equal counters may be batched."""
        return {name: part.counters for name, part in self.parts.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All state, batch first."""
        return {f"{name}/{key}": t for name, part in self.parts.items() for key, t in part.tensors().items()}

    @cached_property
    def _kept(self) -> list[dict[str, Any]]:
        return [vars(one) for one in self._all()]

    def _all(self) -> Iterator[Any]:
        return (one for part in self.parts.values() for one in _holders(part))

    def fits(self, batch: int) -> bool:
        """Whether the parts that a chunk of nothing does not reach keep what they would of so many signals."""
        return all(one.fits(batch) for one in self._all() if hasattr(one, "fits"))

    def snapshot(self) -> list[dict[str, Any]]:
        """Where it stands, for `undo` of the same stream: state is replaced, never written over."""
        return [*map(dict.copy, self._kept)]

    def undo(self, snapshot: list[dict[str, Any]]) -> None:
        """Goes back to where it stood."""
        for own, before in zip(self._kept, snapshot, strict=True):
            own.clear()
            own.update(before)

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Continues from the state that another stream's `tensors` and `counters` gave."""
        own: dict[str, dict[str, Tensor]] = {name: {} for name in self.parts}
        for key, tensor in tensors.items():
            name, _, rest = key.rpartition("/")
            own[name][rest] = tensor
        for name, part in self.parts.items():
            part.restore(own[name], counters[name])


def _holders(part: Any) -> Iterator[Any]:
    """What keeps the state of a part: itself and what it is made of."""
    if isinstance(part, list | tuple):
        for one in part:
            yield from _holders(one)
    elif hasattr(part, "step") or hasattr(part, "restore"):
        yield part
        for one in vars(part).values():
            yield from _holders(one)


class Begin:
    """The beginning of a signal, held back until it has `least` steps."""

    def __init__(self, least: int) -> None:
        self._least, self._begun = least, 0
        self._held: Tensor | None = None

    @property
    def counters(self) -> tuple[int, ...]:
        """Whether it has begun, and the steps held."""
        return self._begun, 0 if self._held is None else self._held.shape[2]

    def tensors(self) -> dict[str, Tensor]:
        """What is held."""
        return {} if self._held is None else {"held": self._held}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Continues from another one's state."""
        self._begun, self._held = counters[0], tensors.get("held")

    def take(self, x: Tensor) -> tuple[Tensor, bool]:
        """All that came so far or since, [B, C, n], and whether the signal has begun; what has not is held."""
        if self._begun:
            return x, True
        x = x if self._held is None else torch.cat([self._held, x], 2)
        if x.shape[2] < self._least:
            self._held = x.clone()
            return x, False
        self._begun, self._held = 1, None
        return x, True


class Items:
    """What a stream was begun with, one row for each item: state that never changes, and how far its signal got.

    `least`: steps that its signal must have, of which no more are counted.
    """

    def __init__(self, values: Mapping[str, Tensor | None], least: int) -> None:
        self._names, self._values, self._least = list(values), list(values.values()), least
        self._seen = 0

    @property
    def counters(self) -> tuple[int, ...]:
        return (self._seen,)

    def tensors(self) -> dict[str, Tensor]:
        return {name: t for name, t in zip(self._names, self._values, strict=True) if t is not None}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        (self._seen,) = counters
        self._values = [tensors.get(n, t) for n, t in zip(self._names, self._values, strict=True)]

    def fits(self, batch: int) -> bool:
        """Whether there is one row for all items, or one for each, of every value."""
        return all(t is None or len(t) in (1, batch) for t in self._values)

    def of(self, batch: int, steps: int, final: bool) -> list[Tensor | None]:
        """The values for a batch whose signals get so many more steps. Raises ShapeError when they end too early."""
        seen = min(self._seen + steps, self._least)
        if final and seen < self._least:
            least = self._least
            raise ShapeError(f"chunk: the signal ends after fewer than {least} frames, which its reflection needs")
        self._seen = seen
        for name, value in zip(self._names, self._values, strict=True):
            if value is not None and len(value) not in (1, batch):
                raise ShapeError(f"{name}: expected one or {batch}, one per item, got {len(value)}")
        if any(t is not None and len(t) != batch for t in self._values):
            self._values = [None if t is None else t.expand(batch, *t.shape[1:]).contiguous() for t in self._values]
        return self._values


class _Joined:
    """A function of several values, which reach a step at different times."""

    def __init__(self, function: Callable[..., Tensor], branches: int) -> None:
        self._function, self._join = function, Join(branches)
        self.tensors, self.restore = self._join.tensors, self._join.restore

    @property
    def counters(self) -> tuple[int, ...]:
        return self._join.counters

    def step(self, x: Tensor, final: bool, *more: Tensor) -> Tensor:
        return self._function(*self._join(x, *more))


class _Entry(NamedTuple):
    """A step as a chunk runs it; `either`: its input may be float32 or bfloat16 whatever `dtype`, as in a call."""

    step: Callable[..., Tensor]
    function: bool
    dtype: torch.dtype | None
    either: bool
    first: int
    more: tuple[int, ...]
    output: int
    done: tuple[int, ...]


class NetworkStream(ModelStream):
    """A batch of streams through a network, all at the same point.

    signals: names of the further signals that come with every chunk, [B, C, n] each; items: the inputs that are none,
    a row for all or one for each; least: frames that a signal must have; exact: whether each part computes every sum in
    one order, so that chunks change no bit; fuse: tried on all steps but the last.
    """

    def __init__(
        self,
        network: Network,
        backend: str | None = None,
        *,
        exact: bool = True,
        signals: Sequence[str] = (),
        items: Mapping[str, Tensor | None] | None = None,
        least: int = 0,
        fuse: Fuse | None = None,
    ) -> None:
        self._network, self._signals = network, tuple(signals)
        self._items = Items(items or {}, least)
        self._made = len(network.per_frame)
        self._count = max(self._made, network.output, *(s.output for s in network.steps)) + 1
        states: dict[int, Any] = {}
        for step in network.steps:
            states[step.output] = _opened(step, states, backend, exact)
        steps = list(network.steps)
        if fuse is not None and (one := fuse([states[step.output] for step in steps[:-1]])) is not None:
            steps = [_fused(network, steps), steps[-1]]
            states = {steps[0].output: one, steps[1].output: states[steps[1].output]}
        self._entries = [_entry(step, states[step.output]) for step in steps]
        self.parts = {s.name: states[s.output] for s in steps if hasattr(states[s.output], "counters")}
        self.parts["items"] = self._items

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        held: list[Any] = [None] * self._count
        held[1 : self._made + 1] = [x, *self._further(x, inputs), *self._items.of(len(x), x.shape[2], final)]
        take = held.__getitem__
        for step, function, dtype, either, first, more, output, done in self._entries:
            value = held[first]
            if dtype is not None and not (either and value.dtype in EITHER):
                value = value.to(dtype)
            held[output] = step(value) if function else step(value, final, *map(take, more))
            for index in done:
                held[index] = None
        result: Tensor = held[self._network.output]
        return result

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The first and last frame that the samples [first, last] depend on, far from either end."""
        return self._network.reads(first, last)

    def _further(self, x: Tensor, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        for name in inputs:
            if name not in self._signals:
                raise ArgumentError(f"{name}: expected only for a stream that was begun with {name}=True")
        for name in self._signals:
            if name not in inputs and x.shape[2]:
                raise ArgumentError(f"{name}: expected with every chunk of a stream that was begun with {name}=True")
        return [inputs[name] if name in inputs else x.new_zeros((len(x), 1, 0)) for name in self._signals]


def _opened(step: Step, states: Mapping[int, Any], backend: str | None, exact: bool) -> Any:
    """The state of a step; a function of one value has none, and is its own."""
    part, count = step.does, len(step.inputs)
    if isinstance(part, Part):
        return part.opened(backend, exact=exact, further=any(step.inputs[1:]))
    if count == 1:
        return part
    if part is add and count == 2:
        return Sum(_adding(states.get(step.inputs[0])))
    return _Joined(part, count)


def _adding(state: Any) -> Native[Any] | None:
    """The native op that adds what comes from a step of this state."""
    rows = getattr(state, "rows", None)
    if rows is stream.NATIVE or getattr(state, "native", None):
        return join.NATIVE
    return None if rows is None else triton_sum()


def _entry(step: Step, state: Any) -> _Entry:
    dtype = step.does.dtype if isinstance(step.does, Part) else None
    function = state is step.does
    run = state if function else state.step
    more = step.inputs[1:] if any(step.inputs[1:]) else ()
    return _Entry(run, function, dtype, getattr(state, "either", False), step.inputs[0], more, step.output, step.done)


def _fused(network: Network, steps: Sequence[Step]) -> Step:
    """All steps but the last as one, with the inputs of the network."""
    inputs = tuple(range(1, len(network.per_frame) + 1))
    return Step("network", steps[0].does, inputs, steps[-2].output)
