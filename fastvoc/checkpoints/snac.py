"""SNAC: `config.json` and `pytorch_model.bin` of github.com/hubertsiuzdak/snac."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, TensorEntry, refuse
from fastvoc.checkpoints.constants import off_by
from fastvoc.checkpoints.dac import flat
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.snac import SnacConfig
from fastvoc.nn.local_attention import frequencies

_FIRST = "encoder.block.1.block.0.block.0.alpha"
_BOOK = "quantizer.quantizers.0.codebook.weight"
_FREQUENCIES = ".rel_pos.inv_freq"
_FREQUENCY_ERROR = 1e-6
_PROJECTIONS = (".to_qkv.weight", ".to_out.weight")


def detect(source: Source) -> bool:
    names = source.entries
    return (
        _FIRST in names and _BOOK in names and source.has("config.json") and "vq_strides" in source.json("config.json")
    )


def load(source: Source) -> Checkpoint:
    config = configuration(source.json("config.json"))
    places = dict(module_names(config))
    tensors = renamed(source, _without_frequencies(source), lambda name: canonical_name(name, places))
    shaped = {name: _shaped(name, flat(name, entry)) for name, entry in tensors.items()}
    return Checkpoint(config, canonical_state(source, config, shaped), "snac", {"container": source.container})


def configuration(fields: Fields) -> SnacConfig:
    """The configuration that the fields of `config.json` describe, with upstream's defaults. Raises LoadError."""
    window = fields.get("attn_window_size") if "attn_window_size" in fields.values else SnacConfig.attn_window_size
    try:
        return SnacConfig(
            sample_rate=fields.integer("sampling_rate", 44100),
            encoder_dim=fields.integer("encoder_dim", 64),
            encoder_rates=fields.integers("encoder_rates", (3, 3, 7, 7)),
            latent_dim=fields.integer("latent_dim") if "latent_dim" in fields else None,
            decoder_dim=fields.integer("decoder_dim", 1536),
            decoder_rates=fields.integers("decoder_rates", (7, 7, 3, 3)),
            attn_window_size=window,
            codebook_size=fields.integer("codebook_size", 4096),
            codebook_dim=fields.integer("codebook_dim", 8),
            vq_strides=fields.integers("vq_strides", (8, 4, 2, 1)),
            noise=fields.flag("noise", True),
            depthwise=fields.flag("depthwise", True),
        )
    except ArgumentError as error:
        raise refuse(fields.path, f"illegal configuration: {error}") from None


def module_names(config: SnacConfig) -> Iterator[tuple[str, str]]:
    """Upstream's name of every module with weights -> the model's."""
    at = len(config.encoder_rates) + 1
    yield "encoder.block.0", "encoder.conv1"
    for i in range(at - 1):
        stage, ours = f"encoder.block.{i + 1}.block", f"encoder.block.{i}"
        yield from _units(stage, 0, ours)
        yield f"{stage}.3", f"{ours}.snake1"
        yield f"{stage}.4", f"{ours}.conv1"
    if config.attn_window_size is not None:
        yield from _attention(f"encoder.block.{at}", "encoder.attention")
        at += 1
    yield f"encoder.block.{at}", "encoder.conv2"
    first = ("conv0", "conv1") if config.depthwise else ("conv1",)
    yield from ((f"decoder.model.{i}", f"decoder.{name}") for i, name in enumerate(first))
    at = len(first)
    if config.attn_window_size is not None:
        yield from _attention(f"decoder.model.{at}", "decoder.attention")
        at += 1
    for i in range(len(config.decoder_rates)):
        stage, ours = f"decoder.model.{at + i}.block", f"decoder.block.{i}"
        yield f"{stage}.0", f"{ours}.snake1"
        yield f"{stage}.1", f"{ours}.conv_t1"
        if config.noise:
            yield f"{stage}.2.linear", f"{ours}.noise"
        yield from _units(stage, 2 + config.noise, ours)
    at += len(config.decoder_rates)
    yield f"decoder.model.{at}", "decoder.snake1"
    yield f"decoder.model.{at + 1}", "decoder.conv2"


def _units(stage: str, first: int, ours: str) -> Iterator[tuple[str, str]]:
    for unit in range(3):
        for i, name in enumerate(("snake1", "conv1", "snake2", "conv2")):
            yield f"{stage}.{first + unit}.block.{i}", f"{ours}.res_unit{unit + 1}.{name}"


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{name}", f"{ours}.{name}") for name in ("norm", "to_qkv", "to_out"))


def canonical_name(name: str, places: dict[str, str]) -> str:
    """Upstream's name of a tensor -> the model's."""
    module, end = name, ""
    while module:
        if module in places:
            return f"{places[module]}{end}"
        module, _, last = module.rpartition(".")
        end = f".{last}{end}"
    return name


def _without_frequencies(source: Source) -> dict[str, TensorEntry]:
    """Leaves out the rotary frequencies. Raises LoadError for any but those that the model computes."""
    kept, ours = {}, frequencies()
    for name, entry in source.entries.items():
        if not name.endswith(_FREQUENCIES):
            kept[name] = entry
        elif entry.shape != tuple(ours.shape) or not entry.dtype.is_floating_point:
            claim = f"tensor {entry.name!r} is {list(entry.shape)} of {entry.dtype}"
            raise refuse(source.path, f"{claim}, expected the rotary frequencies {list(ours.shape)}")
        elif (difference := off_by(entry.read(), ours, _FREQUENCY_ERROR)) is not None:
            raise refuse(source.path, f"tensor {entry.name!r}: other rotary frequencies, off by {difference:.3g}")
    return kept


def _shaped(name: str, entry: TensorEntry) -> TensorEntry:
    """A projection [out, in] as the model has it, [out, in, 1]."""
    if not name.endswith(_PROJECTIONS) or len(entry.shape) != 2:
        return entry
    return replace(entry, shape=(*entry.shape, 1), read=partial(_widened, entry))


def _widened(entry: TensorEntry) -> Tensor:
    return torch.unsqueeze(entry.read(), 2)
