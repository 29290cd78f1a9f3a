"""rvq_encode in one launch: distances, nearest entry and residual of every codebook in turn, in IEEE float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@kernel
def rvq_encode_kernel(
    x,
    books,
    squares,
    lengths,
    ragged,
    out,
    count,
    steps,
    x_batch,
    x_channel,
    x_step,
    ENTRIES: tl.constexpr,
    ENTRIES_PAD: tl.constexpr,
    DIM: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    d = tl.arange(0, DIM)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    inside = t < length
    at = x + item * x_batch + t.to(tl.int64)[:, None] * x_step + d.to(tl.int64)[None, :] * x_channel
    residual = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
    for k in range(count):
        square = tl.sum(residual * residual, 1)
        best = tl.full([BT], float("-inf"), tl.float32)
        index = tl.zeros([BT], tl.int32)
        book = books + k * ENTRIES_PAD * DIM
        for first in range(0, ENTRIES_PAD, BN):
            n = first + tl.arange(0, BN)
            entries = tl.load(book + n[None, :] * DIM + d[:, None])
            products = tl.dot(2.0 * residual, entries, input_precision="ieee")
            distance = -((square[:, None] - products) + tl.load(squares + k * ENTRIES_PAD + n)[None, :])
            most = tl.max(distance, 1)
            # The first of equal ones, as everywhere.
            place = tl.min(tl.where(distance == most[:, None], n[None, :], ENTRIES_PAD), 1)
            better = most > best
            index = tl.where(better, place, index)
            best = tl.where(better, most, best)
        index = tl.minimum(index, ENTRIES - 1)
        residual -= tl.load(book + index[:, None] * DIM + d[None, :])
        codes = tl.where(inside, index, 0).to(tl.int64)
        tl.store(out + (item * count + k) * steps + t, codes, mask=t < steps)


class Packed(NamedTuple):
    """Codebooks [K, N padded, D padded] in float32, |e|^2 [K, N padded] (infinite beyond N), and N."""

    books: Tensor
    squares: Tensor
    entries: int


def pack(params: Any) -> Packed:
    """Codebooks of an RvqParams."""
    books = params.codebooks.detach().float()
    entries, dim = books.shape[1:]
    squares = torch.stack([book.t().pow(2).sum(0) for book in books])
    wide, tall = max(16, triton.next_power_of_2(dim)), max(16, triton.next_power_of_2(entries))
    pad = torch.nn.functional.pad
    return Packed(
        pad(books, (0, wide - dim, 0, tall - entries)).contiguous(),
        pad(squares, (0, tall - entries), value=float("inf")),
        entries,
    )


def _rvq_encode(p: Packed, x: Tensor, n_q: int, lengths: Tensor | None = None) -> Tensor:
    """rvq_encode of `fastvoc.ops.rvq_encode`; lengths on the device of x."""
    batch, dim, steps = x.shape
    books = p.books
    wide = books.shape[2]
    x = torch.nn.functional.pad(x, (0, 0, 0, wide - dim)) if wide != dim else x
    # Loaded across channels the residual would lie in registers as no product can take it.
    x = x if x.stride(1) == 1 else x.transpose(1, 2).contiguous().transpose(1, 2)
    out = x.new_empty((batch, n_q, steps), dtype=torch.int64)
    config = tuned("rvq_encode", x.device, x.dtype, dim=dim)
    launch(
        rvq_encode_kernel,
        (cdiv(steps, config["BT"]), batch),
        {**config, "BN": min(config["BN"], books.shape[1])},
        x.device,
        x=x,
        books=books,
        squares=p.squares,
        lengths=lengths,
        out=out,
        count=n_q,
        steps=steps,
        **strides(x, "x"),
        ENTRIES=p.entries,
        ENTRIES_PAD=books.shape[1],
        DIM=wide,
    )
    return out


def _fake(_: Packed, x: Tensor, n_q: int, *__: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], n_q, x.shape[2]), dtype=torch.int64)


NATIVE = Native("triton_rvq_encode", Packed, _fake, body=_rvq_encode)
run = NATIVE.run
