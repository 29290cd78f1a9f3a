"""Streams: a spectrogram in chunks of any size, the same samples as in one call.

Every layer keeps the tail of its input that later outputs still need, so nothing is computed twice and no border is
blended over.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NoReturn, Protocol

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, StreamError
from fastvoc.nn.model import Array, Model
from fastvoc.nn.streams import ModelStream
from fastvoc.runtime import flags
from fastvoc.runtime.registry import as_now
from fastvoc.runtime.stats import Stats, clock
from fastvoc.runtime.values import are_wrong, wrong_values
from fastvoc.streams import saved
from fastvoc.streams.delivery import Deliverer, Delivery

# What is pushed: a tensor or array, or of codes of several rates one for each; None is a chunk of nothing.
Chunk = Array | Sequence[Array] | None
_LAST = "last"  # the last input step, in a saved state
Check = bool | Literal["later"] | None


@dataclass(frozen=True)
class Latency:
    """How far a stream's output lies behind its input: look-ahead in frames, samples and milliseconds."""

    frames: int
    samples: int
    ms: float


def context_frames(model: Model, hop: int, backend: str | None = None) -> tuple[int, int]:
    """Frames to the left and to the right of a frame that its samples depend on."""
    options = {name: value for name, value in model.warmup_inputs.items() if name in model.stream_options}
    return reach(model.stream(backend, **options), hop)


def reach(state: ModelStream, hop: int) -> tuple[int, int]:
    """The same of a stream's state."""
    far = 1 << 24
    first, last = state.reads(far * hop, far * hop + hop - 1)
    return far - first, last - far


def delivered_latency(owner: Streamable, lookahead: int, delivery: Delivery | None) -> Latency:
    """How far a stream's output lies behind its input: with the filter of another rate, in samples of that rate."""
    if delivery is None:
        return Latency(lookahead, lookahead * owner.hop, 1000 * lookahead / owner.rate)
    samples = lookahead * owner.hop + delivery.reach
    frames = lookahead - (-delivery.reach // owner.hop)
    ahead = -(-samples * delivery.rate // delivery.from_rate)
    return Latency(frames, ahead, 1000 * samples / delivery.from_rate)


def latency(model: Model, hop: int, sample_rate: int, backend: str | None = None) -> Latency:
    """The look-ahead that exact output needs."""
    frames = context_frames(model, hop, backend)[1]
    return Latency(frames, frames * hop, 1000 * frames * hop / sample_rate)


class Streamable(Protocol):
    """What a stream needs to know of the model that it runs through."""

    @property
    def latency(self) -> Latency:
        """The look-ahead that exact output needs."""

    def lookahead(self, state: ModelStream) -> int:
        """Input steps after one that its exact output needs, in a stream of this state."""

    @property
    def hop(self) -> int:
        """Output steps per input step."""

    @property
    def rate(self) -> float:
        """Input steps per second."""

    @property
    def sample_rate(self) -> int:
        """Output steps per second, where they are samples."""

    @property
    def stats(self) -> Stats:
        """What counts its chunks."""

    @property
    def step(self) -> str:
        """What an input step is called."""

    @property
    def entries(self) -> int | None:
        """An input of codes holds 0..entries - 1; None for one of floating-point values."""

    def samples(self, frames: int) -> int:
        """Output steps of a whole signal of so many input steps."""

    @property
    def device(self) -> torch.device:
        """Where the state is."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the state."""

    def new_stream(self, options: dict[str, Any]) -> ModelStream:
        """A state at the beginning. Raises ArgumentError for an option that the model does not know."""

    def facts(self, options: dict[str, Any]) -> dict[str, object]:
        """Equal for streams that may exchange their states; in words, for the error of those that may not."""

    def chunk(
        self, value: Chunk, inputs: dict[str, Array], batch: int | None
    ) -> tuple[Tensor, bool, dict[str, Tensor]]:
        """What was pushed as [B, C, n], whether it was a batch, and the further inputs; None is a chunk of nothing."""

    def nothing(self, batch: int) -> Tensor:
        """An output [B, C, 0]."""

    def result(self, y: Tensor, batched: bool) -> Tensor:
        """The user's view of the output [B, C, m]."""


def check_chunk(owner: Streamable, x: Tensor, inputs: dict[str, Tensor], given: int, check: Check) -> None:
    """Raises ArgumentError for values of no signal and codes out of range in the chunk [B, C, n] after `given` steps.

    check: as `Vocoder.stream` has it.
    """
    if check is None:
        check = owner.device.type == "cpu"
    if not check or not x.shape[-1]:
        return
    for name, value in {"chunk": x, **inputs}.items():
        entries = owner.entries if name == "chunk" else None
        if entries is None and check == "later":
            flags.note(flags.NOT_FINITE, ~value.isfinite())
        elif check is True and (wrong := _wrong(value, entries)):
            bad = are_wrong(value) if entries is None else (value < 0) | (value >= entries)
            raise ArgumentError(f"{name}: {wrong} {_where(owner, value, bad, given)}")


def _wrong(x: Tensor, entries: int | None) -> str | None:
    """What is wrong with some values, None where nothing is."""
    if entries is None:
        return wrong_values(x)
    low, high = (int(t) for t in x.aminmax())
    if low >= 0 and high < entries:
        return None
    return f"expected codes in 0..{entries - 1}, got {low if low < 0 else high}"


def _where(owner: Streamable, x: Tensor, bad: Tensor, given: int) -> str:
    """Where in the stream x [B, ..., n] begins to be wrong."""
    wrong = bad.flatten(1, -2).any(1) if bad.dim() > 2 else bad
    at = int(wrong.any(0).nonzero()[0])
    item = "" if len(x) == 1 else f", item {int(wrong[:, at].nonzero()[0])}"
    return f"in {owner.step} {given + at} of the stream ({(given + at) / owner.rate:.3f} s{item})"


class Stream:
    """One signal, or a batch of equally long ones, that comes in chunks; made by `Vocoder.stream`.

    `lookahead` frames, when given, are fewer than exact output needs: what is missing is guessed by going on with the
    last frame, and what has been guessed is not taken back. `check`: as `Vocoder.stream` has it. `delivery`: the rate
    and format of what comes out.
    """

    def __init__(
        self,
        owner: Streamable,
        options: dict[str, Any],
        lookahead: int | None = None,
        check: Check = None,
        delivery: Delivery | None = None,
    ) -> None:
        self._owner, self._options, self._check = owner, options, check
        if delivery is not None:
            delivery.prepare(owner.device)
        self._delivery = None if delivery is None else Deliverer(delivery)
        self.clipped: int | Tensor = 0  # samples beyond full scale, of formats that clip; on a GPU a tensor
        self._new, self._known = as_now(owner.new_stream), as_now(owner.facts)
        self._model: ModelStream = self._new(options)
        exact = owner.lookahead(self._model)
        if lookahead is not None and not 0 <= lookahead <= exact:
            raise ArgumentError(f"lookahead: expected 0..{exact} frames, got {lookahead}")
        self._lookahead = exact if lookahead is None else lookahead
        self._guess = exact - self._lookahead
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._batch: int | None = None
        self._batched = False
        self._ended = False
        self._last: Tensor | None = None
        self._given = self._early = self._sent = 0
        if self._delivery is not None:
            self._delivery.clear()

    @property
    def latency(self) -> Latency:
        """How far this stream's output lies behind its input, the filter of another rate included.

        `samples` are of the rate that comes out.
        """
        return delivered_latency(
            self._owner, self._lookahead, None if self._delivery is None else self._delivery.delivery
        )

    def __reduce__(self) -> NoReturn:
        raise StreamError("stream: no copies or pickles; `restore` of the same model's stream takes what `state` gives")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the stream and gives its state back; what was not flushed is dropped."""
        with self._alone():
            self._model.restore({}, self._new(self._options).counters)
            self._clear()
            self._ended = True

    def push(self, chunk: Chunk, **inputs: Array) -> Tensor:
        """The next frames [n_mels, n] or [B, n_mels, n], n >= 0, -> the samples [m] or [B, m] that they complete.

        Raises StreamError after the end, for another batch than before and when two threads use the stream at once;
        ShapeError, DtypeError and DeviceError for a chunk that does not fit; ArgumentError for NaN, infinity and codes
        outside the codebooks where the stream looks for them. The stream is as before after any error.
        """
        with self._alone():
            return self._advance(chunk, inputs, final=False)

    def flush(self, chunk: Chunk = None, **inputs: Array) -> Tensor:
        """Ends the signal, with a last chunk if given -> the rest of the samples."""
        with self._alone():
            return self._advance(chunk, inputs, final=True)

    async def through(self, chunks: AsyncIterable[Chunk]) -> AsyncIterator[Tensor]:
        """The samples of chunks as they come, the rest at the end; the work runs in a thread beside the event loop."""
        async for chunk in chunks:
            yield await asyncio.to_thread(self.push, chunk)
        yield await asyncio.to_thread(self.flush)

    def reset(self) -> None:
        """Begins anew, as if nothing had been pushed."""
        with self._alone():
            self._model = self._new(self._options)
            self._clear()
            self.clipped = 0

    def state(self) -> bytes:
        """Everything that goes on from here, as a safetensors file in memory; `restore` takes it in any process."""
        with self._alone():
            self._usable()
            tensors, values = self._model.tensors(), dict[str, Any]()
            if self._last is not None:
                tensors[_LAST] = self._last
            if self._delivery is not None:
                more, values["delivery"] = self._delivery.state()
                tensors |= more
            values["counters"], values["clipped"] = self._model.counters, int(self.clipped)
            values["stream"] = self._batch, self._batched, self._given, self._early, self._sent
            return saved.write(self._facts(), tensors, values)

    def restore(self, state: bytes) -> None:
        """Goes on where the stream was whose `state` this is.

        Raises StreamError, and changes nothing, when the bytes are damaged or come from a stream of another model,
        weights, dtype or implementation, or of other options: `exact`, `lookahead`, rate or format, codebooks.
        """
        with self._alone():
            tensors, values = saved.read(state, self._facts(), self._owner.device)
            last = tensors.pop(_LAST, None)
            delivery = self._delivery
            delivered = [name for name in tensors if delivery is not None and name.startswith("delivery/")]
            held = {name: tensors.pop(name) for name in delivered}
            place = saved.place(values)
            chunk = self._owner.chunk(None, {}, place.batch)[0]
            model = self._new(self._options)
            with torch.inference_mode():
                saved.put(model, tensors, values["counters"], None if place.batch is None else chunk)
            kept = None if last is None else (last.dtype, last.shape)
            if kept != ((chunk.dtype, (*chunk.shape[:-1], 1)) if place.given else None):
                raise StreamError("state: its last step is not one of such a stream")
            if delivery is not None:
                signals = self._owner.result(self._owner.nothing(len(chunk)), place.batched)
                delivery = delivery.restored(held, values.get("delivery"), signals)
            self._clear()
            self._model, self._last, self._delivery, self.clipped = model, last, delivery, place.clipped
            self._batch, self._batched, self._given, self._early, self._sent = place[:5]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise StreamError("stream: two threads use it at once; give each its own")
        try:
            yield
        finally:
            self._lock.release()

    def _usable(self) -> None:
        if self._ended:
            raise StreamError("stream: it has ended; reset() begins a new one")

    def _facts(self) -> dict[str, object]:
        found = {**self._known(self._options), "lookahead": self._lookahead}
        if self._delivery is not None:
            out = self._delivery.delivery
            found |= {"rate": out.rate, "format": out.format, "dither": out.dither}
        return found

    def _advance(self, chunk: Chunk, inputs: dict[str, Array], *, final: bool) -> Tensor:
        with torch.inference_mode():
            made = self._made(chunk, inputs, final=final)
        return made.clone() if made.is_inference() else made  # an ordinary tensor, which may be changed in place

    def _made(self, chunk: Chunk, inputs: dict[str, Array], *, final: bool) -> Tensor:
        stats, before, clipped = self._owner.stats, None, None
        start = stats.begin()
        try:
            x, batched, given = self._checked(chunk, inputs)
            checked, frames = clock(), x.shape[-1]
            before = self._model.snapshot()
            if empty := final and not self._given + frames:
                out = y = self._owner.nothing(len(x))
            else:
                y = self._model.step(x, final, **given)
                ahead = self._guessed(x, final) if self._guess else None
                out = y if ahead is None else torch.cat([y, ahead], -1)
                due = None if ahead is None else self._early + self._due(self._given + frames)
                out = out[..., self._early : due]
            computed = clock()
            result = self._owner.result(out, batched)
            if self._delivery is not None:
                step = self._delivery.ready(result, final=final)
                clipped, result = step.clipped, self._delivery.done(step)
        except BaseException as error:
            if before is not None:
                self._model.undo(before)
            stats.failed("stream", start, error)
            raise
        if not empty:
            self._batch, self._batched = len(x), batched
        self._given += frames
        self._last = x[..., -1:].clone() if frames else self._last
        self._ended = final
        self._early = max(self._early + out.shape[-1] - y.shape[-1], 0)
        self._sent += out.shape[-1]
        if clipped is not None:
            self.clipped = self.clipped + clipped
        made = frames if self._owner.step == "frame" else out.shape[-1]
        stats.made("stream", start, checked, computed, x.shape[0] * made, clipped)
        return result

    def _checked(self, chunk: Any, inputs: dict[str, Any]) -> tuple[Tensor, bool, dict[str, Tensor]]:
        """A chunk as the model takes it. Raises as `push`."""
        self._usable()
        x, batched, given = self._owner.chunk(chunk, inputs, self._batch)
        if chunk is None:
            batched = self._batched
        if self._batch is not None and (len(x), batched) != (self._batch, self._batched):
            was = f"a batch of {self._batch}" if self._batched else "no batch"
            raise StreamError(f"chunk: this stream has had {was} so far, got {list(chunk.shape)}")
        check_chunk(self._owner, x, given, self._given, self._check)
        return x, batched, given

    def _due(self, given: int) -> int:
        """Samples that a short look-ahead still owes for so many frames."""
        wanted = max(given - self._lookahead, 0) * self._owner.hop
        return max(min(wanted, self._owner.samples(given)) - self._sent, 0)

    def _guessed(self, x: Tensor, final: bool) -> Tensor | None:
        """What would come next if the last frame went on: not exact, but earlier."""
        last = x[..., -1:] if x.shape[-1] else self._last
        if final or not self._guess or last is None:
            return None
        model = self._new(self._options)
        model.restore(self._model.tensors(), self._model.counters)
        ahead: Tensor = model.step(last.expand(*last.shape[:-1], self._guess).contiguous(), False)
        return ahead
