"""The drafts of Transformers' Vocos classes, used as their documentation uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import fastvoc
from fastvoc.compat.transformers import (
    VocosConfig,
    VocosFeatureExtractor,
    VocosModel,
    VocosWithEncodecConfig,
    VocosWithEncodecModel,
)
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.runtime.registry import use_backend
from helpers import assert_golden, golden, implementations

each_impl = pytest.mark.parametrize("impl", implementations("convnext_block"))
SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 2}


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", ["vocos_mel_center", "vocos_mel_same"])
def test_golden_mel(name: str, impl: str) -> None:
    case = golden(name)
    model = VocosModel.from_pretrained(case.dir)
    extractor = VocosFeatureExtractor.from_pretrained(case.dir)
    inputs = extractor([row.numpy() for row in case.inputs["audio"]], sampling_rate=24000, pad_to_multiple_of=1)
    assert_golden(inputs.input_features, case, "mid.features_from_audio")
    with use_backend(impl):
        assert_golden(model(case.inputs["features"]).audio, case, "wav")
        outputs = model(**inputs)
        assert_golden(outputs.audio, case, "wav_copy")
    assert torch.equal(outputs.attention_mask, inputs.attention_mask)
    assert outputs.to_tuple() == (outputs.audio, outputs.attention_mask)


@pytest.mark.golden
@each_impl
def test_golden_codes(impl: str) -> None:
    case = golden("vocos_encodec")
    model = VocosWithEncodecModel.from_pretrained(case.dir)
    assert model.encodec is None
    with use_backend(impl):
        for i, books in enumerate((2, 4, 8, 16)):
            wav = model(codes=case.inputs["codes"][:books], bandwidth_id=torch.tensor([i]))
            assert_golden(wav, case, f"wav_{i}")
        model.encodec = fastvoc.load(case.dir / "encodec_24khz.th")
        wav, codes = model(audio=case.inputs["audio"], bandwidth_id=torch.tensor(3), return_codes=True)
    assert_golden(wav, case, "wav_copy_3")
    assert_golden(codes, case, "codes_from_audio")


def test_codes_of_the_documentation() -> None:
    model = VocosWithEncodecModel(VocosWithEncodecConfig())
    codes = torch.randint(low=0, high=1024, size=(8, 200))
    audio = model(codes=codes, bandwidth_id=torch.tensor([0], dtype=torch.long))
    assert audio.shape == (1, 64000)
    fine = model(2, codes=codes.numpy().astype(np.int32))
    assert fine.shape == (1, 64000)
    assert model(codes=codes[:, None].expand(-1, 2, -1), bandwidth_id=[0, 2]).shape == (2, 64000)


@pytest.mark.parametrize("kind", [VocosModel, VocosWithEncodecModel])
def test_written_folders_are_read(kind: Any, tmp_path: Path) -> None:
    model = kind(kind.config_class(**SMALL))
    model.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    assert again.config == model.config
    names = set(model.state_dict())
    assert {"norm.weight", "decoder.window"} <= names or {"codebook_weights", "head.window"} <= names
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    result = kind(kind.config_class(**SMALL)).load_state_dict(model.state_dict())
    assert not result.missing_keys
    assert not result.unexpected_keys
    voc = fastvoc.load(tmp_path)
    assert voc.config.family == "vocos"
    window = "decoder.window" if kind is VocosModel else "head.window"
    with pytest.raises(ArgumentError, match=r"window is not the configuration's Hann window"):
        model.load_state_dict({**model.state_dict(), window: torch.ones(model.config.n_fft)})


def test_names_of_early_drafts() -> None:
    early = {"input_channels": 8, "hidden_dim": 16, "intermediate_dim": 32, "spec_padding": "same", "n_fft": 16}
    config = VocosConfig.from_dict({**early, "hop_length": 8, "kernel_size": 3, "padding": 1, "num_layers": 2})
    assert (config.n_mels, config.hidden_size, config.istft_padding) == (8, 16, "same")
    model = VocosModel(config)
    features = torch.randn(2, 8, 10)
    assert model(features).audio.shape == (2, 80)
    assert torch.equal(model(features=features).audio, model(input_features=features, return_dict=False)[0])


@pytest.mark.parametrize("padding", ["center", "same"])
def test_mask_fits_the_features(padding: str) -> None:
    extractor = VocosFeatureExtractor(padding=padding)
    sounds = [torch.randn(n) * 0.1 for n in (5000, 9001)]
    inputs = extractor(sounds, sampling_rate=24000)
    side = 384 if padding == "same" else 0
    assert inputs.attention_mask.shape == (2, 9216 + 2 * side)
    assert inputs.attention_mask.sum(1).tolist() == [5000, 9001]
    assert inputs.input_features.shape == (2, 100, 36 if padding == "same" else 37)
    alone = extractor(sounds[1].numpy(), sampling_rate=24000, return_tensors="np")
    assert isinstance(alone["input_features"], np.ndarray)
    assert alone["attention_mask"].shape == (1, 9001 + 2 * side)
    cut = extractor(sounds, truncation=True, padding=False, max_length=4096, sampling_rate=24000)
    assert cut.attention_mask.sum(1).tolist() == [4096, 4096]
    filled = extractor(sounds[0], padding="max_length", max_length=6144, sampling_rate=24000)
    assert filled.attention_mask.shape == (1, 6144 + 2 * side)
    with pytest.warns(UserWarning, match="taken for 24000 Hz"):
        extractor(sounds[0])


def test_extractor_is_written_and_read(tmp_path: Path) -> None:
    extractor = VocosFeatureExtractor(padding="same", num_mel_bins=80)
    extractor.save_pretrained(tmp_path)
    assert VocosFeatureExtractor.from_pretrained(tmp_path).to_dict() == extractor.to_dict()


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    model, coded = VocosModel(VocosConfig(**SMALL)), VocosWithEncodecModel(VocosWithEncodecConfig(**SMALL))
    extractor, sound, codes = VocosFeatureExtractor(), torch.zeros(3000), torch.zeros(4, 5, dtype=torch.int64)
    wrong: list[tuple[type[Exception], str, Any]] = [
        (ArgumentError, "input_features", lambda: model()),
        (ShapeError, r"\[B, 100, T > 0\]", lambda: model(torch.zeros(1, 80, 5))),
        (ArgumentError, "audio, codes", lambda: coded(0)),
        (ArgumentError, "bandwidth_id: .* got 7", lambda: coded(7, codes=codes)),
        (ArgumentError, "one bandwidth for all audio", lambda: coded([0, 1], audio=torch.zeros(2, 800))),
        (ArgumentError, r"got 0\.\.1024", lambda: coded(0, codes=torch.tensor([[0, 1024]]))),
        (ShapeError, r"1\.\.16", lambda: coded(0, codes=torch.zeros(17, 5, dtype=torch.int64))),
        (DtypeError, "whole numbers", lambda: coded(0, codes=codes.float())),
        (ArgumentError, "hidden_act", lambda: VocosModel(VocosConfig(hidden_act="relu"))),
        (ArgumentError, "padding: expected 3", lambda: VocosModel(VocosConfig(padding=0))),
        (ArgumentError, r"VocosConfig\.padding", lambda: VocosModel(VocosConfig(istft_padding="valid"))),
        (ArgumentError, "padding: expected center or same", lambda: VocosFeatureExtractor(padding="valid")),
        (ArgumentError, "sampling_rate: expected 24000", lambda: extractor(sound, sampling_rate=16000)),
        (ArgumentError, "padding, truncation", lambda: extractor(sound, truncation=True, sampling_rate=24000)),
        (ArgumentError, "padding: expected", lambda: extractor(sound, padding="left", sampling_rate=24000)),
        (ArgumentError, "max_length", lambda: extractor(sound, padding="max_length", sampling_rate=24000)),
        (ArgumentError, "return_tensors", lambda: extractor(sound, return_tensors="tf", sampling_rate=24000)),
        (ShapeError, "mono", lambda: extractor([torch.zeros(2, 3000)], sampling_rate=24000)),
        (ShapeError, "different lengths", lambda: extractor([sound, sound[1:]], padding=False, sampling_rate=24000)),
    ]
    for error, text, call in wrong:
        with pytest.raises(error, match=text):
            call()
    VocosModel(VocosConfig(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(LoadError, match=r"norm.bias': the files have .16., VocosWithEncodecModel .* has .4, 16."):
        VocosWithEncodecModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({}))
    with pytest.raises(LoadError):
        VocosModel.from_pretrained(tmp_path)
