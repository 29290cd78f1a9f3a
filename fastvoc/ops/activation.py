"""Activations that ops fuse into their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Activation:
    """An elementwise activation: identity, leaky_relu with a slope, or tanh."""

    kind: Literal["identity", "leaky_relu", "tanh"] = "identity"
    slope: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        if self.kind == "leaky_relu":
            return F.leaky_relu(x, self.slope)
        return torch.tanh(x) if self.kind == "tanh" else x


IDENTITY = Activation()
TANH = Activation("tanh")


def leaky_relu(slope: float) -> Activation:
    """Leaky ReLU: x where x > 0, slope * x elsewhere."""
    return Activation("leaky_relu", slope)
