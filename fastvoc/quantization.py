"""Int8 models: what the layers of a model see of real inputs fixes the step of the bytes that they compute with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fastvoc.checkpoints import Checkpoint
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.loading import loaded
from fastvoc.nn.quantized import RANGE, QuantizedInput
from fastvoc.runtime.packing import ByteGrid
from fastvoc.vocoder import Vocoder

# Inputs of at least this many seconds in all: fewer do not show how large values get, and what is cut off costs most.
MIN_SECONDS = 30.0
# Values kept of one input of a convolution, evenly spread over it.
_KEPT = 1 << 12
# Shares of the extremes that a range may be cut down to; below, other speakers lost more than finer steps gain.
_SHARES = tuple(1 - 0.05 * i for i in range(8))


class _Seen:
    """The extremes of the inputs of a convolution, and a sample of their values."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.values: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())
        flat = x.flatten()
        self.values.append(flat[:: max(1, len(flat) // _KEPT)].clone())

    def range(self) -> Tensor:
        """The range whose bytes are off the least in the mean of squares.

        Less than the extremes: values near them are rare, and all others get finer steps.
        """
        values = torch.cat(self.values)
        extremes = values.new_tensor([self.low, self.high])

        def error(share: float) -> float:
            grid = ByteGrid.over(extremes * share)
            return float((grid.centred(values) * grid.step - values).square().sum())

        return extremes * min(_SHARES, key=error)


class _Observer(TorchFunctionMode):
    """Notes the inputs of convolutions and linear layers, by where their weights lie."""

    def __init__(self, layers: dict[str, QuantizedInput]) -> None:
        super().__init__()
        self._of_weight = {layer.weight.data_ptr(): _Seen() for layer in layers.values()}
        self._layers = layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv1d, F.conv_transpose1d, F.linear):
            seen = self._of_weight.get(args[1].data_ptr())
            if seen is not None:
                seen.add(args[0])
        return func(*args, **(kwargs or {}))

    def ranges(self) -> dict[str, Tensor]:
        """The range of each layer by the name of its tensor. Raises ArgumentError for a layer that saw only zeros."""
        found = {}
        for name, layer in self._layers.items():
            seen = self._of_weight[layer.weight.data_ptr()]
            if seen.low == seen.high:
                raise ArgumentError(f"inputs: the layer {name} saw nothing but zeros; expected real speech")
            found[f"{name}.{RANGE}"] = seen.range()
        return found


class Calibration:
    """Runs inputs through the float32 model of a checkpoint and makes the int8 checkpoint from what was seen.

    Raises ArgumentError for a model without int8 layers, or one that is int8 already.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.quantization is not None:
            raise ArgumentError("model: int8 already; expected one in floating point")
        self._checkpoint = checkpoint
        self.model: Vocoder | Codec = loaded(checkpoint, backend="torch")
        layers = self.model.model.int8_layers()
        if not layers:
            raise ArgumentError(f"model: family {checkpoint.config.family!r} has no int8 layers")
        self._observer = _Observer(layers)
        self._seconds = 0.0

    def see(self, x: Tensor) -> None:
        """One input: a log-mel [n_mels, T] of a vocoder, or samples [L] or [channels, L] of a codec.

        Raises the errors of a call for an input that does not fit.
        """
        with self._observer:
            wav = self.model.decode(self.model.encode(x)) if isinstance(self.model, Codec) else self.model(x)
        self._seconds += wav.shape[-1] / self.model.sample_rate

    def checkpoint(self) -> Checkpoint:
        """The int8 checkpoint. Raises ArgumentError for too few inputs, or such as leave a layer at zero."""
        if self._seconds < MIN_SECONDS:
            raise ArgumentError(f"inputs: expected at least {MIN_SECONDS:g} seconds, got {self._seconds:.1f}")
        state = {**self._checkpoint.state, **self._observer.ranges()}
        return replace(self._checkpoint, state=state, quantization="int8")


def calibrate(checkpoint: Checkpoint, inputs: Iterable[Tensor]) -> Checkpoint:
    """The int8 form of a checkpoint, its ranges chosen by `inputs` (see `Calibration.see`).

    Raises ArgumentError for a model without int8 layers, too few inputs or such as leave a layer at zero, and the
    errors of a call for an input that does not fit.
    """
    calibration = Calibration(checkpoint)
    for x in inputs:
        calibration.see(x)
    return calibration.checkpoint()
