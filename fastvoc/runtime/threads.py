"""How many CPU threads the kernels use."""

from __future__ import annotations

import torch

from fastvoc.errors import ArgumentError


def set_num_threads(count: int) -> None:
    """Sets the CPU threads of this process for one call, those of torch; results do not depend on them.

    Raises ArgumentError unless `count` is a positive integer.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(f"count: expected a positive integer, got {count!r}")
    torch.set_num_threads(count)
