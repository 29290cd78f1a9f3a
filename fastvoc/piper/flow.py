"""The flow of a voice: the end of its front, whose frames depend on those near by, so that the first come early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastvoc.checkpoints.onnx_graph import Array, Graph

LEAD = 32  # frames of the first part: a piece of a stream, and what its decoder looks ahead
_CLOSE = 1e-4  # of the greatest value, at which parts are those of the whole


class FlowPlace(NamedTuple):
    """Where a flow lies in a graph: the values that it begins with, and how many frames it sees to either side."""

    begins: list[str]
    reach: tuple[int, int]


def find_flow(graph: Graph, output: str) -> FlowPlace | None:
    """What leads from the sum with the last noise to `output`, if there are convolutions in it."""
    noise = [node for node in graph.nodes if node.op.startswith("RandomNormal")]
    start = _sum_after(graph, noise[-1].outputs[0]) if noise else None
    if start is None:
        return None
    late, moving = {start}, set(graph.inputs)
    for node in graph.nodes:
        if not late.isdisjoint(node.inputs):
            late.update(node.outputs)
        if node.op.startswith("Random") or not moving.isdisjoint(node.inputs):
            moving.update(node.outputs)
    wanted, others, left, right = {output}, set[str](), 0, 0
    for node in reversed(graph.nodes):
        if wanted.isdisjoint(node.outputs) or node.outputs[0] not in late or node.outputs[0] == start:
            continue
        wanted.update(node.inputs)
        others.update(name for name in node.inputs if name in moving and name not in late)
        if node.op == "Conv":
            pads = node.integers("pads", (0, 0))
            left, right = left + pads[0], right + pads[-1]
    return FlowPlace([start, *sorted(others)], (left, right)) if left + right and start in wanted else None


def _sum_after(graph: Graph, name: str) -> str | None:
    """The first sum that a value goes into, through products alone."""
    for node in graph.nodes:
        if name in node.inputs:
            if node.op == "Add":
                return node.outputs[0]
            if node.op != "Mul":
                return None
            name = node.outputs[0]
    return None


class Flow:
    """A flow cut out of its voice, in onnxruntime; `begins` are its inputs, that of the frames first."""

    def __init__(self, session: Any, place: FlowPlace) -> None:
        self._session, self._begins, self._reach = session, place.begins, place.reach

    def parts(self, given: Sequence[Array]) -> Iterator[Array]:
        """The frames [1, C, n]: the first ones, then the others; all at once where they are few."""
        frames = given[0].shape[2]
        left, right = self._reach
        return self._run(given, [frames] if frames < LEAD + left + right else [LEAD, frames])

    def local(self, channels: Sequence[int], lasting: Sequence[bool]) -> bool:
        """Whether its parts are those of the whole, on noise: inputs of so many channels, `lasting` or of frames."""
        frames = LEAD + 2 * sum(self._reach)
        noise = np.random.default_rng(0).standard_normal((1, channels[0], frames)).astype(np.float32)
        given = [noise]
        for count, same in zip(channels[1:], lasting[1:], strict=True):
            given.append(np.ones((1, count, 1 if same else frames), np.float32))
        try:
            whole, parts = next(self._run(given, [frames])), np.concatenate([*self.parts(given)], 2)
        except Exception:  # onnxruntime's own, which have no base but this: its inputs have other shapes
            return False
        return whole.shape == parts.shape and bool(np.abs(whole - parts).max() <= _CLOSE * np.abs(whole).max())

    def _run(self, given: Sequence[Array], ends: Sequence[int]) -> Iterator[Array]:
        frames, begin = given[0].shape[2], 0
        left, right = self._reach
        for end in ends:
            low, high = max(begin - left, 0), min(end + right, frames)
            cut = [np.ascontiguousarray(a[:, :, low:high]) if a.shape[2] == frames else a for a in given]
            (made,) = self._session.run(None, dict(zip(self._begins, cut, strict=True)))
            yield made[:, :, begin - low : end - low]
            begin = end
