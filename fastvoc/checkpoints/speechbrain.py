"""SpeechBrain (github.com/speechbrain/speechbrain): `generator.ckpt` with `hyperparams.yaml` beside it.

Its convolutions pad by reflection. The YAML's `!new:` and `!ref` tags are read as data; only `!ref <name>` is followed.
"""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, make_config, make_mel
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.text import Fields
from fastvoc.mel import MelConfig

_RECIPE_RATE = 22050


def detect(source: Source) -> bool:
    return any(name.startswith("conv_pre.conv.") for name in source.entries)


def load(source: Source) -> Checkpoint:
    top = source.yaml("hyperparams.yaml", "train.yaml")
    generator = top.values.get("generator")
    values = {**top.values, **generator} if isinstance(generator, dict) else dict(top.values)
    fields = Fields(values, top.path, names=top.values)
    stated = "sample_rate" in fields
    config = make_config(
        fields.path,
        # The published inference files leave the rate to the recipe.
        sample_rate=fields.integer("sample_rate", _RECIPE_RATE),
        num_mels=fields.integer("in_channels"),
        upsample_rates=fields.integers("upsample_factors"),
        upsample_kernel_sizes=fields.integers("upsample_kernel_sizes"),
        upsample_initial_channel=fields.integer("upsample_initial_channel"),
        resblock="1" if fields.get("resblock_type") == "1" else "2",
        resblock_kernel_sizes=fields.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=fields.rows("resblock_dilation_sizes"),
        post_bias=fields.flag("conv_post_bias", True),
        pad_mode="reflect",
        mel=_mel(fields),
    )
    tensors = renamed(source, source.entries, lambda name: name.replace(".conv.", ".", 1))
    metadata = {"sample_rate": "stated" if stated else f"not stated, the recipe's {_RECIPE_RATE} Hz assumed"}
    return Checkpoint(config, canonical_state(source, config, tensors), "speechbrain", metadata)


def _mel(fields: Fields) -> MelConfig:
    return make_mel(
        fields.path,
        sample_rate=fields.integer("sample_rate", _RECIPE_RATE),
        n_fft=fields.integer("n_fft", 1024),
        win_length=fields.integer("win_length", 1024),
        hop_length=fields.integer("hop_length", 256),
        n_mels=fields.integer("in_channels"),
        f_min=fields.number("mel_fmin", 0.0),
        f_max=fields.optional_number("mel_fmax", 8000.0),
        magnitude_eps=0.0,
        pad="center",
    )
