"""fastvoc's own file: one safetensors file with the configuration inside and a checksum over all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, refuse
from fastvoc.checkpoints.int8_state import INT8, pack_int8, split_int8
from fastvoc.checkpoints.safetensors_file import tensor_bytes, update_from, write
from fastvoc.checkpoints.source import Source, open_source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields, parse_json
from fastvoc.errors import ArgumentError, DtypeError
from fastvoc.models.families import config_from_dict

_KEY = "fastvoc"
_VERSION = 1
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def detect(source: Source) -> bool:
    return _KEY in source.metadata


def load(source: Source) -> Checkpoint:
    fields, config, metadata = _description(source)
    origins = {fact: Origin("assumed", why) for fact, why in _texts(fields, "assumed").items()}
    quantization = fields.values.get("quantization")
    if quantization not in (None, INT8):
        raise refuse(source.path, f"quantization {quantization!r:.40}, expected {INT8!r} or none")
    entries, ranges = (source.entries, {}) if quantization is None else split_int8(source, config)
    state = {**canonical_state(source, config, entries), **ranges}
    stated = fields.text("sha256")
    sha = _start({name: value for name, value in fields.values.items() if name != "sha256"})
    update_from(sha, source.path, source.tensor_offset)
    if sha.hexdigest() != stated:
        raise refuse(source.path, f"damaged: its SHA-256 is {sha.hexdigest()}, the file states {stated}")
    return Checkpoint(config, state, "fastvoc", metadata, quantization, origins)


def describe(path: Path) -> tuple[Any, dict[str, str]]:
    """Configuration and metadata of a file written by `save`, without its tensors. Raises LoadError for any other."""
    source = open_source(path)
    if not detect(source):
        raise refuse(path, "not a file of fastvoc")
    _, config, metadata = _description(source)
    return config, metadata


def _description(source: Source) -> tuple[Fields, Any, dict[str, str]]:
    fields = Fields(parse_json(source.metadata[_KEY].encode(), source.path), source.path, f"{_KEY}.")
    model, version = fields.text("model"), fields.integer("version")
    if version != _VERSION:
        raise refuse(source.path, f"version {version} of the format, expected {_VERSION}")
    try:
        config = config_from_dict(model, dict(fields.sub("config").values))
    except (ArgumentError, TypeError, ValueError) as error:
        raise refuse(source.path, f"illegal configuration: {error}") from None
    return fields, config, _texts(fields, "metadata")


def _texts(fields: Fields, name: str) -> dict[str, str]:
    values = fields.sub(name).values if name in fields else {}
    if not all(isinstance(value, str) for value in values.values()):
        raise refuse(fields.path, f"field 'fastvoc.{name}': expected texts")
    return dict(values)


def save(checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a checkpoint with its tensors in `dtype` (float32, float16 or bfloat16); equal input gives equal bytes.

    Of an int8 one (`Checkpoint.quantization`) the weights of the int8 layers are stored in int8, the rest in float32.
    Raises DtypeError for another dtype and ArgumentError when a value does not fit into it.
    """
    if dtype not in _DTYPES:
        raise DtypeError(f"dtype: expected one of {', '.join(map(str, _DTYPES))}, got {dtype}")
    if checkpoint.quantization is not None and dtype is not torch.float32:
        raise DtypeError(f"dtype: an int8 model is stored in int8 and float32, got {dtype}")
    tensors = {name: tensor.to(dtype) for name, tensor in checkpoint.state.items()}
    if checkpoint.quantization is not None:
        tensors = pack_int8(checkpoint.config, tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ArgumentError(f"dtype: tensor {name!r} has values that are not finite in {dtype}")
    header, blocks = tensor_bytes(tensors)
    description = {
        "version": _VERSION,
        "model": checkpoint.config.family,
        "config": checkpoint.config.to_dict(),
        "metadata": {**checkpoint.metadata, "format": checkpoint.metadata.get("format", checkpoint.format)},
    }
    if checkpoint.assumed:
        description["assumed"] = checkpoint.assumed
    if checkpoint.quantization is not None:
        description["quantization"] = checkpoint.quantization
    sha = _start(description)
    for block in blocks:
        sha.update(block)
    text = json.dumps({**description, "sha256": sha.hexdigest()}, sort_keys=True)
    write(path, header, blocks, {_KEY: text})


def _start(description: dict[str, Any]) -> hashlib._Hash:
    """A hash that has seen the description; the tensor bytes follow."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode())
