"""Requests of many callers through one vocoder: whole ones in batches by length, live ones in steps of all at once."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, FastvocError, ShapeError, StreamError
from fastvoc.nn.model import Array, Input
from fastvoc.ray.batches import batches, check_frames
from fastvoc.runtime.stats import log
from fastvoc.sound.formats import Format
from fastvoc.streams.delivery import Delivery
from fastvoc.streams.pool import Streams
from fastvoc.streams.stream import Chunk
from fastvoc.vocoder import Vocoder

_AHEAD = 2  # pieces of a stream that may wait for its reader


@dataclass(eq=False)
class _Whole:
    """A mel whose waveform is awaited."""

    mel: Tensor
    inputs: Mapping[str, Any]
    done: asyncio.Future[Tensor]


@dataclass(eq=False)
class _Live:
    """A stream: its chunks to come, and what was made and not yet read; None ends it."""

    name: int
    chunks: deque[Tensor]
    options: Mapping[str, Any]
    out: asyncio.Queue[Tensor | BaseException | None] = field(default_factory=asyncio.Queue)
    opened: bool = False
    gone: bool = False


class Engine:
    """A vocoder for many callers of one event loop; the model runs in a thread of its own.

    frames: the most of a step of all streams, and of a batch of whole mels with its padding; a longer mel runs alone.
    max_streams, rate, format: as `fastvoc.Streams`. Streams go before whole mels, in turn.
    """

    def __init__(
        self,
        voc: Vocoder,
        *,
        frames: int = 4000,
        max_streams: int = 256,
        rate: int | None = None,
        format: Format = "f32",
    ) -> None:
        check_frames(frames)
        self.voc, self.rate, self.format = voc, voc.sample_rate if rate is None else rate, format
        self._delivery = Delivery.of(voc.sample_rate, rate, format, None)
        self.streams = Streams(voc, max_streams, check=False, rate=rate, format=format)
        self._frames, self._most = frames, max_streams
        self._names = itertools.count()
        self._wholes: list[_Whole] = []
        self._lives: deque[_Live] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        threads = torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, "fastvoc", initializer=torch.set_num_threads, initargs=(threads,))

    async def vocode(self, mel: Array, **inputs: Input) -> Tensor:
        """The waveform [S] of a mel [n_mels, T], in a batch with those that wait beside it; alone with `inputs`.

        Samples are those of `voc(mel, rate=..., format=..., **inputs)`. Raises the errors of such a call.
        """
        whole = _Whole(self._checked(mel), inputs, asyncio.get_running_loop().create_future())
        self._wholes.append(whole)
        self._start()
        return await whole.done

    async def stream(self, mel: Array, *, chunk: int = 25, **options: Input) -> AsyncIterator[Tensor]:
        """The samples of a mel [n_mels, T] in pieces, as they are made of `chunk` frames at a time.

        Together they are those of `voc.stream(rate=..., format=..., **options)`. A reader that stops early, or is
        cancelled, gives the stream's place free. Raises the errors of a stream, and StreamError when all places are
        taken.
        """
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise ArgumentError(f"chunk: expected 1 frame or more, got {chunk!r}")
        checked = self._checked(mel)
        if len(self._lives) >= self._most:
            raise StreamError(f"streams: all {self._most} are open")
        live = _Live(next(self._names), deque(checked.split(chunk, 1)), options)
        self._lives.append(live)
        self._start()
        try:
            while (piece := await live.out.get()) is not None:
                self._wake.set()
                if isinstance(piece, BaseException):
                    raise piece
                if len(piece):
                    yield piece
        finally:
            live.gone = True
            self._wake.set()

    async def close(self) -> None:
        """Ends the thread; what was awaited is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._end(asyncio.CancelledError())
        self._thread.shutdown()

    def __len__(self) -> int:
        return len(self._lives)

    def _checked(self, mel: Array) -> Tensor:
        """A mel on the model's device. Raises ShapeError, DtypeError, or ArgumentError for NaN and infinity."""
        try:
            problem = self.voc.examine(mel)
            given = mel if isinstance(mel, Tensor) else torch.from_numpy(mel.astype("float32", order="C"))
            if given.dim() != 2:
                raise ShapeError(f"mel: expected one mel [{self.voc.n_mels}, T], got {list(given.shape)}")
        except FastvocError as error:
            self.voc.stats.failed("call", self.voc.stats.begin(), error)
            raise
        if problem is not None:
            log.warning("mel: looks %s", problem)
        return given.to(self.voc.device)

    def _start(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        """Rounds of work, as long as there is some."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                gone = [live for live in self._lives if live.gone]
                ready = self._ready()
                wholes = self._batch()
                if not (gone or ready or wholes):
                    await self._wake.wait()
                    continue
                if gone:
                    await loop.run_in_executor(self._thread, self._drop, gone)
                    self._forget(gone)
                if ready:
                    self._tell(await loop.run_in_executor(self._thread, self._step, ready))
                if wholes:
                    _settle(wholes, await loop.run_in_executor(self._thread, self._make, wholes))
        except Exception as error:
            log.exception("a service's engine stopped")
            self._end(error)
            raise

    def _ready(self) -> list[_Live]:
        """Streams of the next step, those that waited longest first."""
        chosen: list[_Live] = []
        frames = 0
        for live in self._lives:
            if live.gone or live.out.qsize() >= _AHEAD:
                continue
            size = live.chunks[0].shape[1] if live.chunks else 0
            if chosen and frames + size > self._frames:
                break
            chosen.append(live)
            frames += size
        for live in chosen:
            self._lives.remove(live)
        self._lives.extend(chosen)
        return chosen

    def _batch(self) -> list[_Whole]:
        """Whole mels of the next batch: the one that waits longest, and those of like lengths."""
        self._wholes = [whole for whole in self._wholes if not whole.done.done()]
        if not self._wholes:
            return []
        first = self._wholes[0]
        alike = [first] if first.inputs else [whole for whole in self._wholes if not whole.inputs]
        lengths = [whole.mel.shape[1] for whole in alike]
        chosen = next(batch for batch in batches(lengths, self._frames) if 0 in batch)
        found = [alike[i] for i in chosen]
        self._wholes = [whole for whole in self._wholes if whole not in found]
        return found

    def _drop(self, lives: Sequence[_Live]) -> None:
        for live in lives:
            if live.name in self.streams:
                self.streams.drop(live.name)

    def _step(self, lives: Sequence[_Live]) -> list[tuple[_Live, list[Tensor | BaseException | None]]]:
        """What each of these streams gives next; runs in the thread."""
        told: dict[int, tuple[_Live, list[Tensor | BaseException | None]]] = {live.name: (live, []) for live in lives}
        going: list[_Live] = []
        for live in lives:
            if (problem := self._open(live)) is None:
                going.append(live)
            else:
                told[live.name][1].append(problem)
        chunks: dict[Hashable, Chunk] = {live.name: live.chunks.popleft() for live in going if live.chunks}
        while chunks:
            try:
                for name, made in self.streams.step(chunks).items():
                    told[_number(name)][1].append(made)
                break
            except (FastvocError, RuntimeError) as error:
                bad = getattr(error, "stream", None)
                for name in [bad] if bad in chunks else list(chunks):
                    told[_number(name)][1].append(error)
                    self.streams.drop(name)
                    del chunks[name]
        for live in going:
            pieces = told[live.name][1]
            if not live.chunks and not any(isinstance(piece, BaseException) for piece in pieces):
                try:
                    pieces += [self.streams.close(live.name), None]
                except (FastvocError, RuntimeError) as error:
                    pieces.append(error)
        return list(told.values())

    def _open(self, live: _Live) -> BaseException | None:
        if not live.opened:
            try:
                self.streams.open(live.name, **live.options)
            except (FastvocError, RuntimeError, TypeError) as error:
                return error
            live.opened = True
        return None

    def _tell(self, told: Sequence[tuple[_Live, Sequence[Tensor | BaseException | None]]]) -> None:
        for live, pieces in told:
            for piece in pieces:
                live.out.put_nowait(piece)
        ended = [live for live, pieces in told if any(p is None or isinstance(p, BaseException) for p in pieces)]
        self._forget(ended)

    def _forget(self, lives: Sequence[_Live]) -> None:
        for live in lives:
            if live in self._lives:
                self._lives.remove(live)

    def _make(self, wholes: Sequence[_Whole]) -> list[Tensor | BaseException]:
        """A waveform or an error for each; runs in the thread."""
        try:
            mels = [whole.mel for whole in wholes]
            rate = None if self._delivery is None else self.rate
            inputs = wholes[0].inputs
            if len(wholes) == 1:
                return [self.voc(mels[0], check=bool(inputs), rate=rate, format=self.format, **inputs)]
            return list(self.voc.each(mels, check=False, rate=rate, format=self.format))
        except (FastvocError, RuntimeError, TypeError) as error:
            if len(wholes) == 1:
                return [error]
        return [self._make([whole])[0] for whole in wholes]

    def _end(self, error: BaseException) -> None:
        """Tells everyone who waits that nothing more comes."""
        for whole in self._wholes:
            if not whole.done.done():
                whole.done.set_exception(error) if isinstance(error, Exception) else whole.done.cancel()
        for live in self._lives:
            live.out.put_nowait(error)
        self._wholes.clear()
        self._lives.clear()


def _number(name: object) -> int:
    assert isinstance(name, int)
    return name


def _settle(wholes: Sequence[_Whole], results: Sequence[Tensor | BaseException]) -> None:
    for whole, result in zip(wholes, results, strict=True):
        if whole.done.done():  # its caller has gone
            continue
        if isinstance(result, BaseException):
            whole.done.set_exception(result)
        else:
            whole.done.set_result(result)
