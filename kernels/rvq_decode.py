"""rvq_decode: the entries that a frame's codes name, added in the codebooks' order; a wrong code sets a flag."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, kernel, launch
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime import flags
from fastvoc.runtime.native import Native


@kernel
def rvq_decode_kernel(
    codes,
    books,
    lengths,
    ragged,
    flag,
    out,
    count,
    steps,
    codes_batch,
    codes_book,
    codes_step,
    ENTRIES: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BT: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    d = tl.arange(0, WIDTH)
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    inside = t < length
    live = inside[:, None] & (d < DIM)[None, :]
    total = tl.zeros([BT, WIDTH], tl.float32)
    mine = codes + item * codes_batch + t.to(tl.int64) * codes_step
    for k in range(count):
        code = tl.load(mine + k * codes_book, mask=inside, other=0)
        wrong = inside & ((code < 0) | (code >= ENTRIES))
        tl.store(flag + t * 0, 1, mask=wrong)
        code = tl.minimum(tl.maximum(code, 0), ENTRIES - 1)
        rows = books + (k * ENTRIES + code)[:, None] * DIM + d[None, :]
        total += tl.load(rows, mask=live, other=0.0).to(tl.float32)
    place = out + (item * steps + t)[:, None] * DIM + d[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(t < steps)[:, None] & (d < DIM)[None, :])


class Packed(NamedTuple):
    """Codebooks as `run` takes them, and the flag of their device."""

    books: Tensor
    flag: Tensor


def pack(params: Any) -> Packed:
    """Codebooks of an RvqParams."""
    books = params.codebooks.detach().contiguous()
    return Packed(books, flags.flag(books.device, flags.CODES))


def _rvq_decode(p: Packed, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
    """rvq_decode of `fastvoc.ops.rvq_decode`; lengths on the device of the codes."""
    batch, count, steps = codes.shape
    books = p.books
    _, entries, dim = books.shape
    out = books.new_empty((batch, steps, dim))
    config = tuned("rvq_decode", codes.device, books.dtype, dim=dim)
    launch(
        rvq_decode_kernel,
        (cdiv(steps, config["BT"]), batch),
        config,
        codes.device,
        codes=codes,
        books=books,
        lengths=lengths,
        flag=p.flag,
        out=out,
        count=count,
        steps=steps,
        codes_batch=codes.stride(0),
        codes_book=codes.stride(1),
        codes_step=codes.stride(2),
        ENTRIES=entries,
        DIM=dim,
        WIDTH=triton.next_power_of_2(dim),
    )
    return out.transpose(1, 2)


def _fake(p: Packed, codes: Tensor, *_: Tensor | None) -> Tensor:
    return p.books.new_empty((codes.shape[0], codes.shape[2], p.books.shape[2])).transpose(1, 2)


NATIVE = Native("triton_rvq_decode", Packed, _fake, mutates=("flag",), body=_rvq_decode)
run = NATIVE.run
