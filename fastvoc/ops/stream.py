"""Ops on a signal that arrives in chunks: each keeps the tail of its input that later outputs still need.

The pieces of a stream, put together, are what one call on the whole signal gives: every output is computed once, from
the same numbers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fastvoc.runtime.native import Native


class OpStream(Protocol):
    """An op between two chunks of a batch of streams that are all at the same point.

    `counters` tell that point: streams with equal counters may be batched, whatever else they have seen.
    """

    @property
    def counters(self) -> tuple[int, ...]:
        """Where this op stands, relative to what it keeps."""

    def tensors(self) -> dict[str, Tensor]:
        """What it keeps, batch first."""

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Takes the place of an op stream with this state."""

    @property
    def step(self) -> Callable[..., Tensor]:
        """Called with more input [B, C, n >= 0], whether it is the last, and the op's further inputs.

        Gives the output steps [B, C_out, m >= 0] that it completes.
        """

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The first and last input step that the output steps [first, last] far from either end depend on."""


@dataclass(frozen=True)
class Geometry:
    """How outputs lie over inputs: output o reads the input steps [o * stride - left, o * stride - left + span).

    Outside of the signal they are `pad_mode`: zeros, reflect or replicate; `right` steps follow its end.
    """

    span: int
    stride: int = 1
    left: int = 0
    right: int = 0
    pad_mode: str = "zeros"

    def ready(self, have: int, final: bool) -> int:
        """Outputs complete after `have` inputs."""
        if not final and self.pad_mode == "reflect" and have <= self.left:
            return 0
        reach = have + self.left + (self.right if final else 0) - self.span
        return max(reach // self.stride + 1, 0)

    def keep_from(self, made: int, have: int) -> int:
        """First input step that outputs from `made` on may read, right padding included."""
        first = made * self.stride - self.left
        if self.pad_mode != "zeros":
            first = min(first, have - 1 - (self.right if self.pad_mode == "reflect" else 0))
        return max(first, 0)


class Cut(NamedTuple):
    """What is taken of the steps that were kept and then of a chunk: [low, high), and what is kept, from `keep` on.

    The first has `before` and `after` steps of zeros beside it.
    """

    before: int
    low: int
    high: int
    after: int
    keep: int


def cut_rows(x: Tensor, tail: Tensor | None, cut: Cut, rows: Rows | None) -> tuple[Tensor, Tensor]:
    """Of the steps of `tail` [B, n, C] and then of x [B, C, T] what `cut` says, each [B, steps, C].

    rows: the native op that does it in one call; by torch's when None.
    """
    if tail is not None and not tail.shape[1]:
        tail = None
    if rows is not None:
        made: tuple[Tensor, Tensor] = rows.fast(*cut, x, tail)
        return made
    before, low, high, after, keep = cut
    steps = x.transpose(1, 2)
    steps = steps if tail is None else torch.cat([tail, steps], 1)
    parts = [steps[:, low:high]]
    if before or after:
        beside = [steps.new_zeros((steps.shape[0], count, steps.shape[2])) for count in (before, after)]
        parts = [torch.cat([beside[0], *parts, beside[1]], 1)]
    return parts[0], _kept(steps, keep)


def _kept(rows: Tensor, first: int) -> Tensor:
    return rows[:, first:].clone(memory_format=torch.contiguous_format)


def _fake(cut: Cut, x: Tensor, tail: Tensor | None = None) -> tuple[Tensor, Tensor]:
    have = x.shape[2] + (0 if tail is None else tail.shape[1])
    shape = x.shape[0], cut.before + cut.high - cut.low + cut.after, x.shape[1]
    return x.new_empty(shape), x.new_empty((x.shape[0], have - cut.keep, x.shape[1]))


NATIVE = Native("stream_rows", Cut, _fake)
Rows = Native[Any]  # an op on the fields of a `Cut`, a chunk and a tail


@dataclass(frozen=True)
class _Plan:
    """How a chunk was cut: past the beginning the next one of its length, found in an equal case, is cut alike."""

    case: tuple[int, int, int]  # steps of the chunk and of the tail, outputs made over inputs dropped
    keep: int
    crop: tuple[int, ...]
    count: int
    rows: Callable[..., Any]  # (chunk, tail) -> what the op reads, what is kept


class _Tailed:
    """An op stream that keeps its input from step `first` on, as `tail` [B, rows, C], and has made `made` outputs.

    Far from the beginning every `inputs` more steps of input give `outputs` more of output.
    """

    def __init__(self, inputs: int, outputs: int, run: Callable[..., Tensor]) -> None:
        self._inputs, self._outputs, self._run = inputs, outputs, run
        self._tail: Tensor | None = None
        self._first = self._made = 0
        self._plan: _Plan | None = None

    @property
    def counters(self) -> tuple[int, ...]:
        rows = 0 if self._tail is None else self._tail.shape[1]
        # Past the beginning only distances count: the first step kept becomes 1 to `inputs`.
        shift = max(self._first - 1, 0) // self._inputs
        return self._first - shift * self._inputs, self._made - shift * self._outputs, rows

    @property
    def _kept_steps(self) -> int:
        return 0 if self._tail is None else self._tail.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._tail is None else {"tail": self._tail}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._first, self._made, _ = counters
        self._tail = tensors.get("tail")

    def fits(self, batch: int) -> bool:
        """Whether it keeps every step that a later output reads."""
        return self._first <= max(self._needed(self._made, self._first + self._kept_steps), 0)

    def _needed(self, made: int, have: int) -> int:
        """The first step of `have` that outputs from the `made`-th on read."""
        raise NotImplementedError

    def step(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        """[B, C, n >= 0] more input -> the output steps [B, C_out, m >= 0] it completes; `final` ends the signal."""
        plan, tail = self._plan, self._tail
        if (
            plan is None
            or tail is None
            or final
            or plan.case
            != (
                x.shape[2],
                tail.shape[1],
                self._made * self._inputs - self._first * self._outputs,
            )
        ):
            return self._cut(x, final, *more)
        window, self._tail = plan.rows(x, tail)
        self._first, self._made = self._first + plan.keep, self._made + plan.count
        return self._run(window.transpose(1, 2), *plan.crop, *more)

    def _cut(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        """The same for a chunk that is not like the last one."""
        raise NotImplementedError


class TailStream(_Tailed):
    """An op whose outputs read a window of the input (`Geometry`).

    run takes the window's rows [B, C, (m - 1) * stride + span], and what `step` is given besides, and gives
    [B, C_out, m], without padding. native: parameters and packed weights where C++ may run the op among others, which
    then cuts the rows, too. rows: what else cuts them. dtype: of the outputs, the input's when None. either: the input
    may be float32 or bfloat16, as that of a call.
    """

    def __init__(
        self,
        geometry: Geometry,
        channels_out: int,
        run: Callable[..., Tensor],
        native: Any = None,
        *,
        rows: Rows | None = None,
        dtype: torch.dtype | None = None,
        either: bool = False,
    ) -> None:
        super().__init__(geometry.stride, 1, run)
        self._geometry, self._channels_out, self.native = geometry, channels_out, native
        self.rows = rows if native is None else NATIVE
        self._dtype, self.either = dtype, either

    def _needed(self, made: int, have: int) -> int:
        return self._geometry.keep_from(made, have)

    def due(self, steps: int, final: bool) -> int:
        """Outputs that so many more steps of input complete."""
        have = self._first + self._kept_steps + steps
        return max(self._geometry.ready(have, final) - self._made, 0)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        g = self._geometry
        return first * g.stride - g.left, last * g.stride - g.left + g.span - 1

    def _cut(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        g, begin, first, kept = self._geometry, self._made, self._first, self._kept_steps
        have = first + x.shape[2] + kept
        end = max(g.ready(have, final), begin)
        keep = min(max(self._needed(end, have), first), have)
        low, high = begin * g.stride - g.left, (end - 1) * g.stride - g.left + g.span
        if end == begin:
            low = high = first
        if g.pad_mode == "zeros" or (low >= 0 and high <= have):
            begins, ends = min(max(low, first), have), min(max(high, first), have)
            before, after = (min(max(n, 0), high - low) for n in (-low, high - have))
            cut = Cut(before, begins - first, ends - first, after, keep - first)
            rows = self.rows
            window, tail = cut_rows(x, self._tail, cut, rows)
            if rows is not None and kept and end > begin and first > 0 and low >= 0 and not final:
                case = x.shape[2], kept, begin * self._inputs - first * self._outputs
                self._plan = _Plan(case, cut.keep, (), end - begin, rows.bound(cut))
        else:
            steps = x.transpose(1, 2)
            steps = steps if self._tail is None else torch.cat([self._tail, steps], 1)
            window, tail = self._window(steps, low, high), _kept(steps, keep - first)
        if end > begin:
            y = self._run(window.transpose(1, 2), *more)
        else:
            y = x.new_empty((x.shape[0], self._channels_out, 0), dtype=self._dtype)
        self._tail, self._first, self._made = tail, keep, end
        return y

    def _window(self, rows: Tensor, low: int, high: int) -> Tensor:
        """The input steps [low, high), those outside of the signal repeated from inside."""
        have = self._first + rows.shape[1]
        parts = [rows[:, max(low, 0) - self._first : high - self._first]]
        if low < 0:
            parts.insert(0, self._repeated(rows, list(range(low, 0)), have))
        if high > have:
            parts.append(self._repeated(rows, list(range(max(have, low), high)), have))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _repeated(self, rows: Tensor, steps: list[int], have: int) -> Tensor:
        if self._geometry.pad_mode == "reflect":
            index = [-t if t < 0 else 2 * (have - 1) - t for t in steps]
        else:
            index = [min(max(t, 0), have - 1) for t in steps]
        return rows[:, [t - self._first for t in index]]


class KeptStream:
    """What a call of several layers keeps of them all in one tensor; past `most` steps only what is kept counts."""

    def __init__(self, most: int) -> None:
        self._most, self._have = most, 0
        self._state: Tensor | None = None

    @property
    def counters(self) -> tuple[int, ...]:
        return (min(self._have, self._most),)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._state is None else {"state": self._state}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        (self._have,) = counters
        self._state = tensors.get("state")


class PolyphaseStream(_Tailed):
    """A transposed convolution: input step q reaches the output steps from q * stride - left on.

    `run(rows, crop_left, crop_right)` is the op on these rows alone with that crop. rows, dtype, either: as in
    TailStream.
    """

    def __init__(
        self,
        kernel: int,
        stride: int,
        crop: tuple[int, int],
        channels_out: int,
        run: Callable[[Tensor, int, int], Tensor],
        *,
        rows: Rows | None = None,
        dtype: torch.dtype | None = None,
        either: bool = False,
    ) -> None:
        super().__init__(1, stride, run)
        self.rows, self._dtype, self.either = rows, dtype, either
        self._kernel, self._stride, self._crop, self._channels_out = kernel, stride, crop, channels_out
        self._history = -(-kernel // stride) - 1

    def reads(self, first: int, last: int) -> tuple[int, int]:
        first, last = first + self._crop[0], last + self._crop[0]
        # A phase has one tap fewer than the first when the kernel is no multiple of the stride.
        starts = (n // self._stride - self._taps(n % self._stride) + 1 for n in range(first, last + 1)[: self._stride])
        return min(starts), last // self._stride

    def _needed(self, made: int, have: int) -> int:
        return min(self._wanted(made), have - 1)

    def _wanted(self, made: int) -> int:
        return (made + self._crop[0]) // self._stride - self._history

    def _taps(self, phase: int) -> int:
        return -(-(self._kernel - phase) // self._stride)

    def _cut(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        first, begin, kept = self._first, self._made, self._kept_steps
        have = first + x.shape[2] + kept
        left, right = self._crop
        total = (have - 1) * self._stride + self._kernel - left - right if have else 0
        end = max(total if final else min(have * self._stride - left, total), begin)
        wanted = [self._wanted(begin), self._wanted(end)]
        low = max(self._needed(begin, have), 0) if end > begin else have
        keep = max(self._needed(end, have), first)
        cut = Cut(0, low - first, have - first, 0, keep - first)
        rows = self.rows
        window, tail = cut_rows(x, self._tail, cut, rows)
        if end > begin:
            begins = begin + left - low * self._stride
            full = (have - low - 1) * self._stride + self._kernel
            crop = begins, full - begins - (end - begin)
            y = self._run(window.transpose(1, 2), *crop)
            if rows is not None and kept and first > 0 and [low, keep] == wanted and not final:
                case = x.shape[2], kept, begin * self._inputs - first * self._outputs
                self._plan = _Plan(case, cut.keep, crop, end - begin, rows.bound(cut))
        else:
            y = x.new_empty((x.shape[0], self._channels_out, 0), dtype=self._dtype)
        self._tail, self._first, self._made = tail, keep, end
        return y


class MarginStream(_Tailed):
    """An op that keeps the length and treats the ends itself; elsewhere outputs read `reach` steps to either side.

    `run` is the op on these rows alone: it runs on a margin more than is new, and the margin's outputs are dropped.
    rows, dtype: as in TailStream.
    """

    def __init__(
        self,
        reach: tuple[int, int],
        channels: int,
        run: Callable[[Tensor], Tensor],
        *,
        rows: Rows | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(1, 1, run)
        self._reach, self._channels, self.rows, self._dtype = reach, channels, rows, dtype

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._reach[0], last + self._reach[1]

    def _needed(self, made: int, have: int) -> int:
        return made - self._reach[0]

    def _cut(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        first, begin, right = self._first, self._made, self._reach[1]
        have = first + self._kept_steps + x.shape[2]
        end = max(have if final else have - right, begin)
        keep = min(max(self._needed(end, have), first), have)
        cut = Cut(0, 0, have - first if end > begin else 0, 0, keep - first)
        window, tail = cut_rows(x, self._tail, cut, self.rows)
        if end > begin:
            y = self._run(window.transpose(1, 2), *more)[:, :, begin - first : end - first]
        else:
            y = x.new_empty((x.shape[0], self._channels, 0), dtype=self._dtype)
        self._tail, self._first, self._made = tail, keep, end
        return y


class PointStream:
    """An op whose outputs read one step each: it keeps nothing.

    dtype: of the outputs, x's when None; native: as in TailStream.
    """

    def __init__(
        self, run: Callable[..., Tensor], channels_out: int, native: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        self._run, self._channels_out, self._dtype, self.native = run, channels_out, dtype, native

    @property
    def counters(self) -> tuple[int, ...]:
        return ()

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        pass

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first, last

    def step(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        if x.shape[2]:
            return self._run(x, *more)
        return x.new_empty((x.shape[0], self._channels_out, 0), dtype=self._dtype)
