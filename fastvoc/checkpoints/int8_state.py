"""The tensors of int8 layers in a file: `weight` int8, `weight_scale` [C_out] and `input_range` [2] float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, TensorEntry, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.errors import ArgumentError
from fastvoc.models.families import ModelConfig, meta_model
from fastvoc.nn.quantized import RANGE, QuantizedInput, pack_weight, unpack_weight

INT8 = "int8"
NEAR = "int8_decibels"  # metadata: how near the model stayed to float32 when it was made
_SCALE = "weight_scale"


def pack_int8(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to store of an int8 model's state, whose layers with a range are those that compute in int8.

    Raises ArgumentError where another layer of the same stage has none, or no layer has one.
    """
    stored = dict(state)
    for layers in _stages(config, lambda name: f"{name}.{RANGE}" in state):
        for name, layer in layers.items():
            if f"{name}.{RANGE}" not in state:
                raise ArgumentError(f"state: {name} has no {RANGE}")
            stored[f"{name}.weight"], stored[f"{name}.{_SCALE}"] = pack_weight(state[f"{name}.weight"], layer.OUTPUTS)
    if stored.keys() == state.keys():
        raise ArgumentError(f"state: no layer has an {RANGE}")
    return stored


def _stages(config: ModelConfig, is_int8: Callable[[str], bool]) -> list[dict[str, QuantizedInput]]:
    """The layers of the stages with a layer of which `is_int8` holds."""
    stages = (stage.layers for stage in meta_model(config).int8_stages().values())
    return [layers for layers in stages if any(map(is_int8, layers))]


def split_int8(source: Source, config: ModelConfig) -> tuple[dict[str, TensorEntry], dict[str, Tensor]]:
    """The entries of an int8 file as those of a float32 one, and the ranges by name.

    A stage is in int8 where one of its layers has a tensor that only those have. Raises LoadError that names the first
    tensor which is missing, of another shape or dtype, or no range.
    """
    entries, ranges = dict(source.entries), {}
    stages = _stages(config, lambda name: f"{name}.{_SCALE}" in entries or f"{name}.{RANGE}" in entries)
    if not stages:
        raise refuse(source.path, f"quantization: no int8 layers of a model of family {config.family!r}")
    for name, layer in (item for layers in stages for item in layers.items()):
        shape = tuple(layer.weight.shape)
        weight = _entry(source, entries, f"{name}.weight", shape, torch.int8)
        scale = _entry(source, entries, f"{name}.{_SCALE}", (shape[layer.OUTPUTS],), torch.float32)
        limits = _entry(source, entries, f"{name}.{RANGE}", (2,), torch.float32)
        entries[weight.name] = replace(
            weight, dtype=torch.float32, read=partial(_unpacked, weight, scale, layer.OUTPUTS)
        )
        ranges[limits.name] = limits.read()
        low, high = ranges[limits.name].tolist()
        if not -float("inf") < low < high < float("inf"):
            raise refuse(source.path, f"tensor {limits.name!r}: expected a finite range, got {low}..{high}")
    return entries, ranges


def int8_note(checkpoint: Checkpoint) -> str:
    """Which layers of an int8 checkpoint compute in int8, which could and do not, and how near float32 that stays."""
    whole: list[str] = []
    kept: list[str] = []
    for name, stage in meta_model(checkpoint.config).int8_stages().items():
        (whole if all(f"{layer}.{RANGE}" in checkpoint.state for layer in stage.layers) else kept).append(name)
    said = [f"int8 in {', '.join(whole)}", *([f"float32, for what they lose, in {', '.join(kept)}"] if kept else [])]
    near = checkpoint.metadata.get(NEAR)
    return "; ".join([*said, *([f"{near} dB from float32 on its calibration"] if near else [])])


def _entry(
    source: Source, entries: dict[str, TensorEntry], name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> TensorEntry:
    entry = entries.pop(name, None)
    if entry is None:
        raise refuse(source.path, f"tensor {name!r} of an int8 layer is missing")
    if entry.shape != shape or entry.dtype != dtype:
        raise refuse(
            source.path, f"tensor {name!r}: expected {list(shape)} {dtype}, got {list(entry.shape)} {entry.dtype}"
        )
    return entry


def _unpacked(weight: TensorEntry, scale: TensorEntry, axis: int) -> Tensor:
    return unpack_weight(weight.read(), scale.read(), axis)
