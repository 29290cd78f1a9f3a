"""square_conv, which here is conv1d."""

from __future__ import annotations

from typing import Any

from fastvoc.kernels import conv1d
from fastvoc.kernels.conv1d import run

__all__ = ["pack", "run"]


def pack(params: Any) -> Any:
    """Weights of a SquareConvParams."""
    return conv1d.pack(params.conv())
