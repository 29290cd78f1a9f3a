"""Drafts of HiFTNet for Hugging Face Transformers (pull request 38756), experimental: their names may still change.

HiFTNetModel: `config.json` of model_type `hiftnet`, the generator's own names under `hiftnet.` or flat.
HiFTNetVocoder: names of its own, converted from Chatterbox, whose constants it has; only the widths may differ.
"""

from __future__ import annotations

import re

import torch

from fastvoc.checkpoints.chatterbox import CONSTANTS
from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, refuse
from fastvoc.checkpoints.constants import off_by
from fastvoc.checkpoints.hift_names import SIGNATURE, canonical_names, hift_config, sizes
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed, rewritten
from fastvoc.checkpoints.text import Fields
from fastvoc.models.hift_config import CHATTERBOX, COSYVOICE1, HiftConfig

_PREFIX = "hiftnet."
_BUFFER, _WINDOW_ERROR = "stft_window", 1e-3
_VOCODER = ("model.source_generator.linear.weight", "model.m_source.l_linear.weight")
_BLOCKS = 3  # residual blocks a stage
# The second draft in both of its namings.
_STAGE, _LAYER = r"^model\.layers\.(\d{1,3})\.", r"layers\.(\d{1,3})\."
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^fundamental_frequency_predictor\.linear\.", "f0_predictor.classifier."),
        (r"^fundamental_frequency_predictor\.", "f0_predictor."),
        (r"^model\.source_generator\.linear\.", "m_source.l_linear."),
        (r"^model\.(m_source|conv_pre|conv_post)\.", r"\1."),
        (r"^model\.input_conv\.", "conv_pre."),
        (r"^model\.output_conv\.", "conv_post."),
        (_STAGE + r"up\.", r"ups.\1."),
        (_STAGE + r"(?:nsf|noise)_conv\.", r"source_downs.\1."),
        (_STAGE + r"(?:nsf|noise)_res\.", r"source_resblocks.\1."),
        (_STAGE + r"(?:multi_receptive_field_fusion|resblocks)\.(\d{1,3})\.", r"resblocks.\1+\2."),
    )
)
_PARTS = (
    (re.compile(_LAYER + r"conv([12])\."), r"convs\2.\1."),
    (re.compile(_LAYER + r"(?:snake_activation_([12])\.alpha|alpha([12]))$"), r"activations\2\3.\1.alpha"),
)
_NUMBER = re.compile(r"^resblocks\.(\d+)\+(\d+)\.")


def detect(source: Source) -> bool:
    return any(name in source.entries for name in _VOCODER) or _is_model(source)


def load(source: Source) -> Checkpoint:
    metadata = {"container": source.container, "status": "experimental: a draft of transformers"}
    if _is_model(source):
        prefix = _PREFIX if _PREFIX + SIGNATURE in source.entries else ""
        tensors, fields = source.with_prefix(prefix), source.json("config.json")
        config = _config(fields)
        _check_window(source, config, tensors.pop(_BUFFER, None))
        origins = {"mel": Origin("assumed", "config.json does not say it; CosyVoice's for this rate")}
        if "sampling_rate" not in fields:
            origins["sample_rate"] = Origin("format", "the default of the draft's HiFTNetConfig")
    else:
        origins = dict(CONSTANTS)
        tensors = renamed(source, source.entries, canonical_name)
        config = hift_config(source.path, CHATTERBOX, mel=CHATTERBOX.mel, **sizes(source.path, tensors))
    state = canonical_state(source, config, canonical_names(tensors))
    return Checkpoint(config, state, "hiftnet_transformers", metadata, origins=origins)


def _check_window(source: Source, config: HiftConfig, entry: TensorEntry | None) -> None:
    """Raises LoadError for a window of the inverse STFT that is not the Hann window that the model computes with."""
    if entry is None:
        return
    if entry.shape != (config.n_fft,) or not entry.dtype.is_floating_point:
        claim = f"tensor {entry.name!r} is {list(entry.shape)} of {entry.dtype}"
        raise refuse(source.path, f"{claim}, expected a window [{config.n_fft}]")
    difference = off_by(entry.read(), torch.hann_window(config.n_fft, dtype=torch.float32, device="cpu"), _WINDOW_ERROR)
    if difference is not None:
        raise refuse(source.path, f"tensor {entry.name!r} is not the Hann window: off by {difference:.3g}")


def _is_model(source: Source) -> bool:
    if _PREFIX + SIGNATURE in source.entries:
        return True
    flat = SIGNATURE in source.entries and "source_downs.0.bias" in source.entries
    return flat and source.has("config.json") and source.json("config.json").get("model_type") == "hiftnet"


def _config(fields: Fields) -> HiftConfig:
    # The class's defaults: CosyVoice 1 in all but the rates, and the sine generator that adds up samples.
    rate = fields.integer("sampling_rate", 22050)
    mels = fields.integer("in_channels", 80)
    if fields.integer("f0_predictor_in_channels", mels) != mels:
        raise refuse(fields.path, f"field 'f0_predictor_in_channels': expected in_channels, {mels}")
    return hift_config(
        fields.path,
        COSYVOICE1,
        mel=COSYVOICE1.mel if rate == COSYVOICE1.sample_rate else CHATTERBOX.mel,
        sample_rate=rate,
        num_mels=mels,
        base_channels=fields.integer("base_channels", 512),
        harmonics=fields.integer("nb_harmonics", 8),
        source_amp=fields.number("nsf_alpha", 0.1),
        noise_std=fields.number("nsf_sigma", 0.003),
        voiced_threshold=fields.number("nsf_voiced_threshold", 10.0),
        upsample_rates=fields.integers("upsample_rates", (8, 8)),
        upsample_kernel_sizes=fields.integers("upsample_kernel_sizes", (16, 16)),
        n_fft=fields.integer("istft_n_fft", 16),
        istft_hop=fields.integer("istft_hop_len", 4),
        resblock_kernel_sizes=fields.integers("resblock_kernel_sizes", (3, 7, 11)),
        resblock_dilation_sizes=fields.rows("resblock_dilation_sizes", ((1, 3, 5),) * 3),
        source_resblock_kernel_sizes=fields.integers("source_resblock_kernel_sizes", (7, 11)),
        source_resblock_dilation_sizes=fields.rows("source_resblock_dilation_sizes", ((1, 3, 5),) * 2),
        leaky_relu_slope=fields.number("lrelu_slope", 0.1),
        clamp=fields.number("audio_limit", 0.99),
        f0_channels=fields.integer("f0_predictor_cond_channels", 512),
    )


def canonical_name(name: str) -> str:
    """A name of the second draft in CosyVoice's words; any other name as it is."""
    for pattern, replacement in _RULES:
        changed = pattern.sub(replacement, name)
        if changed != name:
            name = changed
            break
    name = _NUMBER.sub(lambda m: f"resblocks.{int(m[1]) * _BLOCKS + int(m[2])}.", name)
    return rewritten(name, _PARTS)
