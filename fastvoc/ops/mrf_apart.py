"""mrf where an implementation has no kernel for a stage's blocks: its depthwise and dense convolutions one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.ops import conv1d, depthwise
from fastvoc.ops.mrf_params import MrfConv, MrfParams
from fastvoc.ops.mrf_stream import MrfStream
from fastvoc.ops.stream import TailStream
from fastvoc.runtime.registry import Impl, Op, Spec


class Apart(NamedTuple):
    """A stage as `run` takes it: of every convolution of every layer of every block what it packed, and its `run`."""

    blocks: list[list[list[_Step]]]
    dtype: torch.dtype


class _Step(NamedTuple):
    run: Callable[..., Tensor]
    packed: Any
    dense: bool
    adds: bool  # the residual, too


def dense(conv: MrfConv, params: MrfParams, pads: tuple[int, int]) -> conv1d.Conv1dParams:
    """A convolution that is not depthwise, with its activation, between `pads` steps."""
    mode, act = "reflect" if params.pad_mode == "reflect" else "zeros", params.act_before(conv)
    return conv1d.Conv1dParams(conv.weight, conv.bias, 1, conv.dilation, pads, mode, act, input_range=conv.input_range)


def _op(conv: MrfConv, params: MrfParams) -> tuple[Op, Any]:
    if conv.depthwise:
        act = params.act_before(conv)
        return depthwise.OP, depthwise.DepthwiseParams(conv.weight, conv.bias, conv.dilation, act)
    return conv1d.OP, dense(conv, params, params.padding(conv))


def _each(params: MrfParams, make: Callable[[Op, Any], Any]) -> list[list[list[Any]]]:
    return [[[make(*_op(conv, params)) for conv in layer] for layer in block] for block in params.blocks]


def supports(spec: Spec, name: str) -> str | None:
    """None where implementation `name` has every convolution, otherwise why not."""
    if spec.params.pad_mode != "zeros":
        return "wants zeros on either side of a depthwise convolution"
    if any(conv.depthwise and conv.weight.shape[2] % 2 == 0 for conv in spec.params.convs()):
        return "wants depthwise kernels of odd length"
    verdicts = _each(spec.params, lambda op, own: op.impls[name].supports(replace(spec, params=own)))
    return next((refusal for block in verdicts for layer in block for refusal in layer if refusal), None)


def pack(params: MrfParams, name: str, *, exact: bool = False) -> Apart:
    """The convolutions as implementation `name` takes them."""

    def step(op: Op, own: Any) -> _Step:
        impl: Impl = op.impls[name]
        dense = op is conv1d.OP
        # Streams in C++ add it apart, which in bfloat16 rounds once more.
        return _Step(impl.run, impl.packed(own, exact), dense, dense and name != "cpp")

    return Apart(_each(params, step), params.convs()[0].weight.dtype)


def run(x: Tensor, packed: Apart, lengths: Tensor | None = None) -> Tensor:
    """mrf of `fastvoc.ops.mrf`."""
    x = x.to(packed.dtype)
    results = [_block(x, layers, lengths) for layers in packed.blocks]
    total = results[0]
    for y in results[1:]:
        total = total + y
    return total * (1 / len(results)) if len(results) > 1 else total  # as streams do, to the bit


def _block(x: Tensor, layers: Sequence[Sequence[_Step]], lengths: Tensor | None) -> Tensor:
    for layer in layers:
        y = x
        for step in layer:
            residual = x if step.adds and step is layer[-1] else None
            y = step.run(y, step.packed, *(residual,) * step.dense, lengths)
        x = y if layer[-1].adds else _cleared(y + x, lengths)
    return x


def _cleared(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x with zeros beyond the valid steps."""
    for row, valid in zip(x, () if lengths is None else lengths.tolist(), strict=lengths is not None):
        row[:, valid:] = 0
    return x


def either(native: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`native`, or `run` of what was packed for it."""

    def runs(x: Tensor, packed: Any, lengths: Tensor | None = None) -> Tensor:
        return run(x, packed, lengths) if isinstance(packed, Apart) else native(x, packed, lengths)

    return runs


def either_bound(native: Callable[[Any], Callable[..., Tensor]]) -> Callable[[Any], Callable[..., Tensor]]:
    """The same for what binds an implementation to what is packed."""

    def binds(packed: Any) -> Callable[..., Tensor]:
        return (lambda x, *lengths: run(x, packed, *lengths)) if isinstance(packed, Apart) else native(packed)

    return binds


def first(native: Callable[[MrfParams], Any], name: str) -> Callable[[MrfParams], Any]:
    """What packs a stage for implementation `name`: apart where it has depthwise convolutions, else `native`."""
    return lambda params: pack(params, name) if params.depthwise else native(params)


def stream(params: MrfParams, packed: Apart, name: str) -> MrfStream:
    """A signal in chunks: every convolution keeps its own tail."""
    tails: list[list[list[TailStream]]] = []
    for block, made in zip(params.blocks, packed.blocks, strict=True):
        tails.append([])
        for layer, steps in zip(block, made, strict=True):
            row = []
            for conv, step in zip(layer, steps, strict=True):
                op, own = _op(conv, params)
                open_stream = op.impls[name].stream
                assert open_stream is not None
                row.append(open_stream(own, step.packed))
            tails[-1].append(row)
    return MrfStream(tails)
