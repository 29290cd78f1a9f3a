"""Vocos' checkpoints: published folders, Transformers' drafts, classes looked up and never imported, refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from vocos_files import CODES, MEL, draft, random_state, upstream, yaml_values

from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.text import Fields
from fastvoc.checkpoints.vocos import read_config
from fastvoc.errors import LoadError
from fastvoc.models.vocos_config import VOCOS_ENCODEC_24K, VOCOS_MEL_24K, VocosConfig
from helpers import golden


def write(folder: Path, config: VocosConfig, tensors: dict[str, Tensor], values: dict[str, Any] | None = None) -> Path:
    """A published folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(yaml_values(config) if values is None else values))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return set(ours) == set(theirs) and all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("config", [VOCOS_MEL_24K, VOCOS_ENCODEC_24K], ids=["mel", "codes"])
def test_published_configurations(config: VocosConfig, tmp_path: Path) -> None:
    assert read_config(Fields(yaml_values(config), tmp_path)) == config


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("config", [MEL, CODES], ids=["mel", "codes"])
def test_published_folder(config: VocosConfig, padding: str, tmp_path: Path) -> None:
    mel = config.mel and replace(config.mel, pad="center" if padding == "center" else "reflect_hop")
    config = replace(config, padding=padding, mel=mel)
    state = random_state(config)
    tensors = upstream(state, config)
    # Upstream puts the whole EnCodec into the feature extractor; decoding needs none of it.
    tensors["feature_extractor.encodec.encoder.model.0.conv.conv.bias"] = torch.zeros(4)
    checkpoint = detect_and_load(write(tmp_path, config, tensors))
    assert checkpoint.config == config
    assert checkpoint.format == "vocos"
    assert same(checkpoint.state, state)


@pytest.mark.golden
def test_golden_folders_agree_with_our_words() -> None:
    """What the upstream package wrote has the names that `upstream` gives."""
    for name in ("vocos_mel_same", "vocos_encodec"):
        folder = golden(name).dir
        checkpoint = detect_and_load(folder)
        theirs = torch.load(folder / "pytorch_model.bin", weights_only=True)
        ours = upstream(checkpoint.state, checkpoint.config)
        assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("revision", ["early", "late"])
def test_drafts_of_transformers(revision: str, tmp_path: Path) -> None:
    state = random_state(MEL)
    save_file(draft(state, MEL, revision), tmp_path / "model.safetensors")
    sizes = (
        {"hidden_size": 16, "intermediate_size": 40}
        if revision == "late"
        else {"hidden_dim": 16, "intermediate_dim": 40}
    )
    bands = "n_mels" if revision == "late" else "input_channels"
    config = {"model_type": "vocos", bands: 100, "num_layers": 2, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.config == MEL
    assert same(checkpoint.state, state)
    assert "experimental" in checkpoint.metadata["status"]


def test_draft_with_encodec(tmp_path: Path) -> None:
    state = random_state(CODES)
    tensors = draft(state, CODES, "early")
    tensors["encodec_model.encoder.layers.0.conv.bias"] = torch.zeros(4)
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"hidden_dim": 16, "intermediate_dim": 40, "num_layers": 2, "input_channels": 6, "spec_padding": "same"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.config == CODES
    assert same(checkpoint.state, state)


@pytest.mark.parametrize(
    ("section", "path", "text"),
    [
        (
            "feature_extractor",
            "os.system",
            "feature_extractor.class_path 'os.system', expected vocos.feature_extractors",
        ),
        ("backbone", "vocos.models.VocosResNetBackbone", "backbone.class_path"),
        ("head", "vocos.heads.IMDCTSymExpHead", "head.class_path"),
        ("head", "fastvoc_never_imported.Head", "head.class_path"),
    ],
)
def test_classes_are_looked_up_and_never_imported(section: str, path: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "fastvoc_never_imported.py").write_text("raise SystemExit(3)")
    sys.path.insert(0, str(tmp_path))
    values = yaml_values(MEL)
    values[section]["class_path"] = path
    try:
        with pytest.raises(LoadError, match=text):
            detect_and_load(write(tmp_path, MEL, upstream(random_state(MEL), MEL), values))
    finally:
        sys.path.remove(str(tmp_path))
    assert "fastvoc_never_imported" not in sys.modules


@pytest.mark.parametrize(
    ("section", "change", "text"),
    [
        ("head", {"dim": 17}, "expected the backbone's 16, got 17"),
        ("head", {"n_fft": "1024"}, "n_fft"),
        ("head", {"hop_length": 0}, r"VocosConfig\.hop_length"),
        ("head", {"padding": "valid"}, r"VocosConfig\.padding"),
        ("head", {"window": "hann"}, "has no 'window'"),
        ("backbone", {"num_layers": 2000000000}, r"VocosConfig\.num_layers"),
        ("backbone", {"num_layers": 3}, r"'backbone\.convnext\.2\.\w+' .* is missing"),
        ("backbone", {"dim": None}, r"init_args\.dim' is missing"),
        ("backbone", {"__class__": 1}, "has no '__class__'"),
        ("feature_extractor", {"sample_rate": 16000}, "is not the configuration's filters"),
        ("feature_extractor", {"padding": "middle"}, "padding 'middle'"),
        ("feature_extractor", {"n_fft": 2048}, "the configuration needs"),
    ],
)
def test_wrong_configurations_are_refused(section: str, change: dict[str, Any], text: str, tmp_path: Path) -> None:
    values = yaml_values(MEL)
    values[section]["init_args"] |= change
    with pytest.raises(LoadError, match=text):
        detect_and_load(write(tmp_path, MEL, upstream(random_state(MEL), MEL), values))


def test_a_front_end_for_other_mels_is_left_out(tmp_path: Path) -> None:
    values = yaml_values(MEL)
    values["feature_extractor"]["init_args"] |= {"n_mels": 80}
    checkpoint = detect_and_load(write(tmp_path, MEL, upstream(random_state(MEL), MEL), values))
    assert checkpoint.config == replace(MEL, mel=None)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encodec_model": "encodec_8khz"}, "encodec_model 'encodec_8khz', expected one of encodec_24khz"),
        ({"bandwidths": []}, "expected positive numbers"),
        ({"bandwidths": [1e300]}, "bandwidths"),
        ({"bandwidths": [1.5, 3.0]}, r"codebook_weights' has shape \[16384, 6\], the configuration needs \[4096, 6\]"),
    ],
)
def test_wrong_codes_are_refused(change: dict[str, Any], text: str, tmp_path: Path) -> None:
    values = yaml_values(CODES)
    values["feature_extractor"]["init_args"] |= change
    with pytest.raises(LoadError, match=text):
        detect_and_load(write(tmp_path, CODES, upstream(random_state(CODES), CODES), values))


def test_wrong_tensors_are_refused(tmp_path: Path) -> None:
    good = upstream(random_state(MEL), MEL)
    changes: list[tuple[str, Tensor, str]] = [
        ("head.istft.window", torch.hamming_window(1024), "is not the configuration's Hann window: off by 0.08"),
        ("head.istft.window", torch.hann_window(512), r"is \[512\] .* needs \[1024\]"),
        ("head.istft.window", torch.full((1024,), torch.nan), "is not the configuration's Hann window"),
        ("head.out.weight", torch.zeros(1026, 17), r"has shape \[1026, 17\], the configuration needs \[1026, 16\]"),
        ("backbone.convnext.0.gamma", torch.zeros(16, dtype=torch.int64), "expected a floating-point one"),
        ("backbone.norm.weight", torch.full((16,), torch.inf), "NaN or infinite"),
        ("backbone.extra.weight", torch.zeros(3), "has no place"),
    ]
    for i, (name, tensor, text) in enumerate(changes):
        with pytest.raises(LoadError, match=text):
            detect_and_load(write(tmp_path / str(i), MEL, {**good, name: tensor}))
    twice = {**good, "backbone.norm.scale.weight": torch.zeros(16)}
    with pytest.raises(LoadError, match=r"are both 'backbone\.norm\.weight'"):
        detect_and_load(write(tmp_path / "twice", MEL, twice))
    write(tmp_path / "alone", MEL, good)
    (tmp_path / "alone" / "config.yaml").unlink()
    with pytest.raises(LoadError, match=r"config\.yaml is missing"):
        detect_and_load(tmp_path / "alone")


def test_drafts_that_differ_are_refused(tmp_path: Path) -> None:
    save_file(draft(random_state(MEL), MEL, "late"), tmp_path / "model.safetensors")
    good = {"n_mels": 100, "hidden_size": 16, "intermediate_size": 40, "num_layers": 2}
    for change, text in (
        ({"hidden_act": "relu"}, "expected gelu, got 'relu'"),
        ({"padding": 0}, "expected 3 for kernels of 7"),
        ({"istft_padding": "valid"}, "expected center or same"),
        ({"hidden_size": 32}, "the configuration needs"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(LoadError, match=text):
            detect_and_load(tmp_path)
