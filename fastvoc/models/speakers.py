"""Who speaks, for a model that is told by a vector: rows of its own table, or vectors, one for each item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.nn.layer import Plain
from fastvoc.nn.wide import Wide
from fastvoc.ops.stream import PointStream

Speaker = int | Sequence[int] | Sequence[float] | Tensor | np.ndarray[Any, Any] | None


class Shift(Plain):
    """x [B, C, T] and shifts [B, rows, 1] -> the sum of x and its own rows: `first` to `end`, without a first all."""

    MORE = 1

    def __init__(self, channels: int, first: int | None = None) -> None:
        self._channels, self._first, self.end = channels, first, (first or 0) + channels

    def width(self) -> int:
        return self._channels

    def compute(self, x: Tensor, shifts: Tensor, lengths: Tensor | None = None) -> Tensor:
        return x + (shifts if self._first is None else shifts[:, self._first : self.end])

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        return PointStream(self.compute, self._channels)


class WideEmbedding(Wide, nn.Embedding):
    """A table that stays in float32 or float64 where the network around it is cast to less."""


def speaker_vectors(speaker: Speaker, size: int, table: Tensor | None, like: Tensor) -> Tensor:
    """The vectors [B, size] of speakers, of the type and on the device of `like`.

    Args:
        speaker: n or [B] whole numbers, of rows of `table` [N, size]; or vectors [size], [B, size] or [B, size, 1].

    Raises ShapeError, DtypeError, DeviceError or ArgumentError, naming `speaker`.
    """
    try:
        value = speaker if isinstance(speaker, Tensor) else torch.as_tensor(speaker, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DtypeError(f"speaker: expected whole numbers or a vector ({error})") from None
    if value.is_complex() or value.dtype == torch.bool:
        raise DtypeError(f"speaker: expected whole numbers or a vector of floats, got {value.dtype}")
    if not value.is_floating_point():
        return _known(value, size, table)
    if value is speaker and value.device != like.device:
        raise DeviceError(f"speaker: expected a tensor on {like.device} like the model, got {value.device}")
    rows = value[None] if value.dim() == 1 else value
    rows = rows[:, :, 0] if rows.dim() == 3 and rows.shape[2] == 1 else rows
    if rows.dim() != 2 or rows.shape[1] != size or not len(rows):
        raise ShapeError(f"speaker: expected a vector [{size}] or [B, {size}], got {list(value.shape)}")
    if rows.is_cpu and not bool(rows.isfinite().all()):
        raise ArgumentError("speaker: holds NaN or infinity")
    return rows.to(like.device, like.dtype)


def _known(numbers: Tensor, size: int, table: Tensor | None) -> Tensor:
    if table is None:
        raise ArgumentError(f"speaker: no speakers are in this checkpoint, expected a vector [{size}] or [B, {size}]")
    ids = numbers.reshape(-1).tolist()
    if not ids:
        raise ShapeError(f"speaker: expected one number, or one for each item, got {list(numbers.shape)}")
    if wrong := [n for n in ids if not 0 <= n < len(table)]:
        raise ArgumentError(f"speaker: expected 0..{len(table) - 1}, got {wrong[0]}")
    return torch.stack([table[n] for n in ids])  # which a CUDA graph may capture, unlike an index that comes on the CPU
