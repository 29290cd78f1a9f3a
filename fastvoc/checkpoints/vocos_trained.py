"""Vocos of `fastvoc train`: `g_XXXXXXXX` and `ema_XXXXXXXX`, in {"generator": ...}, with `config.json` beside them."""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, refuse
from fastvoc.checkpoints.jik876 import mel_front_end
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.checkpoints.vocos import config_of
from fastvoc.models.vocos_config import VocosConfig

_WRAPPER = "generator."
_SIGN = f"{_WRAPPER}backbone.convnext.0.pwconv1.weight"


def detect(source: Source) -> bool:
    return _SIGN in source.entries


def load(source: Source) -> Checkpoint:
    config = _config(source.json("config.json"))
    tensors = canonical_state(source, config, source.with_prefix(_WRAPPER))
    return Checkpoint(config, tensors, "vocos-trained", {"container": source.container})


def _config(fields: Fields) -> VocosConfig:
    if (kind := fields.text("generator")) != "vocos":
        raise refuse(fields.path, f"field 'generator': expected vocos, whose tensors these are, got {kind!r}")
    values = {
        "sample_rate": fields.integer("sampling_rate"),
        "input_channels": fields.integer("num_mels"),
        "dim": fields.integer("dim"),
        "intermediate_dim": fields.integer("intermediate_dim"),
        "num_layers": fields.integer("num_layers"),
        "n_fft": fields.integer("n_fft"),
        "hop_length": fields.integer("hop_size"),
        "padding": "same",
        "mel_skip": fields.flag("mel_skip"),
        "phase_rounds": fields.integer("phase_rounds", 0),
        "mel": mel_front_end(fields),
    }
    return config_of(fields, values)
