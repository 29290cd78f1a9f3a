"""EnCodec: github.com/facebookresearch/encodec's `.th` files and Hugging Face Transformers' folders.

A published `.th` is a bare state with no configuration: its sizes show in its tensors, its kind and rate in its name,
whose hash is checked. A `config.json` beside it with the constructors' values says it all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil, log2, prod
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, refuse
from fastvoc.checkpoints.encodec_shapes import recognised
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed, rewritten
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.runtime.io import file_sha256

_ORIGINAL, _TRANSFORMERS = "encoder.model.0.conv.conv.", "encoder.layers.0.conv."
_RENAMES = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(?:conv\.conv|convtr\.convtr)\.", ".conv."),
    (r"\.(?:conv|convtr)\.norm\.", ".norm."),
    (r"^((?:encoder|decoder)\.layers\.\d+)\.lstm\.", r"\1."),
    (r"\.block\.1\.(conv|norm)\.", r".\g<1>1."),
    (r"\.block\.3\.(conv|norm)\.", r".\g<1>2."),
    (r"\.shortcut\.conv\.", ".shortcut."),
    (r"\.shortcut\.norm\.", ".norm_shortcut."),
    (r"^quantizer\.(?:vq\.)?layers\.(\d+)\._?codebook\.embed$", r"quantizer.codebooks.\1"),
)
_TO_TRANSFORMERS = (
    (r"\.((?:weight|bias)_[ih]h_l\d+)$", r".lstm.\1"),
    (r"\.(conv|norm)1\.", r".block.1.\1."),
    (r"\.(conv|norm)2\.", r".block.3.\1."),
    (r"\.shortcut\.", ".shortcut.conv."),
    (r"\.norm_shortcut\.", ".shortcut.norm."),
)
_STATISTICS = re.compile(r"^quantizer\.(?:vq\.)?layers\.\d+\._?codebook\.(?:embed_avg|cluster_size|inited)$")
_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.th$")
_PAD_MODES = {"constant": "zeros"}


def detect(source: Source) -> bool:
    return any(name.startswith((_ORIGINAL, _TRANSFORMERS)) for name in source.entries)


def load(source: Source) -> Checkpoint:
    check_hash(source.path)
    # The statistics of the codebooks serve training only.
    entries = {name: entry for name, entry in source.entries.items() if not _STATISTICS.search(name)}
    tensors = renamed(source, entries, canonical_name)
    if any(name.startswith(_TRANSFORMERS) for name in source.entries):
        fields = source.json("config.json")
        config, dialect = from_transformers(fields), "transformers"
        default = Origin("format", "the default of transformers.EncodecConfig")
        origins = {} if "sampling_rate" in fields else {"sample_rate": default}
    else:
        (config, origins), dialect = _of_original(source, tensors), "encodec"
    state = canonical_state(source, config, tensors)
    return Checkpoint(config, state, dialect, {"container": source.container}, origins=origins)


def canonical_name(name: str) -> str:
    """A tensor's name in either dialect under the name that `fastvoc.models.encodec` gives its layer."""
    return rewritten(name, _RENAMES)


def canonical_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of either dialect under the model's names, weight norm as it is, without what only training needs."""
    return {canonical_name(name): value for name, value in state.items() if not _STATISTICS.search(name)}


def transformers_state(state: Mapping[str, Tensor], config: EncodecConfig) -> dict[str, Tensor]:
    """The state of `fastvoc.models.encodec` under Transformers' names, with weight norm where it has it."""
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        if match := re.fullmatch(r"quantizer\.codebooks\.(\d+)", name):
            book = f"quantizer.layers.{match[1]}.codebook"
            named |= {f"{book}.embed": value, f"{book}.embed_avg": value.clone(), f"{book}.inited": value.new_ones(1)}
            named[f"{book}.cluster_size"] = value.new_zeros(len(value))
            continue
        name = rewritten(name, _TO_TRANSFORMERS)
        if config.norm == "weight_norm" and name.endswith(".conv.weight"):
            named[f"{name}_g"] = value.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            named[f"{name}_v"] = value
        else:
            named[name] = value
    return named


def check_hash(path: Path) -> None:
    """Raises LoadError when the file's SHA-256 does not begin with the hash in its name, `name-d7cc33bc.th`."""
    stated = _HASHED_NAME.search(path.name)
    if stated and not (found := file_sha256(path)).startswith(stated[1]):
        raise refuse(path, f"damaged: its name says that its SHA-256 begins with {stated[1]}, it is {found}")


def _config(path: Path, **values: Any) -> EncodecConfig:
    try:
        return EncodecConfig(**values)
    except ArgumentError as error:
        raise refuse(path, f"illegal configuration: {error}") from None


def _pad_mode(fields: Fields) -> str:
    mode = fields.text("pad_mode", "reflect")
    return _PAD_MODES.get(mode, mode)


def _of_original(source: Source, tensors: Mapping[str, TensorEntry]) -> tuple[EncodecConfig, dict[str, Origin]]:
    if source.has("config.json"):
        fields = source.json("config.json")
        if "n_filters" in fields and "target_bandwidths" in fields:
            return _from_constructors(fields), {}
    return recognised(source, tensors)


def _from_constructors(fields: Fields) -> EncodecConfig:
    """The values of the original constructors under their own names."""
    return _config(
        fields.path,
        sample_rate=fields.integer("sample_rate"),
        channels=fields.integer("channels"),
        bandwidths=fields.numbers("target_bandwidths"),
        causal=fields.flag("causal"),
        norm=fields.text("norm"),
        normalize=fields.flag("normalize"),
        segment=fields.optional_number("segment"),
        overlap=fields.number("overlap", 0.01),
        n_filters=fields.integer("n_filters"),
        dimension=fields.integer("dimension"),
        ratios=fields.integers("ratios", (8, 5, 4, 2)),
        n_residual_layers=fields.integer("n_residual_layers", 1),
        kernel_size=fields.integer("kernel_size", 7),
        last_kernel_size=fields.integer("last_kernel_size", 7),
        residual_kernel_size=fields.integer("residual_kernel_size", 3),
        dilation_base=fields.integer("dilation_base", 2),
        compress=fields.integer("compress", 2),
        conv_shortcut=not fields.flag("true_skip", False),
        lstm=fields.integer("lstm", 2),
        pad_mode=_pad_mode(fields),
        trim_right_ratio=fields.number("trim_right_ratio", 1.0),
        n_q=fields.integer("n_q"),
        bins=fields.integer("bins", 1024),
    )


def from_transformers(fields: Fields) -> EncodecConfig:
    """The configuration in the fields of Transformers' own, 4.31 to 5, with its defaults. Raises LoadError."""
    model_type = fields.text("model_type")
    if model_type != "encodec":
        raise refuse(fields.path, f"model_type {model_type!r}, expected encodec")
    hidden, bins = fields.integer("hidden_size", 128), fields.integer("codebook_size", 1024)
    if fields.integer("codebook_dim", hidden) != hidden:
        raise refuse(fields.path, f"field 'codebook_dim': expected the hidden_size, {hidden}")
    if bins < 2 or bins & (bins - 1):
        raise refuse(fields.path, f"field 'codebook_size': expected a power of two, got {bins}")
    rate, ratios = fields.integer("sampling_rate", 24000), fields.integers("upsampling_ratios", (8, 5, 4, 2))
    bandwidths = fields.numbers("target_bandwidths", (1.5, 3.0, 6.0, 12.0, 24.0))
    if not (rate and bandwidths and 0 < len(ratios) <= 8 and all(ratios)):
        names = "'sampling_rate', 'target_bandwidths', 'upsampling_ratios'"
        raise refuse(fields.path, f"fields {names}: expected positive numbers, and at most 8 ratios")
    segment = fields.optional_number("chunk_length_s")
    if segment is not None and "overlap" not in fields:
        raise refuse(fields.path, "field 'overlap' is missing; it goes with 'chunk_length_s'")
    return _config(
        fields.path,
        sample_rate=rate,
        channels=fields.integer("audio_channels", 1),
        bandwidths=bandwidths,
        causal=fields.flag("use_causal_conv", True),
        norm=fields.text("norm_type", "weight_norm"),
        normalize=fields.flag("normalize", False),
        segment=segment,
        overlap=fields.number("overlap", 0.01),
        n_filters=fields.integer("num_filters", 32),
        dimension=hidden,
        ratios=ratios,
        n_residual_layers=fields.integer("num_residual_layers", 1),
        kernel_size=fields.integer("kernel_size", 7),
        last_kernel_size=fields.integer("last_kernel_size", 7),
        residual_kernel_size=fields.integer("residual_kernel_size", 3),
        dilation_base=fields.integer("dilation_growth_rate", 2),
        compress=fields.integer("compress", 2),
        conv_shortcut=fields.flag("use_conv_shortcut", True),
        lstm=fields.integer("num_lstm_layers", 2),
        pad_mode=_pad_mode(fields),
        trim_right_ratio=fields.number("trim_right_ratio", 1.0),
        n_q=int(1000 * bandwidths[-1] // (ceil(rate / prod(ratios)) * int(log2(bins)))),
        bins=bins,
    )
