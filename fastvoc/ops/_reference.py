"""What the torch references share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_float32(x: Tensor) -> Iterator[None]:
    """Keeps cuDNN from rounding float32 inputs to TF32, which torch allows by default; all else stays as set."""
    cudnn = torch.backends.cudnn
    if not x.is_cuda or x.dtype is not torch.float32 or not cudnn.allow_tf32:
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = True


def without_products(x: Tensor, *_: object) -> tuple[int, Tensor]:
    """The work of an op that keeps the shape of x and multiplies by no weights."""
    return 0, output(x, *x.shape)


def output(x: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """An output of this shape on device meta, of x's dtype when None."""
    return x.new_empty(shape, dtype=dtype, device="meta")
