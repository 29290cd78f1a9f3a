"""Int8 models: what layers see of real inputs fixes the steps of their bytes, and what it costs who takes bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from math import log10
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fastvoc.checkpoints import Checkpoint
from fastvoc.checkpoints.int8_state import NEAR
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.loading import loaded
from fastvoc.nn.budget import within
from fastvoc.nn.quantized import RANGE, QuantizedInput
from fastvoc.runtime.packing import ByteGrid
from fastvoc.vocoder import Vocoder

# Inputs of at least this many seconds in all: fewer do not show how large values get, and what is cut off costs most.
MIN_SECONDS = 30.0
# The least decibels between an int8 model and its float32, by default.
LEAST_DECIBELS = 32.0
# Of the inputs at most so many, evenly spread, and so many seconds of each tell what stages cost: a few lose far more.
_TRIED, _TRIED_SECONDS = 24, 10.0
# A clip counts where it has this much of the energy of the loudest one: noise is not heard in silence.
_HEARD = 1e-4
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


class _Trials:
    """Some inputs, evenly spread over all that there were, and what a model makes of them."""

    def __init__(self) -> None:
        self._each, self._count = 1, 0
        self._inputs: list[Any] = []

    def add(self, x: Any) -> None:
        """One more input."""
        if self._count % self._each == 0:
            self._inputs.append(x)
        self._count += 1
        if len(self._inputs) > _TRIED:
            del self._inputs[1::2]
            self._each *= 2

    def sounds(self, model: Vocoder | Codec) -> list[Tensor]:
        """What a model makes of them, float64."""
        play = model.decode if isinstance(model, Codec) else model
        return [play(x).double() for x in self._inputs]


class Calibration:
    """Runs inputs through the float32 model of a checkpoint and makes the int8 checkpoint from what was seen.

    least: decibels that the int8 model has to stay from float32 on the inputs; what would cost more, for the time that
    it saves, stays in float32.
    Raises ArgumentError for a model without int8 layers, or one that is int8 already.
    """

    def __init__(self, checkpoint: Checkpoint, least: float = LEAST_DECIBELS) -> None:
        if checkpoint.quantization is not None:
            raise ArgumentError("model: int8 already; expected one in floating point")
        if not 0 < least < 100:
            raise ArgumentError(f"least: expected decibels between 0 and 100, got {least}")
        self._checkpoint, self._least = checkpoint, least
        self.model: Vocoder | Codec = loaded(checkpoint, backend="torch")
        self._stages = self.model.model.int8_stages()
        if not self._stages:
            raise ArgumentError(f"model: family {checkpoint.config.family!r} has no int8 layers")
        self._observer = _Observer(self.model.model.int8_layers())
        self._trials = _Trials()
        self._seconds = 0.0

    def see(self, x: Tensor) -> None:
        """One input: a log-mel [n_mels, T] of a vocoder, or samples [L] or [channels, L] of a codec.

        Raises the errors of a call for an input that does not fit.
        """
        model = self.model
        with self._observer:
            if isinstance(model, Codec):
                codes = model.encode(x)
                played, wav = codes.codes, model.decode(codes)
            else:
                played, wav = x, model(x)
        self._seconds += wav.shape[-1] / model.sample_rate
        frames = round(_TRIED_SECONDS * model.sample_rate / model.hop)
        self._trials.add(played[..., max(0, played.shape[-1] - frames) // 2 :][..., :frames])

    def checkpoint(self) -> Checkpoint:
        """The int8 checkpoint. Raises ArgumentError for too few inputs, such as leave a layer at zero, or `least`."""
        if self._seconds < MIN_SECONDS:
            raise ArgumentError(f"inputs: expected at least {MIN_SECONDS:g} seconds, got {self._seconds:.1f}")
        ranges = self._observer.ranges()
        meant = self._trials.sounds(loaded(self._checkpoint))
        energy = torch.stack([wav.square().sum() for wav in meant])
        heard = energy >= _HEARD * energy.max()

        def part(stages: Collection[str]) -> Checkpoint:
            spans = {f"{n}.{RANGE}": ranges[f"{n}.{RANGE}"] for stage in stages for n in self._stages[stage].layers}
            return replace(self._checkpoint, state={**self._checkpoint.state, **spans}, quantization="int8")

        def error(stages: Collection[str]) -> Tensor:
            sounds = self._trials.sounds(loaded(part(stages), dtype=torch.int8))
            off = torch.stack([(ours - wav).square().sum() for ours, wav in zip(sounds, meant, strict=True)])
            return off[heard] / energy[heard]

        most = torch.full_like(energy[heard], 10 ** (-self._least / 10))
        chosen, left = within({name: stage.saved for name, stage in self._stages.items()}, error, most)
        if not chosen:
            raise ArgumentError(f"model: no layer in int8 keeps it {self._least:g} dB from float32 on the inputs")
        noise = f"{-10 * log10(float(left.max())):.1f}"
        made = part(chosen)
        return replace(made, metadata={**made.metadata, NEAR: noise})


def calibrate(checkpoint: Checkpoint, inputs: Iterable[Tensor], least: float = LEAST_DECIBELS) -> Checkpoint:
    """The int8 form of a checkpoint, its ranges and its layers chosen by `inputs` (see `Calibration`).

    Raises ArgumentError for a model without int8 layers, too few inputs, such as leave a layer at zero or lose too much
    in every layer, and the errors of a call for an input that does not fit.
    """
    calibration = Calibration(checkpoint, least)
    for x in inputs:
        calibration.see(x)
    return calibration.checkpoint()
