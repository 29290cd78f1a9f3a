"""The tensors of int8 layers in a file: `weight` int8, `weight_scale` [C_out] and `input_range` [2] float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import TensorEntry, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.errors import ArgumentError
from fastvoc.models.families import ModelConfig, meta_model
from fastvoc.nn.quantized import RANGE, pack_weight, unpack_weight

INT8 = "int8"
_SCALE = "weight_scale"


def pack_int8(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to store of an int8 model's state. Raises ArgumentError unless every int8 layer has its range."""
    stored = dict(state)
    for name, layer in meta_model(config).int8_layers().items():
        if f"{name}.{RANGE}" not in state:
            raise ArgumentError(f"state: {name} has no {RANGE}")
        stored[f"{name}.weight"], stored[f"{name}.{_SCALE}"] = pack_weight(state[f"{name}.weight"], layer.OUTPUTS)
    return stored


def split_int8(source: Source, config: ModelConfig) -> tuple[dict[str, TensorEntry], dict[str, Tensor]]:
    """The entries of an int8 file as those of a float32 one, and the ranges by name.

    Raises LoadError that names the first tensor which is missing, of another shape or dtype, or no range.
    """
    entries, ranges = dict(source.entries), {}
    layers = meta_model(config).int8_layers()
    if not layers:
        raise refuse(source.path, f"quantization: a model of family {config.family!r} has no int8 layers")
    for name, layer in layers.items():
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
