"""Vocos: github.com/gemelo-ai/vocos's folders of `config.yaml` and `pytorch_model.bin`, and the drafts of Transformers.

The class paths in `config.yaml` are looked up here, never imported. What a file holds beside the model (the window and
filters of the front end, the window of the inverse transform, a whole EnCodec) is compared with what the model computes
with, or left out. The drafts (huggingface/transformers pull request 39403) are experimental: none was released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, make_mel, refuse
from fastvoc.checkpoints.constants import off_by
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed, rewritten
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.encodec_config import ENCODEC_24K, ENCODEC_48K
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.sound.mel import MelConfig, mel_filterbank

_MEL, _CODES = "vocos.feature_extractors.MelSpectrogramFeatures", "vocos.feature_extractors.EncodecFeatures"
_BACKBONE, _HEAD = "vocos.models.VocosBackbone", "vocos.heads.ISTFTHead"
# What each class is constructed with.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    _MEL: ("sample_rate", "n_fft", "hop_length", "n_mels", "padding"),
    _CODES: ("encodec_model", "bandwidths", "train_codebooks"),
    _BACKBONE: (
        "input_channels",
        "dim",
        "intermediate_dim",
        "num_layers",
        "layer_scale_init_value",
        "adanorm_num_embeddings",
    ),
    _HEAD: ("dim", "n_fft", "hop_length", "padding"),
}
_CODECS = {config.name: config for config in (ENCODEC_24K, ENCODEC_48K)}
_BANDWIDTHS = (1.5, 3.0, 6.0, 12.0)

_UPSTREAM = "backbone.convnext.0.pwconv1.weight"
_DRAFTS = ("layers.0.pwconv1.weight", "backbone.layers.0.pwconv1.weight")
_RENAMES = (
    (r"^(embed|norm|final_layer_norm|layers)\.", r"backbone.\1."),
    (r"^decoder\.", "head."),
    (r"^backbone\.layers\.", "backbone.convnext."),
    (r"^head\.out_proj\.", "head.out."),
    (r"^head\.window$", "head.istft.window"),
    (r"^codebook_weights$", "feature_extractor.codebook_weights"),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"\.scale\.weight$", ".weight"),
    (r"\.shift\.weight$", ".bias"),
)
EMBEDDED_CODEC = ("feature_extractor.encodec.", "encodec_model.")
_WINDOW = "head.istft.window"
_MEL_WINDOW = "feature_extractor.mel_spec.spectrogram.window"
_FILTERS = "feature_extractor.mel_spec.mel_scale.fb"
CONSTANTS = (_WINDOW, _MEL_WINDOW, _FILTERS)
# Filters of torchaudio in float32 differ by 1e-5 from ours; another scale or range differs by whole filters.
_CONSTANT_ERROR = 1e-3


def detect(source: Source) -> bool:
    return any(name in source.entries for name in (_UPSTREAM, *_DRAFTS))


def load(source: Source) -> Checkpoint:
    if _UPSTREAM in source.entries:
        fields = source.yaml("config.yaml")
        config, dialect, metadata = read_config(fields), "vocos", {}
        front = fields.sub("feature_extractor")
        says = "sample_rate" in (front.sub("init_args") if "init_args" in front else front)
        why = "that of the codec whose codes it takes" if config.num_codebooks else f"the default of {_MEL}"
    else:
        fields = source.json("config.json")
        layer_scale = any(name.endswith(".layer_scale_parameter") for name in source.entries)
        config = from_transformers(fields, source.entries, layer_scale)
        says, why = "sampling_rate" in fields or "sample_rate" in fields, "the default of the draft's VocosConfig"
        dialect, metadata = "transformers", {"status": "experimental: a draft that Transformers has not released"}
    entries = {n: e for n, e in source.entries.items() if not n.startswith(EMBEDDED_CODEC)}
    tensors = _without_constants(source, config, renamed(source, entries, canonical_name))
    metadata["container"] = source.container
    origins = {} if says else {"sample_rate": Origin("format", why)}
    return Checkpoint(config, canonical_state(source, config, tensors), dialect, metadata, origins=origins)


def canonical_name(name: str) -> str:
    """A tensor's name in any of the dialects under the name that `fastvoc.models.vocos` gives it."""
    return rewritten(name, _RENAMES)


def read_config(fields: Fields) -> VocosConfig:
    """The configuration in an upstream `config.yaml`. Raises LoadError for a class or a value that is not known."""
    kind, features = _class(fields, "feature_extractor", _MEL, _CODES)
    _, backbone = _class(fields, "backbone", _BACKBONE)
    _, head = _class(fields, "head", _HEAD)
    dim, hop = backbone.integer("dim"), head.integer("hop_length")
    if head.integer("dim") != dim:
        raise refuse(
            fields.path, f"field 'head.init_args.dim': expected the backbone's {dim}, got {head.integer('dim')}"
        )
    rows = backbone.integer("adanorm_num_embeddings") if "adanorm_num_embeddings" in backbone else None
    values: dict[str, Any] = {
        "input_channels": backbone.integer("input_channels"),
        "dim": dim,
        "intermediate_dim": backbone.integer("intermediate_dim"),
        "num_layers": backbone.integer("num_layers"),
        "adanorm_num_embeddings": rows,
        "n_fft": head.integer("n_fft"),
        "hop_length": hop,
        "padding": head.text("padding", "same"),
    }
    if kind == _MEL:
        rate = features.integer("sample_rate", 24000)
        n_fft, step, bands = (
            features.integer(*pair) for pair in (("n_fft", 1024), ("hop_length", 256), ("n_mels", 100))
        )
        mel = _mel(features, rate, n_fft, step, bands, features.text("padding", "center"))
        # A front end of another frame rate made the mels elsewhere.
        values |= {"sample_rate": rate, "mel": mel if (step, bands) == (hop, values["input_channels"]) else None}
        return config_of(fields, values)
    name = features.text("encodec_model", ENCODEC_24K.name)
    if name not in _CODECS:
        raise refuse(fields.path, f"encodec_model {name!r}, expected one of {', '.join(_CODECS)}")
    bandwidths = features.numbers("bandwidths", _BANDWIDTHS)
    values |= {"sample_rate": _CODECS[name].sample_rate, **_books(fields, name, bandwidths)}
    return config_of(fields, values | {"bandwidths": bandwidths if len(bandwidths) == rows else ()})


def from_transformers(fields: Fields, entries: Mapping[str, TensorEntry], layer_scale: bool) -> VocosConfig:
    """The configuration in a draft's `config.json`, under the names of any of its revisions."""

    def integer(default: int, *names: str) -> int:
        return fields.integer(next((name for name in names if name in fields), names[0]), default)

    activation = fields.text("hidden_act", "gelu")
    if activation != "gelu":
        raise refuse(fields.path, f"field 'hidden_act': expected gelu, got {activation!r}")
    kernel = fields.integer("kernel_size", 7)
    if fields.integer("padding", 3) != kernel // 2:
        raise refuse(fields.path, f"field 'padding': expected {kernel // 2} for kernels of {kernel}")
    adaptive = len(entries.get("norm.weight", entries.get("backbone.norm.weight", _SCALAR)).shape) == 2
    codes = "codebook_weights" in entries
    bands = integer(128 if codes else 100, "n_mels", "input_channels")
    rate = integer(24000, "sampling_rate", "sample_rate")
    bandwidths = fields.numbers("bandwidths", _BANDWIDTHS)
    values: dict[str, Any] = {
        "sample_rate": rate,
        "input_channels": bands,
        "dim": integer(384 if codes else 512, "hidden_size", "hidden_dim"),
        "intermediate_dim": integer(1152 if codes else 1536, "intermediate_size", "intermediate_dim"),
        "num_layers": fields.integer("num_layers", 8),
        "kernel_size": kernel,
        "layer_norm_eps": fields.number("layer_norm_eps", 1e-6),
        "layer_scale": layer_scale,
        "adanorm_num_embeddings": len(bandwidths) if adaptive else None,
        "bandwidths": bandwidths if adaptive else (),
        "n_fft": integer(1280 if codes else 1024, "n_fft"),
        "hop_length": integer(320 if codes else 256, "hop_length"),
        "padding": _padding(fields, "same" if codes else "center"),
    }
    if codes:
        return config_of(fields, values | _books(fields, ENCODEC_24K.name, bandwidths))
    if not adaptive:
        values["mel"] = _mel(fields, rate, values["n_fft"], values["hop_length"], bands, values["padding"])
    return config_of(fields, values)


_SCALAR = TensorEntry("", (), torch.float32, lambda: torch.zeros((), dtype=torch.float32, device="cpu"))


def _class(fields: Fields, section: str, *known: str) -> tuple[str, Fields]:
    """The class that a section names, one of those known, and what it is constructed with."""
    part = fields.sub(section)
    path = part.text("class_path")
    if path not in known:
        raise refuse(fields.path, f"{section}.class_path {path!r}, expected {' or '.join(known)}")
    arguments = part.sub("init_args") if "init_args" in part else Fields({}, fields.path)
    unknown = sorted(set(map(str, arguments.values)) - set(_ARGUMENTS[path]))
    if unknown:
        raise refuse(fields.path, f"{section}.init_args: {path} has no {unknown[0]!r}")
    return path, arguments


def _padding(fields: Fields, default: str) -> str:
    return fields.text("istft_padding" if "istft_padding" in fields else "spec_padding", default)


def _mel(fields: Fields, rate: int, n_fft: int, hop: int, bands: int, padding: str) -> MelConfig:
    if padding not in ("center", "same"):
        raise refuse(fields.path, f"padding {padding!r}, expected center or same")
    return make_mel(
        fields.path,
        sample_rate=rate,
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=hop,
        n_mels=bands,
        scale="htk",
        norm=None,
        floor=1e-7,
        magnitude_eps=0.0,
        pad="center" if padding == "center" else "reflect_hop",
    )


def _books(fields: Fields, codec: str, bandwidths: tuple[float, ...]) -> dict[str, int]:
    """As many codebooks as the highest bandwidth takes."""
    if not bandwidths or not all(0 < b < 1e6 for b in bandwidths):
        raise refuse(fields.path, f"bandwidths {list(bandwidths)}, expected positive numbers")
    return {"num_codebooks": _CODECS[codec].codebooks(max(bandwidths)), "codebook_size": _CODECS[codec].bins}


def config_of(fields: Fields, values: dict[str, Any]) -> VocosConfig:
    """A configuration of values from a file. Raises LoadError for an illegal one."""
    try:
        return VocosConfig(**values)
    except ArgumentError as error:
        raise refuse(fields.path, f"illegal configuration: {error}") from None


def constants(config: VocosConfig) -> dict[str, Callable[[], Tensor]]:
    """What upstream's files hold of the transforms, by name: what the model computes with."""
    known: dict[str, Callable[[], Tensor]] = {
        _WINDOW: lambda: torch.hann_window(config.n_fft, dtype=torch.float32, device="cpu")
    }
    mel = config.mel
    if mel is not None:
        known[_MEL_WINDOW] = lambda: torch.hann_window(mel.n_fft, dtype=torch.float32, device="cpu")
        known[_FILTERS] = lambda: mel_filterbank(mel).T
    return known


def constant_problem(name: str, value: Tensor, config: VocosConfig) -> str | None:
    """None when a constant of a file is the one that the model computes with, otherwise how it differs."""
    if name not in constants(config):
        return None
    expected = constants(config)[name]()
    if value.shape != expected.shape or not value.is_floating_point():
        return f"is {list(value.shape)} of {value.dtype}, the configuration needs {list(expected.shape)}"
    difference = off_by(value, expected, _CONSTANT_ERROR)
    if difference is None:
        return None
    return f"is not the configuration's {'filters' if name == _FILTERS else 'Hann window'}: off by {difference:.3g}"


def _without_constants(
    source: Source, config: VocosConfig, tensors: Mapping[str, TensorEntry]
) -> dict[str, TensorEntry]:
    kept = dict(tensors)
    for name in CONSTANTS:
        entry = kept.pop(name, None)
        if entry is None or name not in constants(config):
            continue
        # Only what has the right size is read.
        fits = entry.shape == tuple(constants(config)[name]().shape)
        value = entry.read() if fits else torch.empty(entry.shape, dtype=entry.dtype, device="meta")
        if problem := constant_problem(name, value, config):
            raise refuse(source.path, f"tensor {entry.name!r} {problem}")
    return kept
