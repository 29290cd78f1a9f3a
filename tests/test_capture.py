"""What CUDA graphs promise of memory and order, by a recorder in the place of torch.cuda."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from fastvoc.graphs import capture


class Event:
    """Notes the streams that it was recorded on."""

    def __init__(self) -> None:
        self.streams: list[Any] = []

    def record(self, stream: Any) -> None:
        self.streams.append(stream)


class Stream:
    """Notes the events that it waits for."""

    def __init__(self) -> None:
        self.waits: list[Any] = []

    def wait_event(self, event: Any) -> None:
        self.waits.append(event)


def test_a_call_that_fails_after_its_replay_is_waited_for_by_the_next_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[Stream] = [Stream()]
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: now[0])
    graph: Any = capture._CudaGraph(None, None, 0, torch.device("cuda:0"))  # type: ignore[arg-type]
    with pytest.raises(MemoryError), graph.in_order():
        raise MemoryError
    assert graph._used.streams == [now[0]]
    now[0] = Stream()
    with graph.in_order():
        assert now[0].waits == [graph._used]


def test_the_memory_of_a_graph_is_that_of_its_own_pool() -> None:
    segments = [
        {"total_size": 2 << 20, "segment_pool_id": (0, 1)},
        {"total_size": 20 << 20, "segment_pool_id": (0, 0)},
        {"total_size": 6 << 20, "segment_pool_id": (0, 1)},
        {"total_size": 6 << 20},
    ]
    assert capture.pool_bytes(segments, (0, 1)) == 8 << 20
    assert capture.pool_bytes(segments, (0, 2)) == 0


def test_triton_is_refused_where_its_launchers_cannot_be_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from fastvoc.ops import _triton

    monkeypatch.setattr(_triton, "find_spec", lambda _: True)
    monkeypatch.setattr(_triton, "_interpreted", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    problem = _triton.triton_problem.__wrapped__
    assert "neither gcc nor clang" in str(problem())
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert problem() is None
