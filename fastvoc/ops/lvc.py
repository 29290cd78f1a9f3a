"""lvc: location-variable convolution, one kernel per frame, with its gate (Zeng et al. 2021, arXiv 2102.10815)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import FLOATS, by_item, check_lengths
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.lvc_stream import LvcStream
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import define


@dataclass(frozen=True)
class LvcParams:
    """`hop`: steps that share a kernel; `taps`: of a kernel, odd; `gated`: what comes out is sigmoid(first half) *
    tanh(second half) of the channels.
    """

    hop: int
    taps: int = 3
    gated: bool = True

    def __post_init__(self) -> None:
        if self.hop < 1:
            raise ArgumentError(f"lvc: hop: expected 1 or more, got {self.hop}")
        if self.taps < 1 or self.taps % 2 == 0:
            raise ArgumentError(f"lvc: taps: expected an odd number, got {self.taps}")

    def tensors(self) -> list[Tensor]:
        """None: the kernels come with the call."""
        return []


def _check(
    x: Tensor,
    params: LvcParams,
    kernels: Tensor,
    biases: Tensor,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
) -> None:
    for name, t, rank in (("x", x, 3), ("kernels", kernels, 5), ("biases", biases, 3), ("residual", residual, 3)):
        if t is None:
            continue
        if not isinstance(t, Tensor):
            raise DtypeError(f"lvc: {name}: expected a torch.Tensor, got {type(t).__name__}")
        if t.dim() != rank or 0 in t.shape:
            raise ShapeError(f"lvc: {name}: expected {rank} axes that are not empty, got {list(t.shape)}")
        if t.dtype != x.dtype or t.dtype not in FLOATS:
            expected = "a floating-point type" if name == "x" else f"{x.dtype} like x"
            raise DtypeError(f"lvc: {name}: expected {expected}, got {t.dtype}")
        if t.device != x.device:
            raise DeviceError(f"lvc: {name}: expected a tensor on {x.device} like x, got {t.device}")
    batch, taps, cin, cout, frames = kernels.shape
    if x.shape != (batch, cin, frames * params.hop):
        raise ShapeError(f"lvc: x: expected {[batch, cin, frames * params.hop]} for the kernels, got {list(x.shape)}")
    if taps != params.taps or (params.gated and cout % 2):
        expected = f"{params.taps} taps and an even C_out" if params.gated else f"{params.taps} taps"
        raise ShapeError(f"lvc: kernels: expected {expected}, got {list(kernels.shape)}")
    if biases.shape != (batch, cout, frames):
        raise ShapeError(f"lvc: biases: expected {[batch, cout, frames]}, got {list(biases.shape)}")
    made = [batch, cout // 2 if params.gated else cout, x.shape[2]]
    if residual is not None and list(residual.shape) != made:
        raise ShapeError(f"lvc: residual: expected {made}, got {list(residual.shape)}")
    check_lengths("lvc", lengths, batch, x.shape[2])
    if lengths is not None and bool((lengths % params.hop).any()):
        raise ArgumentError(f"lvc: lengths: expected multiples of the hop {params.hop}, got {lengths.tolist()}")


def lvc_ref(
    x: Tensor,
    params: LvcParams,
    kernels: Tensor,
    biases: Tensor,
    residual: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """y = gate(conv(x with the kernel of its frame) + bias of its frame) + residual, zeros around the item.

    Args:
        x: [B, C_in, L * hop] floating point; time-major strides are the fast ones.
        params: steps per frame, and whether the output is gated.
        kernels: [B, K, C_in, C_out, L], K as `taps`, in the dtype and on the device of x, as are the next two; kernels
            whose C_out has stride 1 are the fast ones.
        biases: [B, C_out, L].
        residual: [B, C, L * hop], where C is C_out, or C_out / 2 when gated.
        lengths: [B] int64 on the CPU, valid steps of each item, whole frames; what lies beyond is never read, the
            output there is 0.

    Returns:
        [B, C, L * hop].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            frames = item.shape[2] // params.hop
            rest = None if residual is None else residual[i : i + 1, :, : item.shape[2]]
            return lvc_ref(item, params, kernels[i : i + 1, ..., :frames], biases[i : i + 1, :, :frames], rest)

        return by_item(x, lengths, x.shape[2], one)
    padded = F.pad(x, (params.taps // 2, params.taps // 2))
    windows = padded.unfold(2, params.taps, 1).unflatten(2, (-1, params.hop))  # [B, C_in, L, hop, K]
    y = torch.einsum("bilsk,bkiol->bols", windows, kernels) + biases[..., None]
    y = y.flatten(2)
    if params.gated:
        first, second = y.chunk(2, 1)
        y = torch.sigmoid(first) * torch.tanh(second)
    return y if residual is None else y + residual


class _Packed(NamedTuple):
    hop: int
    gated: bool


def _pack(params: LvcParams) -> _Packed:
    return _Packed(params.hop, params.gated)


def _fake(p: _Packed, x: Tensor, kernels: Tensor, *_: Tensor | None) -> Tensor:
    channels = kernels.shape[3] // 2 if p.gated else kernels.shape[3]
    return x.new_empty((x.shape[0], x.shape[2], channels)).transpose(1, 2)


NATIVE = Native("lvc", _Packed, _fake, lvc_ref)


def _stream_ref(params: LvcParams, _: Any) -> LvcStream:
    return LvcStream(params.hop, params.taps // 2, lambda x, kernels, biases: lvc_ref(x, params, kernels, biases))


def _stream_native(params: LvcParams, packed: _Packed) -> LvcStream:
    return LvcStream(params.hop, params.taps // 2, NATIVE.bound(packed))


def _stream_device(params: LvcParams, run: Callable[..., Tensor], packed: _Packed, _: object) -> LvcStream:
    return LvcStream(params.hop, params.taps // 2, lambda x, *more: run(x, packed, *more))


def _work(x: Tensor, params: LvcParams, kernels: Tensor, *_: Tensor | None) -> tuple[int, Tensor]:
    channels = kernels.shape[3] // 2 if params.gated else kernels.shape[3]
    return kernels.numel() * params.hop, output(x, x.shape[0], channels, x.shape[2])


OP = lvc = define("lvc", _check, lvc_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack, stream=_stream_device)
register_triton(OP, stream=_stream_device, pack=_pack)
