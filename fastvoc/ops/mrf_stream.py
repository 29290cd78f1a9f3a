"""mrf on a signal in chunks: every convolution keeps its own tail."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.ops.join import Join
from fastvoc.ops.mrf_params import PAD_MODES
from fastvoc.ops.stream import KeptStream, TailStream
from fastvoc.runtime.native import Native
from fastvoc.runtime.packing import result_type, row_width


class MrfPacked(NamedTuple):
    """A stage as the kernels take it."""

    weight: Tensor
    bias: Tensor
    channels: int
    depth: int  # convolutions of a layer
    pad: int
    layers: list[int]  # of every block
    kernels: list[int]  # of every convolution, as the next two
    dilations: list[int]
    schemes: list[int]
    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


class _Block:
    """One residual block: h = h + conv(act(conv(act(h)))) for every layer."""

    def __init__(self, layers: Sequence[Sequence[TailStream]]) -> None:
        self._layers = layers
        self.convs = [conv for layer in layers for conv in layer]
        self.joins = [Join(2) for _ in layers]

    def step(self, x: Tensor, final: bool) -> Tensor:
        for layer, join in zip(self._layers, self.joins, strict=True):
            y = x
            for conv in layer:
                y = conv.step(y, final)
            x, y = join(x, y)
            x = y + x
        return x


class MrfStream:
    """The state of a stage: the convolutions of its blocks, layer by layer, each with its activation before it."""

    def __init__(self, blocks: Sequence[Sequence[Sequence[TailStream]]]) -> None:
        self._blocks = [_Block(layers) for layers in blocks]
        self._join = Join(len(blocks))
        reads = [[conv.reads(0, 0) for conv in block.convs] for block in self._blocks]
        self._left = max(sum(-first for first, _ in block) for block in reads)
        self._right = max(sum(last for _, last in block) for block in reads)

    def _parts(self) -> dict[str, TailStream | Join]:
        parts: dict[str, TailStream | Join] = {"join": self._join}
        for i, block in enumerate(self._blocks):
            parts |= {f"{i}.conv{j}": conv for j, conv in enumerate(block.convs)}
            parts |= {f"{i}.join{j}": join for j, join in enumerate(block.joins)}
        return parts

    @property
    def counters(self) -> tuple[int, ...]:
        return tuple(n for part in self._parts().values() for n in part.counters)

    def tensors(self) -> dict[str, Tensor]:
        return {f"{name}.{key}": t for name, part in self._parts().items() for key, t in part.tensors().items()}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        rest = list(counters)
        for name, part in self._parts().items():
            count = len(part.counters)
            own = {key[len(name) + 1 :]: t for key, t in tensors.items() if key.startswith(f"{name}.")}
            part.restore(own, tuple(rest[:count]))
            del rest[:count]

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._left, last + self._right

    def step(self, x: Tensor, final: bool) -> Tensor:
        first, *rest = self._join(*(block.step(x, final) for block in self._blocks))
        total = first
        for y in rest:
            total = y + total
        return total * (1 / (1 + len(rest))) if rest else total


class NativeMrfStream(KeptStream):
    """The state of a stage as the C++ kernels keep it: one tensor for all convolutions (csrc/cpu/mrf_stream_args.h).

    `pads[b]` are the paddings (left, right) of block b's convolutions.
    """

    def __init__(self, pads: Sequence[Sequence[tuple[int, int]]], packed: MrfPacked) -> None:
        self._left = max(sum(left for left, _ in row) for row in pads)
        self._right = max(sum(right for _, right in row) for row in pads)
        self._floats = sum(_kept(row, packed.depth, self._right) for row in pads) * row_width(packed.channels)
        self._native = NATIVE.bound(packed)
        super().__init__(self._left + self._right + 1)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._left, last + self._right

    def step(self, x: Tensor, final: bool) -> Tensor:
        state = self._state
        if state is None or not state.numel():  # float32 whatever the stream computes in
            state = x.new_empty((x.shape[0], self._floats), dtype=torch.float32)
        have = self._have if self._have < self._most else self._most
        made: tuple[Tensor, Tensor] = self._native(x, state, have, final)
        y, self._state = made
        self._have = have + x.shape[2]
        return y


def _kept(pads: Sequence[tuple[int, int]], depth: int, farthest: int) -> int:
    """Steps that a block keeps: of the input of every convolution, and of the residual of every layer."""
    right = [after for _, after in pads]
    ahead = [sum(right[i + 1 :]) for i in range(len(pads))]
    inputs = sum(map(sum, pads)) + farthest - sum(right)
    starts = range(0, len(pads), depth)
    return inputs + sum((ahead[i - 1] if i else farthest) - ahead[i + depth - 1] for i in starts)


def _fake(p: MrfPacked, x: Tensor, state: Tensor, have: int, last: bool) -> tuple[Tensor, Tensor]:
    causal, convs = PAD_MODES[p.pad] == "causal", zip(p.kernels, p.dilations, strict=True)
    right = [0 if causal else (kernel - 1) * dilation // 2 for kernel, dilation in convs]
    ends = [*accumulate(count * p.depth for count in p.layers)]
    ahead = max(sum(right[end - count * p.depth : end]) for count, end in zip(p.layers, ends, strict=True))
    end = have + x.shape[2]
    steps = (end if last else max(end - ahead, 0)) - max(have - ahead, 0)
    y = x.new_empty((x.shape[0], steps, x.shape[1]), dtype=result_type(p.weight)).transpose(1, 2)
    return y, torch.empty_like(state)


NATIVE = Native("mrf_stream", MrfPacked, _fake)
