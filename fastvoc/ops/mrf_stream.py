"""mrf on a signal in chunks: every convolution keeps its own tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops.join import Join
from fastvoc.ops.stream import TailStream
from fastvoc.runtime import library as _library
from fastvoc.runtime.packing import result_type, row_width

PAD_MODES = ("zeros", "reflect", "causal")  # in the order of their numbers in csrc/cpu/mrf_args.h


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


class NativeMrfStream:
    """The state of a stage as the C++ kernels keep it: one tensor for all convolutions (csrc/cpu/mrf_stream_args.h).

    `pads[b]` are the paddings (left, right) of block b's convolutions, `depth` of them a layer; `native(x, state, have,
    final, *packed)` gives the output and the new state.
    """

    def __init__(
        self,
        pads: Sequence[Sequence[tuple[int, int]]],
        depth: int,
        channels: int,
        native: Callable[..., tuple[Tensor, Tensor]],
        packed: tuple[Any, ...],
    ) -> None:
        self._left = max(sum(left for left, _ in row) for row in pads)
        self._right = max(sum(right for _, right in row) for row in pads)
        self._floats = sum(_kept(row, depth, self._right) for row in pads) * row_width(channels)
        self._native, self._packed, self._have = native, packed, 0
        self._most = self._left + self._right + 1
        self._state: Tensor | None = None

    @property
    def counters(self) -> tuple[int, ...]:
        # Once every convolution is past its left padding only what is kept counts.
        return (min(self._have, self._most),)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._state is None else {"state": self._state}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        (self._have,) = counters
        self._state = tensors.get("state")

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._left, last + self._right

    def step(self, x: Tensor, final: bool) -> Tensor:
        state = self._state
        if state is None or not state.numel():  # float32 whatever the stream computes in
            state = x.new_empty((x.shape[0], self._floats), dtype=torch.float32)
        have = self._have if self._have < self._most else self._most
        y, self._state = self._native(x, state, have, final, *self._packed)
        self._have = have + x.shape[2]
        return y


def _kept(pads: Sequence[tuple[int, int]], depth: int, farthest: int) -> int:
    """Steps that a block keeps: of the input of every convolution, and of the residual of every layer."""
    right = [after for _, after in pads]
    ahead = [sum(right[i + 1 :]) for i in range(len(pads))]
    inputs = sum(map(sum, pads)) + farthest - sum(right)
    starts = range(0, len(pads), depth)
    return inputs + sum((ahead[i - 1] if i else farthest) - ahead[i + depth - 1] for i in starts)


_library.define(
    "mrf_stream(Tensor x, Tensor state, int have, bool last, Tensor weight, Tensor bias, int[] kernels,"
    " int[] dilations, int[] schemes, int[] layers, int depth, int pad_mode, int[] acts, float[] slopes,"
    " Tensor? curves) -> (Tensor, Tensor)"
)


@torch.library.register_fake("_fastvoc::mrf_stream")
def _fake(
    x: Tensor,
    state: Tensor,
    have: int,
    last: bool,
    weight: Tensor,
    bias: Tensor,
    kernels: list[int],
    dilations: list[int],
    schemes: list[int],
    layers: list[int],
    depth: int,
    pad_mode: int,
    acts: list[int],
    slopes: list[float],
    curves: Tensor | None,
) -> tuple[Tensor, Tensor]:
    causal = PAD_MODES[pad_mode] == "causal"
    right = [0 if causal else (kernel - 1) * dilation // 2 for kernel, dilation in zip(kernels, dilations, strict=True)]
    ends = [*accumulate(count * depth for count in layers)]
    ahead = max(sum(right[end - count * depth : end]) for count, end in zip(layers, ends, strict=True))
    end = have + x.shape[2]
    steps = (end if last else max(end - ahead, 0)) - max(have - ahead, 0)
    y = x.new_empty((x.shape[0], steps, x.shape[1]), dtype=result_type(weight)).transpose(1, 2)
    return y, torch.empty_like(state)
