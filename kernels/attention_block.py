"""attention_block in seven launches: norm, queries with keys and values, their turn into the rings, attention, the way
out with the residual, norm, and the two layers with the residual; what is added is scaled by its weights.

The blocks of keys begin at multiples of their size from the signal's own beginning, and one that a step does not see
changes nothing: which steps are computed together never changes a sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels import conv1d, packing
from fastvoc.kernels.activation import GELU, sin_cos_cycles
from fastvoc.kernels.launch import cdiv, kernel, launch
from fastvoc.kernels.layer_norm import normalize, pack_rows
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.products import multiply, precision
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native, like_rows

_RING = 16  # places of a ring are a multiple of it


@kernel
def turn_kernel(
    mixed,
    frequencies,
    lengths,
    ragged,
    place,
    query,
    keys,
    values,
    steps,
    ring,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
):
    """Turns one head of a step's queries, or of its keys, which go into the ring with the values."""
    t = tl.program_id(0)
    head = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    length = valid_steps(lengths, item, steps, ragged)
    i = tl.arange(0, WIDTH)
    live = (i < HALF) & (t + i * 0 < length)
    at = (tl.load(place + item) if place is not None else length * 0) + t
    cycles = at.to(tl.float64) * (tl.load(frequencies + i, mask=i < HALF, other=0.0).to(tl.float64) / 6.283185307179586)
    sin, cos = sin_cos_cycles((cycles - tl.floor(cycles + 0.5)).to(tl.float32))
    row = mixed + (item * steps + t) * ((HEADS + 2 * KV_HEADS) * 2 * HALF) + head * (2 * HALF)
    first = tl.load(row + i, mask=live, other=0.0).to(tl.float32)
    second = tl.load(row + HALF + i, mask=live, other=0.0).to(tl.float32)
    x = first * cos - second * sin
    y = second * cos + first * sin
    if head < HEADS:
        to = query + (item * steps + t) * (HEADS * 2 * HALF) + head * (2 * HALF)
        tl.store(to + i, (x * SCALE).to(query.dtype.element_ty), mask=live)
        tl.store(to + HALF + i, (y * SCALE).to(query.dtype.element_ty), mask=live)
    else:
        entry = at % ring
        of = head - HEADS
        key = keys + (item * KV_HEADS + of) * (2 * HALF) * ring + entry
        tl.store(key + i.to(tl.int64) * ring, x.to(keys.dtype.element_ty), mask=live)
        tl.store(key + (HALF + i).to(tl.int64) * ring, y.to(keys.dtype.element_ty), mask=live)
        value = values + (item * ring + entry) * (KV_HEADS * 2 * HALF) + of * (2 * HALF)
        given = row + KV_HEADS * 2 * HALF
        tl.store(value + i, tl.load(given + i, mask=live, other=0.0), mask=live)
        tl.store(value + HALF + i, tl.load(given + HALF + i, mask=live, other=0.0), mask=live)


@kernel
def attend_kernel(
    query,
    keys,
    values,
    lengths,
    ragged,
    place,
    out,
    steps,
    ring,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    """One head of BT steps: a running softmax over blocks of BN keys."""
    head = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    length = valid_steps(lengths, item, steps, ragged)
    begin = tl.load(place + item) if place is not None else length * 0
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    d = tl.arange(0, WIDTH)
    inside = (t < length)[:, None] & (d < SIZE)[None, :]
    rows = (item * steps + t.to(tl.int64))[:, None] * (HEADS * SIZE) + head * SIZE + d[None, :]
    q = tl.load(query + rows, mask=inside, other=0.0)
    own = begin + t
    last = tl.minimum(begin + length - 1, begin + tl.program_id(0) * BT + BT - 1)
    first = tl.maximum(begin + tl.program_id(0) * BT - (WINDOW - 1), 0)
    of = item * KV_HEADS + head // (HEADS // KV_HEADS)
    most = tl.full([BT], float("-inf"), tl.float32)
    total = tl.zeros([BT], tl.float32)
    acc = tl.zeros([BT, WIDTH], tl.float32)
    for block in range(first // BN, last // BN + 1):
        at = block * BN + tl.arange(0, BN)
        there = (at >= first) & (at <= last)
        entry = at % ring
        k = tl.load(
            keys + (of * SIZE + d[:, None]) * ring + entry[None, :],
            mask=there[None, :] & (d < SIZE)[:, None],
            other=0.0,
        )
        scores = multiply(q, k, tl.zeros([BT, BN], tl.float32), PRECISION)
        back = own[:, None] - at[None, :]
        seen = (back >= 0) & (back < WINDOW) & there[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        # Of nothing seen so far there is nothing to scale; NaN stays.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp(scores - base[:, None])
        kept = tl.exp(most - base)
        v = tl.load(
            values
            + (item * ring + entry)[:, None] * (KV_HEADS * SIZE)
            + (head // (HEADS // KV_HEADS)) * SIZE
            + d[None, :],
            mask=there[:, None] & (d < SIZE)[None, :],
            other=0.0,
        )
        v = tl.where(v == v, v, 0.0)  # a NaN that is not seen has the weight 0; one that is has NaN scores
        total = total * kept + tl.sum(weight, 1)
        acc = multiply(weight.to(v.dtype), v, acc * kept[:, None], PRECISION)
        most = higher
    y = acc / tl.where(total == 0.0, 1.0, total)[:, None]  # 0 beyond the item's length
    y = tl.where((t < length)[:, None], y, 0.0)
    tl.store(out + rows, y.to(out.dtype.element_ty), mask=(t < steps)[:, None] & (d < SIZE)[None, :])


class Packed(NamedTuple):
    """A layer as `run` takes it."""

    norms: Tensor
    mixed: Tensor
    out: Tensor
    expand: Tensor
    project: Tensor
    zeros: Tensor
    table: Tensor
    frequencies: Tensor
    channels: int
    heads: int
    kv_heads: int
    size: int  # of a head
    hidden: int
    window: int
    eps1: float
    eps2: float


def pack(params: Any) -> Packed:
    """Weights of an AttentionBlockParams."""
    p = params
    out, project = (
        w.detach() if s is None else (w.detach().double() * s.detach().double()[:, None]).to(w.dtype)
        for w, s in ((p.out, p.scale1), (p.project, p.scale2))
    )
    mixed = torch.cat([p.query, p.key, p.value]).detach()
    hidden = p.expand.shape[0]
    return Packed(
        torch.cat([pack_rows(t) for norm in (p.norm1, p.norm2) for t in norm.tensors()]),
        *(packing.pack_taps(w[:, :, None]) for w in (mixed, out, p.expand, project)),
        packing.pack_row(None, max(len(mixed), hidden, p.channels), mixed),
        packing.table_row(mixed, 1, 1, 0, [0, 0]),
        p.frequencies(),
        *(p.channels, p.heads, p.kv_heads, p.head_dim, hidden, p.window),
        *(p.norm1.eps, p.norm2.eps),
    )


def run(
    x: Tensor,
    p: Packed,
    lengths: Tensor | None = None,
    keys: Tensor | None = None,
    values: Tensor | None = None,
    place: Tensor | None = None,
) -> Tensor:
    """attention_block of `fastvoc.ops.attention_block`; lengths on the device of x."""
    # Of a ring only so many places are free: a longer chunk goes in parts.
    most = x.shape[2] if values is None else values.shape[1] - (p.window - 1)
    if x.shape[2] <= most:
        return NATIVE.run(x, p, lengths, keys, values, place)
    assert place is not None
    parts = []
    for begin in range(0, x.shape[2], most):
        part = x[:, :, begin : begin + most]
        left = None if lengths is None else (lengths - begin).clamp(0, part.shape[2])
        parts.append(NATIVE.run(part, p, left, keys, values, place + begin))
    return torch.cat([part.transpose(1, 2) for part in parts], 1).transpose(1, 2)


def _attention_block(
    p: Packed,
    x: Tensor,
    lengths: Tensor | None = None,
    keys: Tensor | None = None,
    values: Tensor | None = None,
    place: Tensor | None = None,
) -> Tensor:
    channels, heads, kv_heads, size, hidden = p.channels, p.heads, p.kv_heads, p.size, p.hidden
    batch, _, steps = x.shape
    if keys is None or values is None:
        ring = cdiv(steps, _RING) * _RING
        keys = x.new_empty((batch, kv_heads * size, ring))
        values = x.new_empty((batch, ring, kv_heads * size))
    else:
        ring = values.shape[1]

    def product(rows: Tensor, weight: Tensor, cin: int, cout: int, **more: Any) -> Tensor:
        made = x.new_empty((batch, steps, cout))
        shared = {"cin": cin, "cout": cout, "made": steps, "offset": -1}
        conv1d.convolve(rows.transpose(1, 2), weight, p.zeros, p.zeros, p.table, lengths, made, **shared, **more)
        return made

    normal = normalize(x, None, p.norms[0:1], p.norms[1:2], None, lengths, p.eps1)
    rows = product(normal, p.mixed, channels, (heads + 2 * kv_heads) * size)
    query, seen = x.new_empty((batch, steps, heads * size)), x.new_empty((batch, steps, heads * size))
    launch(
        turn_kernel,
        (steps, heads + kv_heads, batch),
        {"num_warps": 1, "num_stages": 1},
        x.device,
        mixed=rows,
        frequencies=p.frequencies,
        lengths=lengths,
        place=place,
        query=query,
        keys=keys,
        values=values,
        steps=steps,
        ring=ring,
        HEADS=heads,
        KV_HEADS=kv_heads,
        HALF=size // 2,
        WIDTH=triton.next_power_of_2(size // 2),
        SCALE=size**-0.5,
    )
    config = tuned("attention_block", x.device, x.dtype, size=size)
    launch(
        attend_kernel,
        (cdiv(steps, config["BT"]), heads, batch),
        config,
        x.device,
        query=query,
        keys=keys,
        values=values,
        lengths=lengths,
        place=place,
        out=seen,
        steps=steps,
        ring=ring,
        HEADS=heads,
        KV_HEADS=kv_heads,
        SIZE=size,
        WIDTH=max(16, triton.next_power_of_2(size)),
        WINDOW=p.window,
        PRECISION=precision(x.dtype),
    )
    rows = product(seen, p.out, heads * size, channels, residual=x)
    normal = normalize(rows.transpose(1, 2), None, p.norms[2:3], p.norms[3:4], None, lengths, p.eps2)
    inner = product(normal, p.expand, channels, hidden, post=(GELU, 0.0))
    return product(inner, p.project, hidden, channels, residual=rows.transpose(1, 2)).transpose(1, 2)


NATIVE = Native("triton_attention_block", Packed, like_rows, mutates=("keys", "values"), body=_attention_block)
