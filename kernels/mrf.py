"""mrf: the residual blocks of a stage side by side, one launch for each of their convolutions, or for a layer of two.

Between launches the blocks' signals lie in `h` (float32, the residual stream) and two buffers of activated values. The
last launch adds the blocks up in a fixed order and scales the sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.kernels import conv1d, packing
from fastvoc.kernels.mrf_pair import convolve_pair, fusible
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows


class Packed(NamedTuple):
    """A stage as `run` takes it. Blocks with equally many layers form a class; `classes` lists blocks and convolutions
    of each, `table` a row for every convolution of every block, in order of launch, `spans` the steps over which the
    convolutions of each launch reach at most."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    table: Tensor
    channels: int
    depth: int
    classes: list[int]
    spans: list[int]
    pad: int
    kind: int
    slope: float


def pack(params: Any) -> Packed:
    """Weights and table of an MrfParams."""
    convs = params.convs()
    like, channels = convs[0].weight, convs[0].weight.shape[0]
    curves, places = packing.pack_curves([params.act_before(c) for c in convs], like)
    curve_of = {id(c): place for c, place in zip(convs, places, strict=True)}
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    table: list[list[int]] = []
    classes: list[int] = []
    spans: list[int] = []
    at = 0
    for count in sorted({len(block) for block in params.blocks}):
        # The heaviest block comes first, so that the light ones fill the gaps that it leaves.
        blocks = [[c for layer in block for c in layer] for block in params.blocks if len(block) == count]
        blocks.sort(key=lambda block: -sum(c.weight.shape[2] for c in block))
        classes += [len(blocks), len(blocks[0])]
        for launch in range(len(blocks[0])):
            spans.append(max(block[launch].padding for block in blocks))
            for block in blocks:
                conv = block[launch]
                after = curve_of[id(block[launch + 1])] if launch + 1 < len(block) else 0
                row = [at, len(biases) * packing.pad_channels(channels), conv.weight.shape[2], conv.dilation]
                table.append([*row, params.padding(conv)[0], curve_of[id(conv)], after, 0])
                weights.append(packing.pack_taps(conv.weight))
                biases.append(packing.pack_row(conv.bias, channels, like))
                at += len(weights[-1])
    kind, slope = packing.kind_and_slope(params.act_before(convs[0]))
    return Packed(
        torch.cat(weights),
        torch.cat(biases),
        curves,
        torch.tensor(table, dtype=torch.int32, device=like.device),
        channels,
        len(params.blocks[0][0]),
        classes,
        spans,
        1 if params.pad_mode == "reflect" else 0,
        kind,
        slope,
    )


def _mrf(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """mrf of `fastvoc.ops.mrf`; lengths on the device of x."""
    batch, channels, steps = x.shape
    depth, act = p.depth, (p.kind, p.slope)
    blocks = sum(p.classes[0::2])
    out = x.new_empty((batch, steps, channels))
    total: Tensor | None = None
    row = done = 0
    for place in range(0, len(p.classes), 2):
        groups, count = p.classes[place : place + 2]
        reach = p.spans[done : done + count]
        done += count
        config = tuned("mrf", x.device, x.dtype, channels=channels, groups=groups)
        fused = fusible(channels, depth, p.pad, max(reach[1::2], default=0), config)
        shape = (groups * batch, steps, channels)
        h = x.new_empty(shape, dtype=torch.float32) if count > depth else None
        buffers = [x.new_empty(shape), x.new_empty(shape)] if count > 1 else []
        closing = place + 2 == len(p.classes)
        source = x
        i, turn = 0, 0
        while i < count:
            # Several blocks are added up by a launch of one convolution: its sum leaves no room for a hidden tile.
            step = 2 if fused and (groups == 1 or i + 2 < count) else 1
            first, last, residual = i == 0, i + step == count, (i + step) % depth == 0
            stream = None
            if residual:
                stream = x if i < depth else h.transpose(1, 2) if h is not None else None
            if last:
                target = out if closing else x.new_empty((batch, steps, channels), dtype=torch.float32)
            else:
                target = buffers[turn % 2]
            rows = p.table[row : row + groups * step]
            scale = 1.0 / blocks if last and closing else 1.0
            prior, carry = total if last else None, h if residual and not last else None
            if step == 2:
                assert stream is not None
                convolve_pair(
                    source,
                    p.weight,
                    p.bias,
                    p.curves,
                    rows,
                    lengths,
                    target,
                    config,
                    channels=channels,
                    groups=groups,
                    span=reach[i + 1],
                    act=act,
                    first=first,
                    last=last,
                    scale=scale,
                    residual=stream,
                    prior=prior,
                    carry=carry,
                )
            else:
                conv1d.convolve(
                    source,
                    p.weight,
                    p.bias,
                    p.curves,
                    rows,
                    lengths,
                    target,
                    cin=channels,
                    cout=channels,
                    made=steps,
                    offset=-1,
                    groups=groups,
                    total=last,
                    shared=first,
                    pad_mode=p.pad,
                    pre=act if first else (0, 0.0),
                    post=(0, 0.0) if last else act,
                    scale=scale,
                    residual=stream,
                    prior=prior,
                    carry=carry,
                )
            row += groups * step
            i, turn = i + step, turn + 1
            source = target.transpose(1, 2)
        total = target
    return out.transpose(1, 2)


NATIVE = Native("triton_mrf", Packed, like_rows, body=_mrf)
run = NATIVE.run
