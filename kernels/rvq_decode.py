"""rvq_decode: the entries that a frame's codes name, added in the codebooks' order; a wrong code sets a flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.launch import cdiv, launch
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime import flags
from fastvoc.runtime import library as _library


@triton.jit(do_not_specialize=["steps"])
def rvq_decode_kernel(
    codes,
    books,
    lengths,
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
    length = (tl.load(lengths + item) if lengths is not None else steps.to(tl.int64)).to(tl.int32)
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


@dataclass(frozen=True)
class Packed:
    """Codebooks as `run` takes them, and the flag of their device."""

    books: Tensor
    flag: Tensor


def pack(params: Any) -> Packed:
    """Codebooks of an RvqParams."""
    books = params.codebooks.detach().contiguous()
    return Packed(books, flags.flag(books.device, flags.CODES))


def run(codes: Tensor, p: Packed, lengths: Tensor | None = None) -> Tensor:
    """rvq_decode of `fastvoc.ops.rvq_decode`; lengths on the device of the codes."""
    y: Tensor = torch.ops._fastvoc.triton_rvq_decode(codes, p.books, lengths, p.flag)
    return y


_library.define("triton_rvq_decode(Tensor codes, Tensor books, Tensor? lengths, Tensor(a!) flag) -> Tensor")


@torch.library.register_fake("_fastvoc::triton_rvq_decode")
def _fake(codes: Tensor, books: Tensor, lengths: Tensor | None, flag: Tensor) -> Tensor:
    return books.new_empty((codes.shape[0], codes.shape[2], books.shape[2])).transpose(1, 2)


@torch.library.impl("_fastvoc::triton_rvq_decode", ("CPU", "CUDA"))
def _rvq_decode(codes: Tensor, books: Tensor, lengths: Tensor | None, flag: Tensor) -> Tensor:
    batch, count, steps = codes.shape
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
        flag=flag,
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
