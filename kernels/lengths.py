"""The valid steps of an item inside a kernel, by one compiled kernel for a batch with lengths and one without."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def valid_steps(lengths, item, steps, ragged):
    """lengths[item] where the batch is ragged, else `steps`; int64."""
    return tl.load(lengths + item * ragged, mask=ragged != 0, other=steps.to(tl.int64))


@cache
def no_lengths(device: torch.device) -> Tensor:
    """What stands for the lengths of a batch that is not ragged; nobody reads it."""
    return torch.zeros(1, dtype=torch.int64, device=device)
