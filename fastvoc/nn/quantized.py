"""What the layers share that can compute in int8."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fastvoc.runtime.packing import quantise_weight

RANGE = "input_range"


class QuantizedInput(nn.Module):
    """A layer with a convolution whose input may be rounded to bytes.

    `input_range` [2] float32 is the least and the greatest value of that input, after the activation before it; None
    where the layer computes in floating point. The output channels of its weight lie along the axis `OUTPUTS`.
    """

    OUTPUTS: ClassVar[int] = 0
    weight: nn.Parameter
    input_range: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(RANGE, None)

    def held(self) -> list[Tensor]:
        """Weight, bias and range, those that there are: asked for in every call, hence past `Module.__getattr__`."""
        own = self._parameters
        weight, bias, span = own.get("weight"), own.get("bias"), self._buffers[RANGE]
        tensors: list[Tensor] = [self.weight if weight is None else weight]  # None: parametrised
        if bias is not None:
            tensors.append(bias)
        if span is not None:
            tensors.append(span)
        return tensors


class Stage(NamedTuple):
    """Layers by name that round all or none, and the multiply-adds of floats that it saves for a frame if they do."""

    layers: dict[str, QuantizedInput]
    saved: float


def is_int8(model: nn.Module) -> bool:
    """Whether any layer of the model computes in int8."""
    return any(isinstance(layer, QuantizedInput) and layer.input_range is not None for layer in model.modules())


def pack_weight(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The int8 values of a weight and the step [C_out] of each output channel, which lie along `axis`.

    Rounding what these stand for once more gives the same int8 values.
    """
    whole, step = quantise_weight(weight, axis)
    return whole.to(torch.int8), step


def unpack_weight(values: Tensor, scale: Tensor, axis: int) -> Tensor:
    """What `pack_weight` packed, float32."""
    return values.float() * scale.reshape([-1 if i == axis else 1 for i in range(values.dim())])
