"""layer_norm: every step normalised over its channels, plain or adaptive (Ba et al. 2016, arXiv 1607.06450)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import by_item, check_activations, check_lengths
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import without_products
from fastvoc.ops._triton import register_triton
from fastvoc.ops.stream import PointStream
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.native import Native, like_rows
from fastvoc.runtime.registry import define


@dataclass(frozen=True)
class LayerNormParams:
    """Scale and shift after the normalisation.

    weight, bias: [C], or [N, C] for an adaptive norm, which picks one of N rows per item. eps is added to the variance.
    """

    weight: Tensor
    bias: Tensor
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.weight.dim() not in (1, 2) or self.weight.shape != self.bias.shape:
            shapes = f"{list(self.weight.shape)} and {list(self.bias.shape)}"
            raise ShapeError(f"layer_norm: weight and bias: expected [C] or [N, C] twice, got {shapes}")
        if not self.eps > 0:
            raise ArgumentError(f"layer_norm: eps: expected a positive number, got {self.eps}")

    @property
    def rows(self) -> int | None:
        """Rows that an adaptive norm can pick, None for a plain one."""
        return self.weight.shape[0] if self.weight.dim() == 2 else None

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [self.weight, self.bias]


def check_row(op: str, row: Tensor | None, rows: int | None, batch: int) -> None:
    """`row` must be [B] int64 on the CPU with values in 0..rows - 1, and None where there are no rows."""
    if (row is None) != (rows is None):
        wanted = "None: the norm is not adaptive" if rows is None else f"one of {rows} rows for each item"
        raise ArgumentError(f"{op}: row: expected {wanted}, got {'None' if row is None else 'a tensor'}")
    if row is None or rows is None:
        return
    if row.shape != (batch,):
        raise ShapeError(f"{op}: row: expected [{batch}], got {list(row.shape)}")
    if row.dtype != torch.int64:
        raise DtypeError(f"{op}: row: expected torch.int64, got {row.dtype}")
    if row.device.type != "cpu":
        raise DeviceError(f"{op}: row: expected a tensor on the CPU, got {row.device}")
    low, high = int(row.min()), int(row.max())
    if low < 0 or high >= rows:
        raise ArgumentError(f"{op}: row: expected values in 0..{rows - 1}, got {low}..{high}")


def _check(x: Tensor, params: LayerNormParams, row: Tensor | None = None, lengths: Tensor | None = None) -> None:
    check_activations("layer_norm", x, params.weight.shape[-1], params.weight)
    check_row("layer_norm", row, params.rows, x.shape[0])
    check_lengths("layer_norm", lengths, x.shape[0], x.shape[2])


def layer_norm_ref(
    x: Tensor, params: LayerNormParams, row: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """y[:, c, t] = (x[:, c, t] - mean) / sqrt(var + eps) * weight[c] + bias[c]; mean and variance of x[:, :, t].

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: scale and shift.
        row: [B] int64 on the CPU, the row of weight and bias for each item; for an adaptive norm, and only there.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            return layer_norm_ref(item, params, None if row is None else row[i : i + 1])

        return by_item(x, lengths, x.shape[2], one)
    weight, bias = (t if row is None else t[on_device(row, t)] for t in (params.weight, params.bias))
    normal = F.layer_norm(x.transpose(1, 2), (int(x.shape[1]),), eps=params.eps).transpose(1, 2)
    return normal * weight[..., None] + bias[..., None]


def pack_rows(rows: Tensor) -> Tensor:
    """[C] or [N, C] -> [N, C rounded up to the panel], zeros beyond C."""
    rows = rows.detach().reshape(-1, rows.shape[-1])
    width = -(-rows.shape[1] // packing.PANEL) * packing.PANEL
    padded = rows.new_zeros((len(rows), width))
    padded[:, : rows.shape[1]] = rows
    return padded


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float


def _pack(params: LayerNormParams) -> _Packed:
    return _Packed(pack_rows(params.weight).float(), pack_rows(params.bias).float(), params.eps)


NATIVE = Native("layer_norm", _Packed, like_rows, layer_norm_ref)


def _stream_ref(params: LayerNormParams, _: Any) -> PointStream:
    return PointStream(lambda x, row=None: layer_norm_ref(x, params, row), params.weight.shape[-1])


def _stream_native(params: LayerNormParams, packed: _Packed) -> PointStream:
    return PointStream(NATIVE.bound(packed), params.weight.shape[-1], (params, packed))


def _stream_device(params: LayerNormParams, run: Callable[..., Tensor], packed: Any, _: object) -> PointStream:
    return PointStream(lambda x, row=None: run(x, packed, row), params.weight.shape[-1])


OP = layer_norm = define("layer_norm", _check, layer_norm_ref, without_products, _stream_ref)
register_cpp(OP, NATIVE, _pack, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack, stream=_stream_device)
register_triton(OP, stream=_stream_device)
