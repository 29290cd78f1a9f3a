"""The generator of an RVC voice: a .pth with the weights of the whole model and the values that built it.

github.com/RVC-Project/Retrieval-based-Voice-Conversion-WebUI, versions 1 and 2. A voice made without pitch has a plain
HiFi-GAN in its place. The encoder is not looked at, but for the table of speakers.
"""

from __future__ import annotations

from typing import Any

from fastvoc.checkpoints.checkpoint import Checkpoint, TensorEntry, refuse
from fastvoc.checkpoints.hift_names import canonical_names, weight_shape
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.nsf_hifigan import NsfHifiGanConfig

_GENERATOR, _SPEAKERS = "weight.dec.", "weight.emb_g.weight"
# The constructor's arguments, in the order of the file's list; None: of no consequence here.
_ARGUMENTS = (
    *(None,) * 9,
    "resblock",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "upsample_rates",
    "upsample_initial_channel",
    "upsample_kernel_sizes",
    None,
    "gin_channels",
    "sr",
)
_RATES = {"32k": 32000, "40k": 40000, "48k": 48000}


def detect(source: Source) -> bool:
    return "config" in source.values and any(name.startswith(_GENERATOR) for name in source.entries)


def load(source: Source) -> Checkpoint:
    tensors = source.with_prefix(_GENERATOR)
    fields = _fields(source)
    pitched = any(name.startswith("m_source.") for name in tensors)
    tensors = canonical_names(tensors)
    if pitched:
        _check_source(source, tensors)
    gin = weight_shape(source.path, tensors, "cond", 3)[1] if any(n.startswith("cond.") for n in tensors) else 0
    if gin and _SPEAKERS in source.entries:
        tensors["emb_g.weight"] = source.entries[_SPEAKERS]
    values: dict[str, Any] = {
        "sample_rate": _rate(fields),
        "num_mels": weight_shape(source.path, tensors, "conv_pre", 3)[1],
        "upsample_rates": fields.integers("upsample_rates"),
        "upsample_kernel_sizes": fields.integers("upsample_kernel_sizes"),
        "upsample_initial_channel": fields.integer("upsample_initial_channel"),
        # Upstream compares with the text "1"; anything else is its second kind of block.
        "resblock": "1" if fields.get("resblock") == "1" else "2",
        "resblock_kernel_sizes": fields.integers("resblock_kernel_sizes"),
        "resblock_dilation_sizes": fields.rows("resblock_dilation_sizes"),
        "post_bias": "conv_post.bias" in tensors,
        "latent": True,
        "gin_channels": gin,
        "num_speakers": weight_shape(source.path, tensors, "emb_g", 2)[0] if "emb_g.weight" in tensors else 0,
    }
    try:
        config = NsfHifiGanConfig(**values) if pitched else HifiGanConfig(**values)
    except ArgumentError as error:
        raise refuse(source.path, f"illegal configuration: {error}") from None
    metadata = {"container": source.container}
    metadata |= {name: str(source.values[name]) for name in ("version", "info") if name in source.values}
    return Checkpoint(config, canonical_state(source, config, tensors), "rvc", metadata)


def _fields(source: Source) -> Fields:
    """The file's list of values, by the names of the arguments that they are."""
    config = source.values["config"]
    if not isinstance(config, list | tuple) or len(config) != len(_ARGUMENTS):
        got = f"{len(config)} values" if isinstance(config, list | tuple) else type(config).__name__
        raise refuse(source.path, f"field 'config': expected a list of {len(_ARGUMENTS)} values, got {got}")
    named = {name: value for name, value in zip(_ARGUMENTS, config, strict=True) if name is not None}
    return Fields(named, source.path, "config: ")


def _rate(fields: Fields) -> int:
    """The last of the values: a rate in Hz, or as older files have it, a text such as 40k."""
    rate = fields.get("sr")
    if isinstance(rate, str):
        if rate not in _RATES:
            raise refuse(fields.path, f"field 'config: sr': expected a rate in Hz or {', '.join(_RATES)}, got {rate!r}")
        return _RATES[rate]
    return fields.integer("sr")


def _check_source(source: Source, tensors: dict[str, TensorEntry]) -> None:
    entry = tensors.get("m_source.weight")
    if entry is not None and entry.shape != (1,):
        raise refuse(source.path, f"tensor {entry.name!r} {list(entry.shape)}: RVC's source has one sine")
