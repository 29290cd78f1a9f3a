"""Many live streams through one model: those at the same point run as one batch."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, FastvocError, ShapeError, StreamError
from fastvoc.graphs.capture import Capture
from fastvoc.graphs.steps import StepGraphs, frozen_counters
from fastvoc.nn.model import Array, Input
from fastvoc.nn.streams import ModelStream
from fastvoc.runtime.registry import as_now
from fastvoc.runtime.stats import clock
from fastvoc.sound.formats import Format
from fastvoc.streams.delivery import Deliverer, Delivery, ready
from fastvoc.streams.stream import Check, Chunk, Latency, Streamable, check_chunk, delivered_latency

_SETTLED = 64  # chunks after which every stream is at the point where it stays


@dataclass
class _Group:
    """Streams that run together: the state of `ids[i]` is row i."""

    ids: list[Hashable]
    model: ModelStream

    def rows(self, ids: list[Hashable]) -> dict[str, Tensor]:
        index = [self.ids.index(name) for name in ids]
        if index == list(range(len(self.ids))):
            return self.model.tensors()
        return {key: value[index] for key, value in self.model.tensors().items()}


@dataclass(frozen=True)
class _Chunk:
    """What goes into one stream in a step: frames [1, n_mels, n] and what comes with them."""

    x: Tensor
    inputs: dict[str, Tensor]


class Streams:
    """Live streams by id, each with the output that it would have alone.

    model: what `fastvoc.load` returned. max_streams: more than this many open at once raise StreamError. graphs_mb:
    on a CUDA device, run chunks from graphs that hold up to so much memory; None runs none. check, rate, format and
    dither: as `Vocoder.stream`, for all of them. Streams at the same point of their rates are converted together.
    A stream joins when its id first appears in `step` (or with `open`, for options), and leaves with `close`.
    """

    def __init__(
        self,
        model: Any,
        max_streams: int = 256,
        *,
        graphs_mb: float | None = None,
        capture: Capture | None = None,
        check: Check = None,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
    ) -> None:
        if max_streams < 1:
            raise ArgumentError(f"max_streams: expected 1 or more, got {max_streams}")
        self._owner: Streamable = model.streamable()
        self._new = as_now(self._owner.new_stream)
        self._max, self._check = max_streams, check
        self._delivery = Delivery.of(self._owner.sample_rate, rate, format, dither)
        if self._delivery is not None:
            self._delivery.prepare(self._owner.device)
        self._deliverers: dict[Hashable, Deliverer] = {}
        self.clipped: int | Tensor = 0  # samples beyond full scale, of formats that clip; on a GPU a tensor
        self._groups: dict[Hashable, _Group] = {}
        self._options: dict[Hashable, dict[str, Any]] = {}
        self._fed: dict[Hashable, int] = {}  # steps that went into those that have begun
        self._lock = threading.Lock()
        self._owner.stats.pools.add(self)
        self.graphs: StepGraphs | None = None
        if graphs_mb is not None:
            device = self._owner.device
            self.graphs = StepGraphs(lambda: self._new({}), device, graphs_mb, capture)

    def warmup(self, chunks: Iterable[Chunk], batch: int | Iterable[int] = 1, **options: Input) -> Streams:
        """Captures the graphs of these chunks, such as one of each size, at every number of streams; then no more.

        `options` as those of the streams to come. Raises StreamError without `graphs_mb` and when streams are open.
        """
        if self.graphs is None or self._groups:
            raise StreamError("streams: warmup wants graphs_mb, and no stream open")
        self.graphs.frozen = False
        for count in sorted({batch} if isinstance(batch, int) else set(batch), reverse=True):
            for chunk in chunks:
                with self._alone():
                    x, _, _ = self._owner.chunk(chunk, {}, 1)
                    stream = self._new(options)
                    for _ in range(_SETTLED):
                        self.graphs.step(stream, x.expand(count, *x.shape[1:]).contiguous())
        self.graphs.frozen = True
        return self

    def __reduce__(self) -> NoReturn:
        raise StreamError("streams: no copies or pickles; send the model and open streams where it arrives")

    @property
    def latency(self) -> Latency:
        """How far outputs lie behind inputs, the filter of another rate included; `samples` are of that rate."""
        return delivered_latency(self._owner, self._owner.latency.frames, self._delivery)

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._groups

    def open(self, name: Hashable, **options: Input) -> None:
        """Adds a stream with options of its own, such as a `seed`.

        Raises StreamError when the id is open already or no place is left, ArgumentError for an unknown option.
        """
        with self._alone():
            self._open(name, options)

    def step(self, chunks: Mapping[Hashable, Chunk], **inputs: Mapping[Hashable, Array]) -> dict[Hashable, Tensor]:
        """The next chunk [n_mels, n >= 0] of each of these streams -> the samples [m] that it completes, by id.

        inputs: what comes with a chunk as in `Stream.push`, by id: `step({"a": mel}, f0={"a": f0})` for a stream that
        was opened with `f0=True`.
        Raises before anything runs, and leaves every stream as it was, when any chunk does not fit or, where the
        streams look for it, holds NaN, infinity or a code outside the codebooks. The error names the first such stream,
        and its `stream` is the id: drop that one, or mend its chunk, and step again.
        """
        with self._alone():
            stats = self._owner.stats
            start = stats.begin()
            try:
                fit = self._fit(chunks, inputs)
                checked = clock()
                results, computed, clipped = self._run(fit, final=False)
            except BaseException as error:
                stats.failed("streams", start, error)
                raise
            self._count(start, checked, computed, fit, results, clipped)
        # Outside of inference mode: ordinary tensors, which may be changed in place.
        return {name: made.clone() for name, made in results.items()}

    def close(self, name: Hashable, chunk: Chunk = None, **inputs: Array) -> Tensor:
        """Ends a stream, with a last chunk if given, its `inputs` as in `Stream.push` -> the rest of its samples [m].

        Raises StreamError when no stream of this id is open.
        """
        with self._alone():
            if name not in self._groups:
                raise StreamError(f"streams: no stream {name!r} is open")
            stats = self._owner.stats
            start = stats.begin()
            try:
                fit = {name: self._chunk(name, chunk, inputs)}
                checked = clock()
                results, computed, clipped = self._run(fit, final=True)
            except BaseException as error:
                stats.failed("streams", start, error)
                raise
            self._forget(name)
            self._count(start, checked, computed, fit, results, clipped)
        return results[name].clone()

    def drop(self, name: Hashable) -> None:
        """Ends a stream without its last samples. Raises StreamError when no stream of this id is open."""
        with self._alone():
            if name not in self._groups:
                raise StreamError(f"streams: no stream {name!r} is open")
            self._forget(name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise StreamError("streams: two threads use them at once; step them from one")
        try:
            with torch.inference_mode():
                yield
        finally:
            self._lock.release()

    def _fit(
        self, chunks: Mapping[Hashable, Any], inputs: Mapping[str, Mapping[Hashable, Any]]
    ) -> dict[Hashable, _Chunk]:
        """The chunks of a step, checked, their streams open."""
        for key, values in inputs.items():
            if strange := [name for name in values if name not in chunks]:
                raise ArgumentError(f"{key}: for {strange[0]!r}, of which there is no chunk")
        fit = {
            name: self._chunk(name, chunk, {key: v[name] for key, v in inputs.items() if name in v})
            for name, chunk in chunks.items()
        }
        new = [name for name in fit if name not in self._groups]
        if len(self._groups) + len(new) > self._max:
            raise StreamError(f"streams: {len(self._groups)} of {self._max} are open, {len(new)} more do not fit")
        for name in new:
            self._open(name, {})
        return fit

    def _count(
        self,
        start: float,
        checked: float,
        computed: float,
        chunks: Mapping[Hashable, _Chunk],
        results: Mapping[Hashable, Tensor],
        clipped: int | Tensor | None,
    ) -> None:
        """Tells the model's `stats` of a step."""
        steps = sum(chunk.x.shape[-1] for chunk in chunks.values())
        frames = steps if self._owner.step == "frame" else sum(made.shape[-1] for made in results.values())
        self._owner.stats.made("streams", start, checked, computed, frames, clipped)

    def _open(self, name: Hashable, options: dict[str, Any]) -> None:
        if name in self._groups:
            raise StreamError(f"streams: {name!r} is open already")
        if len(self._groups) >= self._max:
            raise StreamError(f"streams: all {self._max} are open")
        self._groups[name] = _Group([name], self._new(options))
        self._options[name] = options

    def _chunk(self, name: Hashable, chunk: Any, inputs: dict[str, Any]) -> _Chunk:
        try:
            x, batched, given = self._owner.chunk(chunk, inputs, 1)
            if batched:
                raise ShapeError(f"chunk: expected one stream's chunk without a batch, got {list(x.shape)}")
            check_chunk(self._owner, x, given, self._fed.get(name, 0), self._check)
        except FastvocError as error:
            named = type(error)(f"stream {name!r}: {error}")
            named.stream = name
            raise named from None
        return _Chunk(x, given)

    def _run(
        self, chunks: dict[Hashable, _Chunk], *, final: bool
    ) -> tuple[dict[Hashable, Tensor], float, int | Tensor | None]:
        """The samples of each, the time when the model had made them, and how many were clipped."""
        together: dict[Any, list[Hashable]] = {}
        results: dict[Hashable, Tensor] = {}
        for name, chunk in chunks.items():
            if not chunk.x.shape[-1] and name not in self._fed:
                # Not begun: a step would give it a state, empty, that others at its beginning do not have.
                results[name] = self._owner.result(self._owner.nothing(1), False)
                continue
            counters = frozen_counters(self._groups[name].model.counters)
            key = chunk.x.shape[-1], tuple(chunk.inputs), _mode(self._options[name]), counters
            together.setdefault(key, []).append(name)
        groups = [self._gather(names) for names in together.values()]
        before = [group.model.snapshot() for group in groups]
        try:
            for group in groups:
                own = [chunks[name] for name in group.ids]
                given = {key: torch.cat([chunk.inputs[key] for chunk in own]) for key in own[0].inputs}
                x = torch.cat([chunk.x for chunk in own])
                if final or given or self.graphs is None:
                    y = group.model.step(x, final, **given)
                else:
                    y = self.graphs.step(group.model, x)
                results |= {name: self._owner.result(y[i : i + 1], False) for i, name in enumerate(group.ids)}
            computed, clipped = clock(), None
            if self._delivery is not None:
                results, clipped = self._deliver(results, self._delivery, final=final)
        except BaseException:
            for group, snapshot in zip(groups, before, strict=True):
                group.model.undo(snapshot)
            raise
        for name, chunk in chunks.items():
            if chunk.x.shape[-1]:
                self._fed[name] = self._fed.get(name, 0) + chunk.x.shape[-1]
        return {name: results[name] for name in chunks}, computed, clipped

    def _deliver(
        self, results: dict[Hashable, Tensor], delivery: Delivery, *, final: bool
    ) -> tuple[dict[Hashable, Tensor], int | Tensor | None]:
        """The samples in the wanted rate and format, and how many were clipped."""
        for name in results:
            if name not in self._deliverers:
                self._deliverers[name] = Deliverer(delivery)
        own = [self._deliverers[name] for name in results]
        steps = ready(own, list(results.values()), final=final)
        counts = [step.clipped for step in steps if step.clipped is not None]
        clipped = sum(counts[1:], counts[0]) if counts else None
        self.clipped = self.clipped + (0 if clipped is None else clipped)
        return {name: one.done(step) for name, one, step in zip(results, own, steps, strict=True)}, clipped

    def _gather(self, names: list[Hashable]) -> _Group:
        """The group of exactly these streams, made anew where they ran apart or with others before."""
        old = {id(group): group for group in (self._groups[name] for name in names)}
        first = next(iter(old.values()))
        if len(old) == 1 and set(first.ids) == set(names):
            return first
        parts = [(group, [name for name in names if self._groups[name] is group]) for group in old.values()]
        rows = [group.rows(own) for group, own in parts]
        joined = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
        group = self._make([name for _, own in parts for name in own], joined, first.model.counters)
        for left, own in parts:
            self._shrink(left, own)
        return group

    def _shrink(self, group: _Group, gone: list[Hashable]) -> None:
        rest = [name for name in group.ids if name not in gone]
        if rest:
            self._make(rest, group.rows(rest), group.model.counters)

    def _make(self, names: list[Hashable], tensors: dict[str, Tensor], counters: dict[str, Any]) -> _Group:
        group = _Group(names, self._new(self._options[names[0]]))
        group.model.restore(tensors, counters)
        for name in names:
            self._groups[name] = group
        return group

    def _forget(self, name: Hashable) -> None:
        group = self._groups.pop(name)
        del self._options[name]
        self._fed.pop(name, None)
        self._deliverers.pop(name, None)
        self._shrink(group, [name])


def _mode(options: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    """The options that choose how a stream computes, which those of one batch have in common; others are values."""
    return tuple(sorted((name, value) for name, value in options.items() if isinstance(value, bool)))
