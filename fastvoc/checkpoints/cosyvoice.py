"""CosyVoice 1, 2 and 3 (github.com/FunAudioLLM/CosyVoice): `hift.pt` with `cosyvoice{,2,3}.yaml` beside it.

The names in the file are flat, or under `generator.` where GAN training saved it. The YAML's tags are read as data, and
which class it names is seen by the tensors: the causal generator's upsampling convolutions are not transposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry
from fastvoc.checkpoints.hift_names import SIGNATURE, canonical_names, hift_config, weight_shape
from fastvoc.checkpoints.jik876 import mel_front_end
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.models.hift_config import COSYVOICE1, COSYVOICE2, COSYVOICE3, HiftConfig

_PREFIX = "generator."
_CONFIGS = ("cosyvoice3.yaml", "cosyvoice2.yaml", "cosyvoice.yaml", "config.yaml")
_SUM_BY_SAMPLE = 22050  # upstream's source module has the first sine generator at this rate, the second at any other


def detect(source: Source) -> bool:
    return _prefix(source) is not None


def load(source: Source) -> Checkpoint:
    top = source.yaml(*_CONFIGS)
    top = Fields(top.values, top.path, names=top.values)
    fields = top.sub("hift")
    tensors = source.with_prefix(_prefix(source) or "")
    rate = fields.integer("sampling_rate")
    base = _published(source, tensors, rate)
    istft = fields.sub("istft_params")
    values = {
        "sample_rate": rate,
        "num_mels": fields.integer("in_channels", 80),
        "base_channels": fields.integer("base_channels", 512),
        "harmonics": fields.integer("nb_harmonics", 8),
        "source_amp": fields.number("nsf_alpha", 0.1),
        "noise_std": fields.number("nsf_sigma", 0.003),
        "voiced_threshold": fields.number("nsf_voiced_threshold", 10),
        "upsample_rates": fields.integers("upsample_rates"),
        "upsample_kernel_sizes": fields.integers("upsample_kernel_sizes"),
        "n_fft": istft.integer("n_fft"),
        "istft_hop": istft.integer("hop_len"),
        "resblock_kernel_sizes": fields.integers("resblock_kernel_sizes"),
        "resblock_dilation_sizes": fields.rows("resblock_dilation_sizes"),
        "source_resblock_kernel_sizes": fields.integers("source_resblock_kernel_sizes"),
        "source_resblock_dilation_sizes": fields.rows("source_resblock_dilation_sizes"),
        "leaky_relu_slope": fields.number("lrelu_slope", 0.1),
        "clamp": fields.number("audio_limit", 0.99),
        "f0_channels": fields.sub("f0_predictor").integer("cond_channels", 512),
    }
    if base.causal:
        values["lookahead"] = fields.integer("conv_pre_look_right", 4)
    mel, origins = base.mel, {"mel": Origin("assumed", f"{top.path.name} has no feat_extractor; the published one's")}
    if "feat_extractor" in top:
        mel, origins = mel_front_end(top.sub("feat_extractor")), {}
    config = hift_config(top.path, base, mel=mel, **values)
    state = canonical_state(source, config, canonical_names(tensors))
    return Checkpoint(config, state, "cosyvoice", {"container": source.container}, origins=origins)


def _prefix(source: Source) -> str | None:
    prefixes = (p for p in ("", _PREFIX) if {p + SIGNATURE, f"{p}source_downs.0.bias"} <= source.entries.keys())
    return next(prefixes, None)


def _published(source: Source, tensors: Mapping[str, TensorEntry], rate: int) -> HiftConfig:
    """The published configuration that has what the YAML does not say."""
    channels = weight_shape(source.path, tensors, "conv_pre", 3)[0]
    if weight_shape(source.path, tensors, "ups.0", 3)[0] != channels:
        return replace(COSYVOICE3, source="sample") if rate == _SUM_BY_SAMPLE else COSYVOICE3
    return COSYVOICE1 if rate == _SUM_BY_SAMPLE else COSYVOICE2
