"""github.com/NVIDIA/BigVGAN: `bigvgan_generator.pt` or `g_XXXXXXXX` with `config.json` beside it.

Weights come as weight norm in either of torch's namings or already folded, wrapped in {"generator": ...} or not; the
low-pass filters lie in the file as buffers.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fastvoc.checkpoints.checkpoint import Checkpoint, TensorEntry, refuse
from fastvoc.checkpoints.constants import off_by
from fastvoc.checkpoints.jik876 import mel_front_end
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.bigvgan import BigVganConfig
from fastvoc.ops.snake_aa import TAPS, kaiser_sinc

_WRAPPER = "generator."
_FILTERS = (".upsample.filter", ".downsample.lowpass.filter")
FILTER_ERROR = 1e-5


def detect(source: Source) -> bool:
    return any(name in source.entries for name in ("activation_post.act.alpha", f"{_WRAPPER}activation_post.act.alpha"))


def load(source: Source) -> Checkpoint:
    config = generator_config(source.json("config.json"))
    wrapped = any(name.startswith(_WRAPPER) for name in source.entries)
    tensors = _without_filters(source, source.with_prefix(_WRAPPER if wrapped else ""))
    tensors = renamed(source, tensors, canonical_name)
    return Checkpoint(config, canonical_state(source, config, tensors), "bigvgan", {"container": source.container})


def generator_config(fields: Fields) -> BigVganConfig:
    """The configuration that the fields of `config.json` describe. Raises LoadError naming a bad one."""
    mel = mel_front_end(fields)
    try:
        config = BigVganConfig(
            sample_rate=fields.integer("sampling_rate"),
            num_mels=fields.integer("num_mels"),
            upsample_rates=fields.integers("upsample_rates"),
            upsample_kernel_sizes=fields.integers("upsample_kernel_sizes"),
            upsample_initial_channel=fields.integer("upsample_initial_channel"),
            resblock=fields.text("resblock"),
            resblock_kernel_sizes=fields.integers("resblock_kernel_sizes"),
            resblock_dilation_sizes=fields.rows("resblock_dilation_sizes"),
            activation=fields.text("activation"),
            snake_logscale=fields.flag("snake_logscale"),
            # Version 1 has neither field.
            use_tanh_at_final=fields.flag("use_tanh_at_final", True),
            use_bias_at_final=fields.flag("use_bias_at_final", True),
        )
        if mel is not None and mel.hop_length == config.hop:
            config = replace(config, mel=mel)
    except ArgumentError as error:
        raise refuse(fields.path, f"illegal configuration: {error}") from None
    return config


def canonical_name(name: str) -> str:
    """Upstream's name of a parameter -> ours."""
    return re.sub(r"^(ups\.\d+)\.0\.", r"\1.", name).replace(".act.", ".", 1)


def filter_owner(name: str) -> str | None:
    """The activation whose filter has this name; None for any other tensor's."""
    return next((name.removesuffix(end) for end in _FILTERS if name.endswith(end)), None)


def _without_filters(source: Source, entries: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Leaves out the filters of known activations. Raises LoadError for one that is not the published filter."""
    kept, published = {}, kaiser_sinc()
    for name, entry in entries.items():
        owner = filter_owner(name)
        if owner is None or f"{owner}.act.alpha" not in entries:
            kept[name] = entry
            continue
        if entry.shape != (1, 1, TAPS) or not entry.dtype.is_floating_point:
            claim = f"tensor {entry.name!r} is {list(entry.shape)} of {entry.dtype}"
            raise refuse(source.path, f"{claim}, expected the filter [1, 1, {TAPS}]")
        difference = off_by(entry.read().flatten(), published, FILTER_ERROR)
        if difference is not None:
            raise refuse(source.path, f"tensor {entry.name!r} is not the published filter: off by {difference:.3g}")
    return kept
