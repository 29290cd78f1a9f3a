"""HiFi-GAN and VITS decoders in ONNX files: exports of vocoders, and whole voices such as Piper's.

The decoder is found by its structure (`onnx_decoder`), with any names and whether weight norm was folded or not; what
layers lie before it in the graph is not read here. The rate is in the JSON of a Piper voice, `<file>.json`, or in the
file's own metadata; files of `fastvoc.export` have their whole configuration there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, make_config, refuse
from fastvoc.checkpoints.onnx_decoder import Decoder, NoDecoderError, find_decoder
from fastvoc.checkpoints.onnx_graph import Array, Graph, read_graph
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import parse_json
from fastvoc.errors import ArgumentError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import MelConfig

_ASSUMED = Origin("assumed", "neither the file nor a JSON beside it says it; the commonest")


class Voice(NamedTuple):
    """A file that was read: its decoder as a checkpoint, where that lies in the graph, and the graph."""

    checkpoint: Checkpoint
    decoder: Decoder
    graph: Graph


def detect(source: Source) -> bool:
    return source.container == "onnx"


def load(source: Source) -> Checkpoint:
    return read(source).checkpoint


def read(source: Source) -> Voice:
    """Reads the decoder of an ONNX file. Raises LoadError, which says what was found where there is none to read."""
    graph = read_graph(source.path)
    try:
        decoder = find_decoder(graph)
    except NoDecoderError as error:
        kind = f"; the graph is quantised ({found}), export it in float" if (found := graph.quantized()) else ""
        raise refuse(source.path, f"no HiFi-GAN decoder that can be read: {error}{kind}") from None
    entries = {name: _entry(name, array) for name, array in decoder.tensors.items()}
    config, origins = _config(source, graph, decoder)
    state = canonical_state(source, config, entries)
    stored = min({entry.dtype for entry in entries.values()}, key=lambda dtype: dtype.itemsize)
    metadata = {"container": source.container, "producer": f"{graph.model.producer_name}"}
    checkpoint = Checkpoint(config, state, "onnx", metadata, origins=origins, stored=stored)
    return Voice(checkpoint, decoder, graph)


def _config(source: Source, graph: Graph, decoder: Decoder) -> tuple[HifiGanConfig, dict[str, Origin]]:
    """The configuration, that which `fastvoc.export` wrote where it did, and the origins of its fields."""
    stated = _stated(source.path, graph.metadata())
    if stated is not None:
        latent, rate, origins, mel = stated.latent, stated.sample_rate, dict[str, Origin](), stated.mel
    else:
        # A mel is what the caller gives; VITS's decoder has no last bias, and a latent even where it stands alone.
        latent = not decoder.given or decoder.speaker is not None or not decoder.values["post_bias"]
        rate, origins = _rate(source, graph)
        mel = _mel(source.path, graph.metadata())
    config = make_config(source.path, sample_rate=rate, latent=latent, mel=mel, **decoder.values)
    if stated is None:
        return config, origins
    for name, value in _structure(stated).items():
        if (found := _structure(config)[name]) != value:
            raise refuse(source.path, f"{name} is {value} in its metadata, its graph has {found}")
    return stated, origins


def _stated(path: Path, metadata: Mapping[str, str]) -> HifiGanConfig | None:
    """The configuration in a file of `fastvoc.export`, with its front end; None in any other file."""
    if metadata.get("family") != HifiGanConfig.family or "config" not in metadata:
        return None
    values = parse_json(metadata["config"].encode(), path)
    mel = _mel(path, metadata)
    try:
        return HifiGanConfig.from_dict(values if mel is None else {**values, "mel": mel.to_dict()})
    except (ArgumentError, TypeError, ValueError) as error:
        raise refuse(path, f"illegal configuration in its metadata: {error}") from None


def _mel(path: Path, metadata: Mapping[str, str]) -> MelConfig | None:
    if not metadata.get("mel", "").startswith("{"):
        return None
    try:
        return MelConfig.from_dict(parse_json(metadata["mel"].encode(), path))
    except ArgumentError as error:
        raise refuse(path, f"illegal front end in its metadata: {error}") from None


def _structure(config: HifiGanConfig) -> dict[str, object]:
    """The fields that a decoder in a graph shows, those with several forms in one of them."""
    unseen = "mel", "sample_rate", "latent", "mel_rounds"
    values = {name: value for name, value in config.to_dict().items() if name not in unseen}
    pads = [config.padding(stage) for stage in range(len(config.upsample_rates))]
    values["upsample_paddings"], values["upsample_output_paddings"] = [list(each) for each in zip(*pads, strict=True)]
    for name in ("leaky_relu_slope", "final_leaky_relu_slope"):
        values[name] = float(np.float32(values[name]))
    return values


def voice_json(path: Path) -> str:
    """The name of the JSON that Piper puts beside a voice."""
    return f"{path.name}.json"


def _rate(source: Source, graph: Graph) -> tuple[int, dict[str, Origin]]:
    if source.has(name := voice_json(source.path)):
        return source.json(name).sub("audio").integer("sample_rate"), {}
    stated = graph.metadata().get("sample_rate", "")
    if stated.isdecimal() and 0 < len(stated) < 8:
        return int(stated), {}
    return 22050, {"sample_rate": _ASSUMED}


def _entry(name: str, array: Array) -> TensorEntry:
    if array.dtype.kind != "f":
        return TensorEntry(name, array.shape, torch.int64, partial(torch.zeros, array.shape))  # refused by its type
    tensor = torch.from_numpy(array.copy())
    folded = array.dtype.itemsize == 8  # rounded once, at the end
    value = tensor.float() if folded else tensor
    return TensorEntry(name, tuple(array.shape), value.dtype, partial(_same, value))


def _same(tensor: Tensor) -> Tensor:
    return tensor
