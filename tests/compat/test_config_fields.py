"""What editing a field of a model's configuration does after the model was made, field by field, as in transformers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from fastvoc.compat import encodec, hiftnet_transformers, vocos_transformers
from fastvoc.compat import transformers as ours
from fastvoc.errors import ArgumentError
from helpers import golden

# "call": read in every call, as transformers 5.24 does; "made": read by the constructor alone, an edit has no effect
# there and here; "refused": a call raises, for what transformers fails at and for drafts, which no release settles.
ENCODEC = {
    **dict.fromkeys(("target_bandwidths", "sampling_rate", "normalize", "chunk_length_s", "overlap"), "call"),
    **dict.fromkeys(
        ("audio_channels", "hidden_size", "num_filters", "num_residual_layers", "upsampling_ratios"), "made"
    ),
    **dict.fromkeys(("norm_type", "kernel_size", "last_kernel_size", "residual_kernel_size"), "made"),
    **dict.fromkeys(("dilation_growth_rate", "use_causal_conv", "pad_mode", "compress", "num_lstm_layers"), "made"),
    **dict.fromkeys(("trim_right_ratio", "codebook_size", "codebook_dim", "use_conv_shortcut"), "made"),
    "return_dict": "call",
}
HIFIGAN = {
    **dict.fromkeys(("leaky_relu_slope", "normalize_before"), "call"),
    **dict.fromkeys(("model_in_dim", "upsample_initial_channel", "upsample_rates", "upsample_kernel_sizes"), "made"),
    **dict.fromkeys(("resblock_kernel_sizes", "resblock_dilation_sizes", "initializer_range", "return_dict"), "made"),
}
UNIVNET = {
    "model_in_channels": "refused",
    **dict.fromkeys(("model_hidden_channels", "num_mel_bins", "resblock_kernel_sizes"), "made"),
    **dict.fromkeys(("resblock_stride_sizes", "resblock_dilation_sizes", "kernel_predictor_num_blocks"), "made"),
    **dict.fromkeys(("kernel_predictor_hidden_channels", "kernel_predictor_conv_size"), "made"),
    **dict.fromkeys(("kernel_predictor_dropout", "initializer_range", "leaky_relu_slope"), "made"),
    "return_dict": "call",
}
TABLE: dict[str, dict[str, str]] = {
    "EncodecModel": ENCODEC,
    "SpeechT5HifiGan": {**HIFIGAN, "sampling_rate": "made"},
    "FastSpeech2ConformerHifiGan": HIFIGAN,
    "UnivNetModel": UNIVNET,
}
FOLDERS = {
    "EncodecModel": "hf_encodec_24k_small",
    "SpeechT5HifiGan": "hf_speecht5_hifigan",
    "FastSpeech2ConformerHifiGan": "hf_fastspeech2conformer_hifigan",
    "UnivNetModel": "hf_univnet",
}
# Edits that are legal for the fields that a call reads; each is of the fields together.
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("EncodecModel", "hf_encodec_24k_small", {"normalize": True}),
    ("EncodecModel", "hf_encodec_24k_small", {"chunk_length_s": 0.02, "overlap": 0.1}),
    ("EncodecModel", "hf_encodec_24k_small", {"chunk_length_s": 0.02, "overlap": 0.3, "normalize": True}),
    ("EncodecModel", "hf_encodec_24k_small", {"target_bandwidths": [3.0, 6.0]}),
    ("EncodecModel", "hf_encodec_24k_small", {"target_bandwidths": [24.0]}),
    ("EncodecModel", "hf_encodec_48k_small", {"chunk_length_s": 0.5}),
    ("EncodecModel", "hf_encodec_48k_small", {"chunk_length_s": None}),
    ("EncodecModel", "hf_encodec_48k_small", {"overlap": 0.25}),
    ("EncodecModel", "hf_encodec_48k_small", {"normalize": False}),
    ("EncodecModel", "hf_encodec_48k_small", {"sampling_rate": 44100}),
    ("EncodecModel", "hf_encodec_48k_small", {"return_dict": False}),
    *((name, FOLDERS[name], {"normalize_before": False}) for name in FOLDERS if "HifiGan" in name),
    *((name, FOLDERS[name], {"leaky_relu_slope": 0.3}) for name in FOLDERS if "HifiGan" in name),
    ("UnivNetModel", "hf_univnet", {"return_dict": False}),
]


def another(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list | tuple):
        return [*value, value[0]]
    return f"{value}_" if isinstance(value, str) else value + 1


def inputs(model: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    name = type(model).__name__
    if name == "EncodecModel":
        channels = model.config.audio_channels
        return {"input_values": torch.randn(1, channels, 50000 if channels == 2 else 700, generator=generator) * 0.1}
    bands = model.config.num_mel_bins if name == "UnivNetModel" else model.config.model_in_dim
    mel = torch.randn(1, 9, bands, generator=generator)
    if name != "UnivNetModel":
        return {"spectrogram": mel}
    noise = torch.randn(1, 9, model.config.model_in_channels, generator=generator)
    return {"input_features": mel, "noise_sequence": noise}


def values(output: Any) -> list[Any]:
    items = output if isinstance(output, tuple) else output.to_tuple() if hasattr(output, "to_tuple") else (output,)
    return [item for item in items if item is not None]


def same(a: Any, b: Any) -> bool:
    if a.dtype == torch.int64:
        return torch.equal(a, b)
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-4 * b.square().mean().sqrt())


def run(model: Any, given: dict[str, Any]) -> list[Any]:
    with torch.no_grad():
        return values(model(**given))


def load(package: Any, name: str, folder: str) -> Any:
    return getattr(package, name).from_pretrained(golden(folder).dir).eval()


@pytest.mark.parametrize("name", TABLE)
def test_the_table_has_every_field(name: str) -> None:
    config = getattr(ours, name).config_class
    assert is_dataclass(config)
    assert {field.name for field in fields(config)} == set(TABLE[name])
    edited = {field for case, _, edit in CALLS if case == name for field in edit}
    assert edited == {field for field, kind in TABLE[name].items() if kind == "call"}


@pytest.mark.golden
@pytest.mark.parametrize(("name", "folder", "edit"), CALLS, ids=str)
def test_what_calls_read_is_read_in_every_call(name: str, folder: str, edit: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    mine, theirs = load(ours, name, folder), load(transformers, name, folder)
    given = inputs(mine)
    before = run(mine, given)
    for model in (mine, theirs):
        for field, value in edit.items():
            setattr(model.config, field, value)
    made, expected = run(mine, given), run(theirs, given)
    assert type(mine(**given)).__name__ == type(theirs(**given)).__name__
    assert all(same(a, b) for a, b in zip(made, expected, strict=True))
    if "return_dict" not in edit:
        assert not all(a.shape == b.shape and same(a, b) for a, b in zip(made, before, strict=True))
    if name == "EncodecModel":
        with torch.no_grad():
            a, b = (values(m.encode(given["input_values"])) for m in (mine, theirs))
        assert torch.equal(a[0], b[0])
        assert a[2] == b[2]
        for scale, other in zip(a[1], b[1], strict=True):
            assert scale is other is None or same(scale, other)


@pytest.mark.golden
@pytest.mark.parametrize("name", TABLE)
def test_what_the_constructor_read_may_change_without_effect(name: str) -> None:
    model = load(ours, name, FOLDERS[name])
    given = inputs(model)
    before = run(model, given)
    for field, kind in TABLE[name].items():
        if kind == "made":
            setattr(model.config, field, another(getattr(model.config, field)))
    assert all(torch.equal(a, b) for a, b in zip(run(model, given), before, strict=True))


@pytest.mark.golden
def test_what_cannot_be_honoured_is_refused() -> None:
    model = load(ours, "UnivNetModel", "hf_univnet")
    mel = inputs(model)["input_features"]
    model.config.model_in_channels += 1
    with pytest.raises(ArgumentError, match=r"config\.model_in_channels: expected \d+ as the model was made"):
        model(mel)
    codec = load(ours, "EncodecModel", "hf_encodec_24k_small")
    wav = torch.randn(1, 1, 900)
    for edit, match in (
        ({"chunk_length_s": 0.02}, "overlap: expected a number from 0, below 1"),
        ({"chunk_length_s": 0.0, "overlap": 0.1}, "chunk_length_s: expected at least one sample, got 0"),
        ({"chunk_length_s": 0.02, "overlap": 1.0}, r"overlap: got 1\.0"),
        ({"chunk_length_s": None, "normalize": 3}, "normalize: got 3"),
    ):
        for field, value in edit.items():
            setattr(codec.config, field, value)
        with pytest.raises(ArgumentError, match=match):
            codec(wav)


def drafts() -> list[tuple[Any, tuple[Any, ...]]]:
    hift = hiftnet_transformers.HiFTNetConfig(base_channels=8, f0_predictor_cond_channels=4)
    vocos = vocos_transformers.VocosConfig(hidden_size=8, intermediate_size=8, num_layers=1)
    books = vocos_transformers.VocosWithEncodecConfig(hidden_size=8, intermediate_size=8, num_layers=1)
    return [
        (hiftnet_transformers.HiFTNetModel(hift).eval(), (torch.randn(1, 5, 80),)),
        (hiftnet_transformers.HiFTNetVocoder(hift).eval(), (torch.randn(1, 80, 5),)),
        (vocos_transformers.VocosModel(vocos).eval(), (torch.randn(1, 100, 5),)),
        (vocos_transformers.VocosWithEncodecModel(books).eval(), (1, None, torch.zeros(16, 5, dtype=torch.int64))),
    ]


@pytest.mark.parametrize("index", range(4))
def test_a_draft_refuses_every_edit(index: int) -> None:
    model, given = drafts()[index]
    with torch.no_grad():
        model(*given)
        for field in fields(model.config):
            kept = getattr(model.config, field.name)
            setattr(model.config, field.name, another(kept))
            with pytest.raises(ArgumentError, match=rf"config\.{field.name}: the model was made with"):
                model(*given)
            setattr(model.config, field.name, kept)
        model(*given)


@pytest.mark.golden
@pytest.mark.parametrize("folder", ["hf_encodec_24k_small", "hf_encodec_48k_small"])
def test_attributes_of_the_encodec_package_s_model(folder: str) -> None:
    """There the same values are attributes of the model, and read in every call."""
    other = load(ours, "EncodecModel", folder)
    mine = encodec.EncodecModel(load(ours, "EncodecModel", folder)._model)
    wav = torch.randn(1, mine.channels, 60000 if mine.channels == 2 else 2000) * 0.1
    mine.bandwidth = other.config.target_bandwidths[0]
    for edit in ({"normalize": True}, {"segment": 0.5, "overlap": 0.1}, {"normalize": False}, {"segment": None}):
        for name, value in edit.items():
            setattr(mine, name, value)
            setattr(other.config, {"segment": "chunk_length_s"}.get(name, name), value)
        assert (mine.segment_length, mine.segment_stride) == (other.config.chunk_length, other.config.chunk_stride)
        frames, made = mine.encode(wav), other.encode(wav)
        assert torch.equal(frames[0][0], made.audio_codes[0])
        assert len(frames) == len(made.audio_codes)
        assert [scale is None for _, scale in frames] == [scale is None for scale in made.audio_scales]
        assert same(mine(wav), other(wav).audio_values)
