"""HiFi-GAN and VITS decoders in ONNX files: exports of vocoders, and whole voices such as Piper's.

The decoder is found by its structure (`onnx_decoder`), with any names and whether weight norm was folded or not; what
lies before it in the graph is not read here. The rate is in the JSON of a Piper voice, `<file>.json`, or in the file's
own metadata.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, make_config, refuse
from fastvoc.checkpoints.onnx_decoder import Decoder, NoDecoderError, find_decoder
from fastvoc.checkpoints.onnx_graph import Array, Graph, read_graph
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state

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
    rate, origins = _rate(source, graph)
    # A mel is what the caller gives; VITS's decoder has no last bias, and a latent even where it stands alone.
    latent = not decoder.given or decoder.speaker is not None or not decoder.values["post_bias"]
    config = make_config(source.path, sample_rate=rate, latent=latent, mel=None, **decoder.values)
    state = canonical_state(source, config, entries)
    stored = min({entry.dtype for entry in entries.values()}, key=lambda dtype: dtype.itemsize)
    metadata = {"container": source.container, "producer": f"{graph.model.producer_name}"}
    checkpoint = Checkpoint(config, state, "onnx", metadata, origins=origins, stored=stored)
    return Voice(checkpoint, decoder, graph)


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
