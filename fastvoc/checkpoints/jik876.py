"""github.com/jik876/hifi-gan: `g_XXXXXXXX` and `generator_v*` with `config.json` beside them; also FastSpeech 2's zips.

Weights come as weight norm in either of torch's namings or already folded, wrapped in {"generator": ...} or not.
"""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, make_config, make_mel
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import MelConfig

_WRAPPER = "generator."
_MEL_FIELDS = ("n_fft", "win_size", "hop_size", "fmin")


def detect(source: Source) -> bool:
    return any(name.startswith(("conv_pre.", f"{_WRAPPER}conv_pre.")) for name in source.entries)


def load(source: Source) -> Checkpoint:
    wrapped = any(name.startswith(_WRAPPER) for name in source.entries)
    tensors = source.with_prefix(_WRAPPER if wrapped else "")
    config = generator_config(source.json("config.json"), "conv_post.bias" in tensors)
    return Checkpoint(config, canonical_state(source, config, tensors), "jik876", {"container": source.container})


def generator_config(fields: Fields, post_bias: bool = True) -> HifiGanConfig:
    """The configuration that the fields of `config.json` describe. Raises LoadError naming a bad one.

    `post_bias`: whether the last convolution has a bias, which no field says.
    """
    return make_config(
        fields.path,
        sample_rate=fields.integer("sampling_rate"),
        num_mels=fields.integer("num_mels"),
        upsample_rates=fields.integers("upsample_rates"),
        upsample_kernel_sizes=fields.integers("upsample_kernel_sizes"),
        upsample_initial_channel=fields.integer("upsample_initial_channel"),
        # Upstream compares with the text "1"; anything else is its second kind of block.
        resblock="1" if fields.values.get("resblock") == "1" else "2",
        resblock_kernel_sizes=fields.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=fields.rows("resblock_dilation_sizes"),
        post_bias=post_bias,
        mel=mel_front_end(fields),
        mel_rounds=fields.integer("mel_rounds", 0),
    )


def mel_front_end(fields: Fields) -> MelConfig | None:
    """The front end that a configuration of this layout describes; None where it leaves a part out.

    An fmax of null is half the rate; without the field it is not known.
    """
    if not all(name in fields for name in _MEL_FIELDS) or "fmax" not in fields.values:
        return None
    return make_mel(
        fields.path,
        sample_rate=fields.integer("sampling_rate"),
        n_fft=fields.integer("n_fft"),
        win_length=fields.integer("win_size"),
        hop_length=fields.integer("hop_size"),
        n_mels=fields.integer("num_mels"),
        f_min=fields.number("fmin"),
        f_max=fields.optional_number("fmax"),
    )
