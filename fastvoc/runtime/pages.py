"""Memory in few large pages, where Linux has them: weights that no cache holds are read up to half as fast again."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch
from torch import Tensor

LEAST = 4 << 20  # bytes, two large pages of x86: fewer hardly hold a whole one


def in_large_pages(tensor: Tensor) -> Tensor:
    """A contiguous copy of a tensor on the CPU in memory of its own; a small tensor, and elsewhere any, itself."""
    if tensor.nbytes < LEAST or tensor.device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return tensor
    memory = mmap.mmap(-1, tensor.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # of a kernel without large pages, which gives small ones
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)
