"""Hugging Face Transformers: `SpeechT5HifiGan`, `FastSpeech2ConformerHifiGan`, and the vocoder inside
`FastSpeech2ConformerWithHifiGan`. Folders of `config.json` and `model.safetensors` or `pytorch_model.bin`.
"""

from __future__ import annotations

from typing import Any

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, make_config, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.hub.download import published
from fastvoc.sound.mel import SPEECHT5_16K

# What the class assumes, by model_type.
_SPEECHT5 = {"rates": (4, 4, 4, 4), "kernels": (8, 8, 8, 8), "sample_rate": 16000, "mel": SPEECHT5_16K}
_CONFORMER = {"rates": (8, 8, 2, 2), "kernels": (16, 16, 4, 4), "sample_rate": 22050, "mel": None}
_MODELS: dict[str, dict[str, Any]] = {
    "speecht5_hifigan": _SPEECHT5,
    "fastspeech2_conformer_hifigan": _CONFORMER,
    "fastspeech2_conformer_with_hifigan": _CONFORMER,
}
# A vocoder as a part of a model: what its tensors' names begin with, and where its fields are.
_PART, _SECTION = "vocoder.", "vocoder_config"
# Before version 5 both classes had the model_type "hifigan", and only the architecture tells them apart.
_ARCHITECTURES = {
    "SpeechT5HifiGan": "speecht5_hifigan",
    "FastSpeech2ConformerHifiGan": "fastspeech2_conformer_hifigan",
}


def detect(source: Source) -> bool:
    return any(name.startswith(("upsampler.", f"{_PART}upsampler.")) for name in source.entries)


def load(source: Source) -> Checkpoint:
    fields = source.json("config.json")
    model_type = fields.text("model_type")
    if model_type == "hifigan":
        model_type = _ARCHITECTURES.get(fields.texts("architectures")[0], model_type)
    if model_type not in _MODELS:
        raise refuse(fields.path, f"model_type {model_type!r}, expected one of {', '.join(_MODELS)}")
    defaults = _MODELS[model_type]
    prefix = _PART if any(name.startswith(_PART) for name in source.entries) else ""
    fields = fields.sub(_SECTION) if prefix and _SECTION in fields.values else fields
    normalize = fields.flag("normalize_before", True)
    config = make_config(
        fields.path,
        sample_rate=fields.integer("sampling_rate", defaults["sample_rate"]),
        num_mels=fields.integer("model_in_dim", 80),
        upsample_rates=fields.integers("upsample_rates", defaults["rates"]),
        upsample_kernel_sizes=fields.integers("upsample_kernel_sizes", defaults["kernels"]),
        upsample_initial_channel=fields.integer("upsample_initial_channel", 512),
        resblock="1",
        resblock_kernel_sizes=fields.integers("resblock_kernel_sizes", (3, 7, 11)),
        resblock_dilation_sizes=fields.rows("resblock_dilation_sizes", ((1, 3, 5),) * 3),
        post_bias=f"{prefix}conv_post.bias" in source.entries,
        leaky_relu_slope=fields.number("leaky_relu_slope", 0.1),
        normalize_before=normalize,
        # Without statistics the input is normalised by the acoustic model already.
        mel=defaults["mel"] if normalize and fields.integer("model_in_dim", 80) == 80 else None,
    )
    entries = source.with_prefix(prefix)
    if not normalize:
        # The class has these buffers in any case.
        entries = {name: entry for name, entry in entries.items() if name not in ("mean", "scale")}
    tensors = renamed(source, entries, lambda name: name.replace("upsampler.", "ups.", 1))
    known = published(source.path, "hifigan")
    named = None if known is None else Origin("name", known.repo)
    origins = {"mel": named or Origin("assumed", "config.json does not say it; that of SpeechT5FeatureExtractor")}
    if "sampling_rate" not in fields:
        origins["sample_rate"] = Origin("format", f"the default of model_type {model_type}")
    state = canonical_state(source, config, tensors)
    return Checkpoint(config, state, "transformers", {"model_type": model_type}, origins=origins)
