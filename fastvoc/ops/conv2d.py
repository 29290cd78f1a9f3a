"""conv2d: convolution over time and frequency, bias, residual, leaky ReLU and pooling of frequencies in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import FLOATS, check_lengths
from fastvoc.ops._cpp import float32, register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import define


@dataclass(frozen=True)
class Conv2dParams:
    """Weights and shape of a convolution over time and frequency.

    weight [C_out, C_in, K_time, K_frequency] with odd kernels, bias [C_out]; zeros on every side keep the size. Then a
    leaky ReLU of `slope` (1: none), then the largest of every `pool` frequencies; frequencies left over are dropped.
    """

    weight: Tensor
    bias: Tensor
    slope: float = 1.0
    pool: int = 1

    def __post_init__(self) -> None:
        if self.weight.dim() != 4 or not all(k % 2 for k in self.weight.shape[2:]):
            shape = list(self.weight.shape)
            raise ShapeError(f"conv2d: weight: expected [C_out, C_in, K_time, K_frequency], odd kernels, got {shape}")
        if self.bias.shape != self.weight.shape[:1]:
            raise ShapeError(f"conv2d: bias: expected [{len(self.weight)}], got {list(self.bias.shape)}")
        if self.pool < 1:
            raise ArgumentError(f"conv2d: pool: expected 1 or more, got {self.pool}")

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [self.weight, self.bias]


def _check(x: Tensor, params: Conv2dParams, residual: Tensor | None = None, lengths: Tensor | None = None) -> None:
    weight = params.weight
    if not isinstance(x, Tensor):
        raise DtypeError(f"conv2d: x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dim() != 4 or x.shape[1] != weight.shape[1] or 0 in x.shape or x.shape[3] < params.pool:
        expected = f"[B > 0, {weight.shape[1]}, T > 0, F >= {params.pool}]"
        raise ShapeError(f"conv2d: x: expected {expected}, got {list(x.shape)}")
    if x.dtype not in FLOATS or x.dtype != weight.dtype:
        raise DtypeError(f"conv2d: x: expected {weight.dtype} like the weights, got {x.dtype}")
    if x.device != weight.device:
        raise DeviceError(f"conv2d: x: expected a tensor on {weight.device} like the weights, got {x.device}")
    check_lengths("conv2d", lengths, x.shape[0], x.shape[2])
    if residual is None:
        return
    expected_shape = (x.shape[0], weight.shape[0], x.shape[2], x.shape[3])
    if residual.shape != expected_shape:
        raise ShapeError(f"conv2d: residual: expected {list(expected_shape)}, got {list(residual.shape)}")
    if residual.dtype != x.dtype:
        raise DtypeError(f"conv2d: residual: expected {x.dtype} like x, got {residual.dtype}")
    if residual.device != x.device:
        raise DeviceError(f"conv2d: residual: expected a tensor on {x.device} like x, got {residual.device}")


def conv2d_ref(
    x: Tensor, params: Conv2dParams, residual: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """y = pool(leaky_relu(conv(x) + bias + residual)).

    Args:
        x: [B, C_in, T, F], dtype and device of the weights; any strides, channels-last ones are the fast ones.
        params: weights and shape.
        residual: [B, C_out, T, F], added before the leaky ReLU.
        lengths: [B] int64 on the CPU, valid time steps of each item; what lies beyond is never read, the output there
            is 0.

    Returns:
        [B, C_out, T, F // pool].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, steps: int, i: int) -> Tensor:
            added = None if residual is None else residual[i : i + 1, :, :steps]
            return F.pad(conv2d_ref(item, params, added), (0, 0, 0, x.shape[2] - steps))

        return torch.cat([one(x[i : i + 1, :, :n], n, i) for i, n in enumerate(lengths.tolist())])
    padding = tuple(k // 2 for k in params.weight.shape[2:])
    with full_float32(x):
        y = F.conv2d(x, params.weight, params.bias, padding=padding)
    y = F.leaky_relu(y if residual is None else y + residual, params.slope)
    return F.max_pool2d(y, (1, params.pool))


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    cout: int
    cin: int
    time: int
    across: int
    pool: int
    slope: float


def _pack(params: Conv2dParams) -> _Packed:
    cout, cin, time, across = params.weight.shape
    weight = torch.cat([packing.pack_conv(params.weight[:, :, k]).flatten() for k in range(time)])
    bias = packing.pad_bias(params.bias, cout, params.weight)
    return _Packed(weight, bias, cout, cin, time, across, params.pool, params.slope)


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[1] // p.cin // p.pool * p.cout)).transpose(1, 2)


NATIVE = Native("conv2d", _Packed, _fake, conv2d_ref)


def _run_native(x: Tensor, packed: _Packed, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    rows = NATIVE.run(_rows(x), packed, None if residual is None else _rows(residual), lengths)
    y = rows.transpose(1, 2).reshape(x.shape[0], x.shape[2], x.shape[3] // packed.pool, packed.cout)
    return y.permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """[B, C, T, F] -> [B, F * C, T], a view where the channels come last in memory."""
    return x.permute(0, 2, 3, 1).flatten(2).transpose(1, 2)


def _work(x: Tensor, params: Conv2dParams, *_: Tensor | None) -> tuple[int, Tensor]:
    batch, steps, bands = x.shape[0], x.shape[2], x.shape[3]
    y = output(x, batch, len(params.bias), steps, bands // params.pool)
    return batch * steps * bands * params.weight.numel(), y


OP = conv2d = define("conv2d", _check, conv2d_ref, _work)
register_cpp(OP, NATIVE, _pack, float32, run=_run_native)
register_cuda(OP, _run_native, _pack)
register_triton(OP)
