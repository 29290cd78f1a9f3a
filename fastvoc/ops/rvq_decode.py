"""rvq_decode: the sum of the codebook entries that a frame's codes name (EnCodec, arXiv 2210.13438, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import by_item, check_lengths
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.runtime import flags
from fastvoc.runtime import library as _library
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define


@dataclass(frozen=True)
class RvqParams:
    """Codebooks [K, N, D] of a residual vector quantiser: K books of N entries of D channels."""

    codebooks: Tensor

    def __post_init__(self) -> None:
        if self.codebooks.dim() != 3 or 0 in self.codebooks.shape:
            raise ShapeError(f"rvq: codebooks: expected [K > 0, N > 0, D > 0], got {list(self.codebooks.shape)}")

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [self.codebooks]


def _check(codes: Tensor, params: RvqParams, lengths: Tensor | None = None) -> None:
    books, entries, _ = params.codebooks.shape
    if not isinstance(codes, Tensor):
        raise DtypeError(f"rvq_decode: codes: expected a torch.Tensor, got {type(codes).__name__}")
    if codes.dim() != 3 or not 1 <= codes.shape[1] <= books or codes.shape[0] == 0 or codes.shape[2] == 0:
        raise ShapeError(f"rvq_decode: codes: expected [B > 0, 1..{books}, T > 0], got {list(codes.shape)}")
    if codes.dtype != torch.int64:
        raise DtypeError(f"rvq_decode: codes: expected torch.int64, got {codes.dtype}")
    if codes.device != params.codebooks.device:
        raise DeviceError(
            f"rvq_decode: codes: expected a tensor on {params.codebooks.device} like the codebooks, got {codes.device}"
        )
    check_lengths("rvq_decode", lengths, codes.shape[0], codes.shape[2])
    if codes.device.type != "cpu" or torch.compiler.is_compiling():  # the host would have to wait: kernels clamp, or
        return  # the CPU's raise
    if lengths is not None:
        beyond = torch.arange(codes.shape[2], device=codes.device) >= on_device(lengths, codes)[:, None]
        codes = codes.masked_fill(beyond[:, None], 0)
    low, high = (int(v) for v in codes.aminmax())
    if low < 0 or high >= entries:
        raise ArgumentError(f"rvq_decode: codes: expected values in 0..{entries - 1}, got {low}..{high}")


def rvq_decode_ref(codes: Tensor, params: RvqParams, lengths: Tensor | None = None) -> Tensor:
    """y[b, :, t] = sum over k of codebooks[k, codes[b, k, t]], added in the order of k.

    Args:
        codes: [B, K, T] int64, values in 0..N-1, on the device of the codebooks; K may be less than the codebooks'.
        params: codebooks.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, D, T] in the dtype of the codebooks.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument; on the CPU, a code out of range is an
            ArgumentError (elsewhere it is clamped, since the host would have to wait for it).
    """
    if lengths is not None:
        return by_item(codes, lengths, codes.shape[2], lambda item, _: rvq_decode_ref(item, params))
    if codes.device.type != "cpu":
        _note(codes, params.codebooks.shape[1])
    codes = codes.clamp(0, params.codebooks.shape[1] - 1)
    total = F.embedding(codes[:, 0], params.codebooks[0])
    for k in range(1, codes.shape[1]):
        total = total + F.embedding(codes[:, k], params.codebooks[k])
    return total.transpose(1, 2)


def _note(codes: Tensor, entries: int, lengths: Tensor | None = None) -> None:
    """Sets the device's flag where a code inside the lengths names no entry; on the CPU the check has raised."""
    wrong = (codes < 0) | (codes >= entries)
    if lengths is not None:
        inside = torch.arange(codes.shape[2], device=codes.device) < on_device(lengths, codes)[:, None]
        wrong = wrong & inside[:, None]
    flags.note(flags.CODES, wrong)


class _Packed(NamedTuple):
    books: Tensor


def _pack(params: RvqParams) -> _Packed:
    return _Packed(params.codebooks.detach().contiguous())


def _run_cuda(codes: Tensor, packed: _Packed, lengths: Tensor | None = None) -> Tensor:
    _note(codes, packed.books.shape[1], lengths)
    return NATIVE.run(codes, packed, lengths)


def _supports_cpp(spec: Spec) -> str | None:
    return _library.cpu_refusal(spec.params.codebooks.dtype)


def _supports_triton(spec: Spec) -> str | None:
    dtype = spec.params.codebooks.dtype
    return "sums up in torch.float32, not in torch.float64" if dtype is torch.float64 else None


def _fake(p: _Packed, codes: Tensor, *_: Tensor | None) -> Tensor:
    return p.books.new_empty((codes.shape[0], codes.shape[2], p.books.shape[2])).transpose(1, 2)


def _work(codes: Tensor, params: RvqParams, *_: Tensor | None) -> tuple[int, Tensor]:
    books = params.codebooks
    return 0, output(books, codes.shape[0], books.shape[2], codes.shape[2])


NATIVE = Native("rvq_decode", _Packed, _fake, rvq_decode_ref)
OP = rvq_decode = define("rvq_decode", _check, rvq_decode_ref, _work)
register_cpp(OP, NATIVE, _pack, _supports_cpp)
register_cuda(OP, _run_cuda, _pack, dtype=lambda spec: spec.params.codebooks.dtype)
register_triton(OP, _supports_triton)
