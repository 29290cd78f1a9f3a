"""What a loaded model has done: counted in every call and stream, for whoever watches it run."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

log = logging.getLogger("fastvoc")
clock = time.perf_counter


@dataclass(frozen=True)
class Event:
    """A call that was made, or a chunk of a stream: what `Stats.listeners` are told.

    kind: "call", "decode", "encode", "stream" or "streams"; frames: of all its items; seconds: of audio that came out,
    or that went in for codes. stages: seconds by stage, in the order in which they ran, from `start` on, which is on
    the clock of `time.perf_counter`. error: what it was refused or failed with, None when it was made.
    """

    kind: str
    start: float
    stages: tuple[tuple[str, float], ...]
    frames: int = 0
    seconds: float = 0.0
    clipped: int = 0
    error: BaseException | None = None


class Stats:
    """Counters of one loaded model, by all threads that use it; none of them waits for a GPU.

    frame_seconds: of audio, for each frame. calls: calls and chunks of streams that were made. frames: of all their
    items. refused: those that raised, by the name of the error. running: how many are at work now, `most_running` at
    most so far: a queue, where calls share a processor. stages: seconds of the host, by stage: "check" of arguments,
    "model", "output" for another rate and format and the copy that is given out. clipped: samples beyond full scale, of
    formats that clip. listeners: functions that are told every `Event`, in the thread that made it; what they raise is
    logged with its traceback by the logger `fastvoc`, and the call goes on.
    """

    def __init__(self, frame_seconds: float = 0.0) -> None:
        self.frame_seconds = frame_seconds
        self.listeners: list[Callable[[Event], None]] = []
        self.lock = threading.Lock()
        self.pools: weakref.WeakSet[Sized] = weakref.WeakSet()
        self.running = self.most_running = 0
        _ALL.add(self)
        _survive_forks()
        self.reset()

    def reset(self) -> None:
        """Counts from nothing again; what runs now stays so."""
        with self.lock:
            self.calls = self.frames = 0
            self.refused: dict[str, int] = {}
            self.stages = {"check": 0.0, "model": 0.0, "output": 0.0}
            self.most_running = self.running
            self._clipped: list[int | Tensor] = [0]

    @property
    def seconds(self) -> float:
        """Of audio, made or encoded."""
        return self.frames * self.frame_seconds

    @property
    def streams(self) -> int:
        """Live streams that are open in every `fastvoc.Streams`."""
        return sum(len(pool) for pool in list(self.pools))

    @property
    def clipped(self) -> int:
        """Samples beyond full scale so far; of a model on a GPU, the host waits for their number."""
        with self.lock:
            self._clipped = [sum(int(count) for count in self._clipped)]
            return int(self._clipped[0])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        clipped = self.clipped
        with self.lock:
            return {
                "calls": self.calls,
                "frames": self.frames,
                "seconds": self.seconds,
                "clipped": clipped,
                "refused": dict(self.refused),
                "running": self.running,
                "most_running": self.most_running,
                "streams": self.streams,
                "stages": dict(self.stages),
            }

    def __repr__(self) -> str:
        values = self.to_dict()
        stages = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in values["stages"].items())
        refused = ", ".join(f"{count} {name}" for name, count in values["refused"].items()) or "none"
        return (
            f"Stats({values['calls']} calls, {values['frames']} frames, {values['seconds']:.2f} s of audio; {stages}; "
            f"{values['clipped']} clipped, refused {refused}, {values['running']} running)"
        )

    def begin(self) -> float:
        """Counts a call as running and returns its time; `made` or `failed` follows."""
        with self.lock:
            self.running += 1
            if self.running > self.most_running:
                self.most_running = self.running
        return clock()

    def made(
        self,
        kind: str,
        start: float,
        checked: float,
        computed: float,
        frames: int,
        clipped: int | Tensor | None = None,
    ) -> None:
        """Counts what ran from `start` on: its arguments were checked then, the model done then, the rest now."""
        end = clock()
        with self.lock:
            self.running -= 1
            self.calls += 1
            self.frames += frames
            stages = self.stages
            stages["check"] += checked - start
            stages["model"] += computed - checked
            if clipped is not None:
                self._clipped.append(clipped)
                if len(self._clipped) > 64:  # few tensors of a GPU are kept
                    self._clipped = [sum(self._clipped[1:], self._clipped[0])]
            stages["output"] += end - computed
        if self.listeners:
            spent = (("check", checked - start), ("model", computed - checked), ("output", end - computed))
            self._tell(Event(kind, start, spent, frames, frames * self.frame_seconds, _number(clipped)))

    def failed(self, kind: str, start: float, error: BaseException) -> None:
        """Counts what raised."""
        name, end = type(error).__name__, clock()
        with self.lock:
            self.running -= 1
            self.refused[name] = self.refused.get(name, 0) + 1
        log.debug("%s refused: %s: %s", kind, name, error)
        if self.listeners:
            self._tell(Event(kind, start, (("check", end - start),), error=error))

    def _tell(self, event: Event) -> None:
        for listener in tuple(self.listeners):
            _told(listener, event)


def _told(listener: Callable[[Event], None], event: Event) -> None:
    try:
        listener(event)
    except Exception:  # whoever watches must not cost the sound of what was made
        log.exception("a listener of the stats raised at a %s", event.kind)


_ALL: weakref.WeakSet[Stats] = weakref.WeakSet()


@cache
def _survive_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew)


def _renew() -> None:
    """In a forked child, where nothing runs yet, and which nobody would give a lock back to."""
    for stats in _ALL:
        stats.lock, stats.running = threading.Lock(), 0


def _number(clipped: int | Tensor | None) -> int:
    return 0 if clipped is None else int(clipped)
