"""A chunk of a live stream as one CUDA graph: one for each chunk size, number of streams and point of the stream.

After its first chunks a stream is always at the same point, as far as shapes go; only then a graph is worth it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError
from fastvoc.graphs.capture import Capture, Captured, CudaCapture
from fastvoc.nn.streams import ModelStream
from fastvoc.runtime.lengths import LengthPlan
from fastvoc.runtime.registry import settings


@dataclass
class _Step:
    """A captured chunk, and what a replay reads: the chunk and the state before it."""

    x: Tensor
    state: list[Tensor]
    captured: Captured[tuple[Tensor, list[Tensor]]]

    @property
    def bytes(self) -> int:
        return self.captured.bytes + sum(t.numel() * t.element_size() for t in (self.x, *self.state))


class StepGraphs:
    """Steps batches of streams from graphs where there is one, the same bits; one thread at a time.

    new_stream: makes a state at the beginning. max_mb: device memory of all graphs together; the least recently used
    go first. Chunks for which no graph is there run without one; where the stream was at the same point before and
    after, they are captured, unless `frozen`.
    """

    def __init__(
        self,
        new_stream: Callable[[], ModelStream],
        device: torch.device,
        max_mb: float = 1024.0,
        capture: Capture | None = None,
    ) -> None:
        if not max_mb > 0:
            raise ArgumentError(f"graphs_mb: expected more than 0, got {max_mb}")
        self._new_stream, self._device, self._cap = new_stream, device, int(max_mb * 2**20)
        self._capture = CudaCapture(device) if capture is None else capture
        self._graphs: OrderedDict[Hashable, _Step] = OrderedDict()
        self.frozen = False
        self.replays = self.captures = 0

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def bytes(self) -> int:
        """Device memory held."""
        return sum(graph.bytes for graph in self._graphs.values())

    def step(self, stream: ModelStream, x: Tensor) -> Tensor:
        """`stream.step(x, final=False)`: [B, C, n] -> [B, C_out, m]."""
        tensors, counters = stream.tensors(), stream.counters
        key = self._key(x, tensors, counters)
        graph = self._graphs.get(key)
        if graph is None:
            y = stream.step(x, False)
            after = stream.tensors()
            if not self.frozen and self._key(x, after, stream.counters) == key:
                self._add(key, x, after, counters)
            return y
        self._graphs.move_to_end(key)
        names, before = list(tensors), list(tensors.values())
        with graph.captured.in_order():
            graph.x.copy_(x, non_blocking=True)
            if before:
                torch._foreach_copy_(graph.state, before)
            y, made = graph.captured.replay()
            out: Tensor = y.clone()
            new = [torch.empty_like(t) for t in made]
            if new:
                torch._foreach_copy_(new, made)
        stream.restore(dict(zip(names, new, strict=True)), counters)
        self.replays += 1
        return out

    def clear(self) -> None:
        """Drops all graphs."""
        while self._graphs:
            self._graphs.popitem()[1].captured.drop()

    def _key(self, x: Tensor, tensors: dict[str, Tensor], counters: Any) -> Hashable:
        shapes = tuple((name, t.shape, t.dtype) for name, t in tensors.items())
        return x.shape, x.dtype, frozen_counters(counters), shapes, settings()

    def _add(self, key: Hashable, x: Tensor, tensors: dict[str, Tensor], counters: Any) -> None:
        own, plan = self._new_stream(), LengthPlan(1, 1, 1, self._device)
        names, state, chunk = list(tensors), [t.clone() for t in tensors.values()], x.clone()

        def run() -> tuple[Tensor, list[Tensor]]:
            own.restore(dict(zip(names, state, strict=True)), counters)
            with plan.running():
                y = own.step(chunk, False)
            after = own.tensors()
            return y, [after[name] for name in names]

        run()
        plan.freeze()
        graph = _Step(chunk, state, self._capture(run))
        self.captures += 1
        self._graphs[key] = graph
        while self.bytes > self._cap:
            self._graphs.popitem(last=False)[1].captured.drop()


def frozen_counters(counters: Mapping[str, Any] | Hashable) -> Hashable:
    """Counters as something to compare and look up."""
    if not isinstance(counters, Mapping):
        return counters
    return tuple(sorted((key, frozen_counters(value)) for key, value in counters.items()))
