"""Requests of different lengths as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError


def padded(mels: Sequence[Tensor], channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mels [channels, T_i] or [1, channels, T_i] as [B, channels, T] of the dtype of `like`, and the lengths [B].

    Raises ShapeError, DtypeError or DeviceError naming the one that does not fit.
    """
    rows = []
    for i, mel in enumerate(mels):
        name = f"speech_feats[{i}]"
        if not isinstance(mel, Tensor) or mel.is_complex() or mel.dtype is torch.bool:
            raise DtypeError(
                f"{name}: expected a tensor of real numbers, got {getattr(mel, 'dtype', type(mel).__name__)}"
            )
        row = mel[0] if mel.dim() == 3 and len(mel) == 1 else mel
        if row.dim() != 2 or row.shape[0] != channels or row.shape[1] == 0:
            expected = f"[{channels}, T > 0] or [1, {channels}, T > 0]"
            raise ShapeError(f"{name}: expected {expected}, got {list(mel.shape)}")
        if row.device != like.device:
            raise DeviceError(f"{name}: expected a tensor on {like.device}, got {row.device}")
        rows.append(row)
    lengths = torch.tensor([row.shape[1] for row in rows], device="cpu")
    batch = like.new_zeros((len(rows), channels, int(lengths.max())))
    for item, row in zip(batch, rows, strict=True):
        item[:, : row.shape[1]] = row
    return batch, lengths


def one_each(values: Sequence[object], requests: int, name: str) -> None:
    """Raises ArgumentError unless there is a value for each request."""
    if len(values) != requests:
        raise ArgumentError(f"{name}: expected one for each of {requests} requests, got {len(values)}")
