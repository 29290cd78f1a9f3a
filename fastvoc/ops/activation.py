"""Activations that ops fuse into their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError

Kind = Literal["identity", "leaky_relu", "tanh", "elu", "gelu", "snake"]


@dataclass(frozen=True)
class Activation:
    """An elementwise activation.

    `kind` is identity, leaky_relu with a `slope`, tanh, elu (alpha 1), gelu (the exact one, by erf), or snake,
    x + sin^2(alpha * x) * inverse with the tensors `alpha` [C] and `inverse` [C], one value per channel
    (Ziyin et al. 2020, arXiv 2006.08195).
    """

    kind: Kind = "identity"
    slope: float = 0.0
    alpha: Tensor | None = None
    inverse: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ArgumentError(f"activation: kind: expected one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        alpha, inverse = self.alpha, self.inverse
        if self.kind != "snake":
            if alpha is not None or inverse is not None:
                raise ArgumentError(f"activation: alpha, inverse: only snake has them, not {self.kind}")
        elif alpha is None or inverse is None:
            raise ArgumentError("activation: alpha, inverse: snake needs both")
        elif alpha.dim() != 1 or alpha.shape != inverse.shape:
            shapes = f"{list(alpha.shape)} and {list(inverse.shape)}"
            raise ShapeError(f"activation: alpha, inverse: expected [C] and [C], got {shapes}")

    def __call__(self, x: Tensor) -> Tensor:
        """The activation of x [B, C, T]."""
        if self.kind == "leaky_relu":
            return F.leaky_relu(x, self.slope)
        if self.kind == "tanh":
            return torch.tanh(x)
        if self.kind == "elu":
            return F.elu(x)
        if self.kind == "gelu":
            return F.gelu(x)
        if self.alpha is not None and self.inverse is not None:
            return x + torch.sin(self.alpha[:, None] * x).square() * self.inverse[:, None]
        return x

    def tensors(self) -> list[Tensor]:
        """The activation's own parameters."""
        return [t for t in (self.alpha, self.inverse) if t is not None]

    def check(self, op: str, channels: int, weight: Tensor) -> None:
        """Raises unless the parameters fit `channels` channels and the dtype and device of the weights."""
        for name, t in (("alpha", self.alpha), ("inverse", self.inverse)):
            if t is None:
                continue
            if t.shape[0] != channels:
                raise ShapeError(f"{op}: activation: {name}: expected [{channels}], got {list(t.shape)}")
            if t.dtype != weight.dtype:
                raise DtypeError(f"{op}: activation: {name}: expected {weight.dtype} like the weights, got {t.dtype}")
            if t.device != weight.device:
                raise DeviceError(
                    f"{op}: activation: {name}: expected {weight.device} like the weights, got {t.device}"
                )


IDENTITY = Activation()
TANH = Activation("tanh")


def leaky_relu(slope: float) -> Activation:
    """Leaky ReLU: x where x > 0, slope * x elsewhere."""
    return Activation("leaky_relu", slope)


def elu() -> Activation:
    """ELU with alpha 1: x where x > 0, e^x - 1 elsewhere (Clevert et al. 2015, arXiv 1511.07289)."""
    return Activation("elu")


def gelu() -> Activation:
    """GELU by the normal distribution itself: x * Phi(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return Activation("gelu")


def snake(alpha: Tensor, inverse: Tensor) -> Activation:
    """x + sin^2(alpha * x) * inverse per channel; Snake has inverse = 1 / alpha, SnakeBeta a parameter of its own."""
    return Activation("snake", 0.0, alpha, inverse)
