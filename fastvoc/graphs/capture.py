"""Work on a device that is recorded once and then replayed as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from fastvoc.errors import DeviceError

_capturing = threading.Lock()  # CUDA records for one graph at a time


class Captured(Protocol):
    """A recorded function: `replay` does what it did, with what is in its input tensors now."""

    @property
    def bytes(self) -> int:
        """Device memory that it holds."""

    def replay(self) -> Any:
        """What the function returned; the next replay writes over it."""

    def in_order(self) -> Any:
        """A context around writing the inputs, `replay` and reading the results, on whatever stream is current."""

    def drop(self) -> None:
        """Waits for what is under way and gives the memory back."""


class Capture(Protocol):
    """Something that records functions."""

    def __call__(self, run: Callable[[], Any]) -> Captured:
        """Runs and records a function without arguments, which must not need the host between its kernels."""


class CudaCapture:
    """Records CUDA graphs on one device; each has a memory pool of its own, so that dropping it frees its memory."""

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise DeviceError(f"graphs: expected a model on a CUDA device, got {device}")
        self._device = device

    def __call__(self, run: Callable[[], Any]) -> Captured:
        with _capturing, torch.cuda.device(self._device):
            stream = torch.cuda.Stream(self._device)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run()  # what is set up by a first call must not be recorded
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on allocating and synchronising.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                before = torch.cuda.memory_reserved()
                result = run()
                grown = torch.cuda.memory_reserved() - before
            held = pool_bytes(torch.cuda.memory_snapshot(), graph.pool())
            return _CudaGraph(graph, result, held or max(grown, 0), self._device)


def pool_bytes(segments: Iterable[Mapping[str, Any]], pool: tuple[int, int]) -> int:
    """Device memory of one pool in the allocator's snapshot: what other threads allocate meanwhile does not count."""
    return sum(s["total_size"] for s in segments if tuple(s.get("segment_pool_id", ())) == tuple(pool))


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, result: Any, held: int, device: torch.device) -> None:
        self._graph, self._result, self.bytes, self._device = graph, result, held, device
        self._used = torch.cuda.Event()
        self._stream: torch.cuda.Stream | None = None

    def replay(self) -> Any:
        self._graph.replay()
        return self._result

    @contextmanager
    def in_order(self) -> Iterator[None]:
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            if self._stream is not None and self._stream != stream:
                stream.wait_event(self._used)  # the tensors are shared by all who replay
            try:
                yield
            finally:  # what was begun runs on, also where the memory for its result was lacking
                self._used.record(stream)
                self._stream = stream

    def drop(self) -> None:
        if self._stream is not None:
            self._used.synchronize()
        self._result = None
        self._graph.reset()
