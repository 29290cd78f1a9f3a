"""rvq_encode: residual vector quantisation, the nearest entry of each codebook in turn (arXiv 2210.13438, 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import float32, register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import float32_only, register_triton
from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import define


def _check(x: Tensor, params: RvqParams, n_q: int, lengths: Tensor | None = None) -> None:
    check_activations("rvq_encode", x, params.codebooks.shape[2], params.codebooks, lengths)
    count = params.codebooks.shape[0]
    if isinstance(n_q, bool) or not isinstance(n_q, int) or not 1 <= n_q <= count:
        raise ArgumentError(f"rvq_encode: n_q: expected an integer in 1..{count}, got {n_q!r}")


def rvq_encode_ref(x: Tensor, params: RvqParams, n_q: int, lengths: Tensor | None = None) -> Tensor:
    """Codes of x: from one codebook to the next, the nearest entry is taken and subtracted.

    Nearest is the largest -(|x|^2 - 2 x.e + |e|^2), computed in that order in the dtype of x; the first index wins a
    tie. Two entries whose distances differ by less than the rounding of that sum (about 1e-7 |x|^2 in float32) may
    change places between implementations.

    Args:
        x: [B, D, T], dtype and device of the codebooks.
        params: codebooks.
        n_q: codebooks to use, 1 to K.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the codes there are 0.

    Returns:
        [B, n_q, T] int64.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: rvq_encode_ref(item, params, n_q))
    residual = x.detach().transpose(1, 2).reshape(-1, x.shape[1])
    codes = []
    for codebook in params.codebooks[:n_q].detach():
        entries = codebook.t()
        square = residual.pow(2).sum(1, keepdim=True)
        distance = -(square - 2 * residual @ entries + entries.pow(2).sum(0, keepdim=True))
        index = distance.argmax(1)
        residual = residual - codebook[index]
        codes.append(index.reshape(x.shape[0], x.shape[2]))
    return torch.stack(codes, 1)


class _Packed(NamedTuple):
    books: Tensor
    panels: Tensor
    squares: Tensor


def _pack(params: RvqParams) -> _Packed:
    books = params.codebooks.detach().contiguous()
    entries = books.shape[1]
    squares = torch.stack([book.t().pow(2).sum(0) for book in books])
    beyond = -entries % packing.PANEL
    return _Packed(
        books,
        torch.stack([packing.pack_conv(book[:, :, None]) for book in books]),
        torch.nn.functional.pad(squares, (0, beyond), value=torch.inf),
    )


def _fake(_: _Packed, x: Tensor, n_q: int, *__: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], n_q, x.shape[2]), dtype=torch.int64)


def _work(x: Tensor, params: RvqParams, n_q: int, *_: Tensor | None) -> tuple[int, Tensor]:
    codes = output(x, x.shape[0], n_q, x.shape[2], dtype=torch.int64)
    return codes.numel() * params.codebooks[0].numel(), codes


NATIVE = Native("rvq_encode", _Packed, _fake, rvq_encode_ref)
OP = rvq_encode = define("rvq_encode", _check, rvq_encode_ref, _work)
register_cpp(OP, NATIVE, _pack, float32)
register_cuda(OP, NATIVE.run, _pack, float32_only)
register_triton(OP, float32_only)
