"""Hugging Face Transformers: `UnivNetModel`, a folder of `config.json` and `model.safetensors` or `pytorch_model.bin`;
the front end from `preprocessor_config.json` where that lies beside them.
"""

from __future__ import annotations

from dataclasses import replace

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, make_mel, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.univnet import UnivNetConfig
from fastvoc.sound.mel import MelConfig

_PREPROCESSOR = "preprocessor_config.json"
_RATE = 24000


def detect(source: Source) -> bool:
    return any(".kernel_predictor.kernel_conv." in name for name in source.entries)


def load(source: Source) -> Checkpoint:
    fields = source.json("config.json")
    model_type = fields.text("model_type")
    if model_type != "univnet":
        raise refuse(fields.path, f"model_type {model_type!r}, expected 'univnet'")
    extractor = source.json(_PREPROCESSOR) if source.has(_PREPROCESSOR) else Fields({}, fields.path)
    rate = extractor.integer("sampling_rate", _RATE)
    bands = fields.integer("num_mel_bins", 100)
    mel = _front_end(extractor, rate, bands)
    try:
        config = UnivNetConfig(
            sample_rate=rate,
            num_mels=bands,
            model_in_channels=fields.integer("model_in_channels", 64),
            model_hidden_channels=fields.integer("model_hidden_channels", 32),
            resblock_kernel_sizes=fields.integers("resblock_kernel_sizes", (3, 3, 3)),
            resblock_stride_sizes=fields.integers("resblock_stride_sizes", (8, 8, 4)),
            resblock_dilation_sizes=fields.rows("resblock_dilation_sizes", ((1, 3, 9, 27),) * 3),
            kernel_predictor_num_blocks=fields.integer("kernel_predictor_num_blocks", 3),
            kernel_predictor_hidden_channels=fields.integer("kernel_predictor_hidden_channels", 64),
            kernel_predictor_conv_size=fields.integer("kernel_predictor_conv_size", 3),
            leaky_relu_slope=fields.number("leaky_relu_slope", 0.2),
        )
        if mel is not None and mel.hop_length == config.hop:
            config = replace(config, mel=mel)
    except ArgumentError as error:
        raise refuse(fields.path, f"illegal configuration: {error}") from None
    origins = {}
    if not source.has(_PREPROCESSOR):
        assumed = Origin("assumed", f"{_PREPROCESSOR}, which says it, is not beside it; its class's default")
        origins = {"sample_rate": assumed, "mel": assumed}
    elif "sampling_rate" not in extractor:
        origins = {"sample_rate": Origin("format", "the default of UnivNetFeatureExtractor")}
    state = canonical_state(source, config, source.entries)
    return Checkpoint(config, state, "transformers", {"model_type": model_type}, origins=origins)


def _front_end(extractor: Fields, rate: int, bands: int) -> MelConfig | None:
    """The front end that the extractor's values describe; None where it does more than a log-mel."""
    plain = (
        extractor.number("compression_factor", 1.0) == 1.0
        and not extractor.flag("do_normalize", False)
        and not extractor.flag("center", False)
        and extractor.text("win_function", "hann_window") == "hann_window"
        and extractor.integer("num_mel_bins", bands) == bands
    )
    if not plain:
        return None
    window = extractor.integer("win_length", 1024)
    # An explicit null asks for the next power of two.
    n_fft = 1 << (window - 1).bit_length() if "filter_length" in extractor.values else 1024
    return make_mel(
        extractor.path,
        sample_rate=rate,
        n_fft=extractor.integer("filter_length", n_fft),
        win_length=window,
        hop_length=extractor.integer("hop_length", 256),
        n_mels=bands,
        f_min=extractor.number("fmin", 0.0),
        f_max=extractor.optional_number("fmax"),
        floor=extractor.number("compression_clip_val", 1e-5),
        magnitude_eps=extractor.number("mel_floor", 1e-9),
    )
