"""UnivNet against transformers: model, configuration, feature extractor."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastvoc
from fastvoc.compat import univnet_transformers as ours
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from helpers import assert_golden, golden, implementations, relative_l2

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "model_in_channels": 10,
    "kernel_predictor_hidden_channels": 10,
    "model_hidden_channels": 6,
    "num_mel_bins": 40,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ours.UnivNetModel]:
    """Transformers' model with random weights, and ours of the folder it wrote."""
    torch.manual_seed(1)
    model = transformers.UnivNetModel(transformers.UnivNetConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7 / max(parameter[0].numel(), 4) ** 0.5)
    folder = tmp_path_factory.mktemp("univnet")
    model.save_pretrained(folder)
    return model, ours.UnivNetModel.from_pretrained(folder)


@pytest.mark.golden
@pytest.mark.parametrize("impl", implementations("lvc"))
def test_golden(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case = golden("hf_univnet")
    model = ours.UnivNetModel.from_pretrained(case.dir)
    out = model(case.inputs["input_features"], noise_sequence=case.inputs["noise_sequence"])
    assert_golden(out.waveforms, case, "wav")


def test_equals_transformers(pair: tuple[Any, ours.UnivNetModel]) -> None:
    model, own = pair
    mel, noise = torch.randn(3, 12, 40), torch.randn(3, 12, 10)
    mask = torch.ones(3, 3072, dtype=torch.int32)
    mask[1, 2000:] = 0
    with torch.no_grad():
        expected = model(mel, noise, mask)
    out = own(mel, noise, mask)
    assert relative_l2(out.waveforms, expected.waveforms) < 2e-6
    assert out.waveform_lengths.tolist() == expected.waveform_lengths.tolist() == [3072, 2000, 3072]
    assert out["waveforms"] is out.waveforms is out[0]
    assert list(out.keys()) == list(expected.keys())
    plain = own(mel, noise, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], out.waveforms)
    assert plain[1] is None
    assert list(own(mel, noise).keys()) == ["waveforms"]
    one = own(mel[0], noise[0], mask[0])
    with torch.no_grad():
        other = model(mel[0], noise[0], mask[0])
    assert one.waveforms.shape == other.waveforms.shape == (1, 3072)
    assert relative_l2(one.waveforms, other.waveforms) < 2e-6


def test_draws_the_same_noise(pair: tuple[Any, ours.UnivNetModel]) -> None:
    model, own = pair
    mel = torch.randn(2, 9, 40)
    with torch.no_grad():
        expected = model(mel, generator=torch.Generator().manual_seed(7)).waveforms
    assert relative_l2(own(mel, generator=torch.Generator().manual_seed(7)).waveforms, expected) < 2e-6
    torch.manual_seed(3)
    with torch.no_grad():
        expected = model(mel).waveforms
    torch.manual_seed(3)
    assert relative_l2(own(mel).waveforms, expected) < 2e-6


def test_one_noise_or_one_mel_for_a_batch(pair: tuple[Any, ours.UnivNetModel]) -> None:
    _, own = pair
    mel, noise = torch.randn(3, 6, 40), torch.randn(3, 6, 10)
    for a, b in ((mel, noise[:1]), (mel[:1], noise), (mel[0], noise)):
        wav = own(a, b).waveforms
        each_mel, each_noise = own_batch(a, 3), own_batch(b, 3)
        assert torch.equal(wav, own(each_mel, each_noise).waveforms)


def own_batch(value: torch.Tensor, count: int) -> torch.Tensor:
    return value.expand(count, -1, -1).clone()


def test_weights_go_both_ways(pair: tuple[Any, ours.UnivNetModel], tmp_path: Path) -> None:
    model, own = pair
    assert own.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(own.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    own.save_pretrained(tmp_path)
    back = transformers.UnivNetModel.from_pretrained(tmp_path)
    assert all(torch.equal(back.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    assert fastvoc.load(tmp_path).config.num_mels == 40


def test_configuration_has_the_same_fields_and_defaults() -> None:
    own, other = ours.UnivNetConfig(), transformers.UnivNetConfig()
    for field, value in own.to_dict().items():
        assert json.loads(json.dumps(value)) == json.loads(json.dumps(getattr(other, field))), field


def test_wrong_arguments_are_named(pair: tuple[Any, ours.UnivNetModel]) -> None:
    _, own = pair
    mel, noise = torch.randn(2, 8, 40), torch.randn(2, 8, 10)
    for bad in (mel.mT, mel[0, 0], mel[:, :0]):
        with pytest.raises(ShapeError, match="input_features"):
            own(bad, noise)
    for bad in (noise.mT, noise[:, :7], torch.randn(3, 8, 10)):
        with pytest.raises(ShapeError, match="noise_sequence"):
            own(mel, bad)
    with pytest.raises(DtypeError, match="input_features"):
        own(mel.numpy())
    with pytest.raises(DtypeError, match="noise"):
        own(mel, noise.long())
    with pytest.raises(ShapeError, match="padding_mask"):
        own(mel, noise, torch.ones(3, 2048))
    with pytest.raises(ShapeError, match="T >= 4"):
        own(mel[:, :3], noise[:, :3])


SOUNDS = [
    np.random.default_rng(i).standard_normal(n).astype(np.float32) * 0.1 for i, n in enumerate((5000, 7777, 3001))
]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "max_length", "max_length": 6000},
        {"padding": False},
        {"padding": False, "truncation": False, "max_length": 4000},
        {"max_length": 4000},
        {"padding": "max_length", "max_length": 8000, "truncation": False, "pad_to_multiple_of": 512},
        {"pad_to_multiple_of": 1000, "max_length": 5500},
        {"pad_end": True, "return_tensors": "pt"},
        {"pad_end": True, "pad_length": 3, "return_tensors": "np"},
        {"do_normalize": True, "return_noise": False},
        {"return_attention_mask": False, "return_tensors": "pt"},
    ],
)
def test_extractor_equals_transformers(options: dict[str, Any]) -> None:
    own, other = ours.UnivNetFeatureExtractor(), transformers.UnivNetFeatureExtractor()
    result = own(SOUNDS, sampling_rate=24000, generator=np.random.default_rng(5), **options)
    expected = other(SOUNDS, sampling_rate=24000, generator=np.random.default_rng(5), **options)
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert type(result[name]) is type(value), name
        for mine, theirs in zip(result[name], value, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-4, atol=1e-4, err_msg=name)
    if "noise_sequence" in expected:
        assert all(np.array_equal(a, b) for a, b in zip(result.noise_sequence, expected.noise_sequence, strict=True))


@pytest.mark.parametrize(
    "values",
    [
        {"center": True},
        {"win_function": "hamming_window", "fmin": 50.0, "fmax": 9000.0},
        {"win_function": "povey", "num_mel_bins": 64, "compression_factor": 2.0, "mel_floor": 1e-6},
        {"win_function": "boxcar", "hop_length": 200, "win_length": 512, "filter_length": None},
        {"do_normalize": True, "model_in_channels": 8, "padding_value": 0.25, "padding_side": "left"},
    ],
)
def test_extractor_with_other_values(values: dict[str, Any], tmp_path: Path) -> None:
    other = transformers.UnivNetFeatureExtractor(**values)
    other.save_pretrained(tmp_path)
    own = ours.UnivNetFeatureExtractor.from_pretrained(tmp_path)
    result, expected = own(SOUNDS, sampling_rate=24000), other(SOUNDS, sampling_rate=24000)
    for mine, theirs in zip(result.input_features, expected.input_features, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-3)
    for mine, theirs in zip(result.padding_mask, expected.padding_mask, strict=True):
        assert np.array_equal(mine, theirs)
    own.save_pretrained(tmp_path)
    back = transformers.UnivNetFeatureExtractor.from_pretrained(tmp_path)
    stated = back.to_dict()
    assert all(stated[name] == value for name, value in other.to_dict().items())


def test_extractor_takes_every_kind_of_sound() -> None:
    own = ours.UnivNetFeatureExtractor()
    sound = SOUNDS[0].astype(np.float64)
    first = own(sound, sampling_rate=24000, return_noise=False).input_features
    for same in (SOUNDS[0], sound.tolist(), [sound], [sound.tolist()], sound[None]):
        again = own(same, sampling_rate=24000, return_noise=False).input_features
        assert len(again) == 1
        np.testing.assert_array_equal(again[0], first[0])
    with pytest.warns(UserWarning, match="24000"):
        own(sound)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("samples", [256, 257, 300, 384, 385, 700])
def test_short_sounds_are_reflected_more_than_once(samples: int, center: bool) -> None:
    wav = np.random.default_rng(samples).standard_normal(samples).astype(np.float32) * 0.1
    made, expected = (
        package.UnivNetFeatureExtractor(center=center)(wav, sampling_rate=24000, return_noise=False)["input_features"]
        for package in (ours, transformers)
    )
    assert made[0].shape == expected[0].shape
    np.testing.assert_allclose(made[0], expected[0], atol=1e-4)


def test_extractor_has_upstream_s_window_and_filters() -> None:
    for values in ({}, {"fmin": 50.0, "fmax": 9000.0, "num_mel_bins": 40}, {"fmax": 16000.0}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs warns of filters that are empty
            own, theirs = (p.UnivNetFeatureExtractor(**values) for p in (ours, transformers))
        np.testing.assert_allclose(own.window, theirs.window, atol=1e-12)
        np.testing.assert_allclose(own.mel_filters, theirs.mel_filters, atol=1e-9)
        assert (own.n_freqs, own.num_max_samples) == (theirs.n_freqs, theirs.num_max_samples)


def test_extractor_names_wrong_arguments(tmp_path: Path) -> None:
    own = ours.UnivNetFeatureExtractor()
    for change, text in (
        ({"sampling_rate": 16000}, "sampling_rate"),
        ({"padding": "most"}, "padding"),
        ({"return_tensors": "tf"}, "return_tensors"),
    ):
        with pytest.raises(ArgumentError, match=text):
            own(SOUNDS, **{"sampling_rate": 24000, **change})
    with pytest.raises(ShapeError, match="raw_speech"):
        own(np.zeros((1, 2, 5000)), sampling_rate=24000)
    with pytest.raises(ShapeError, match="return_tensors: input_features"):
        own(SOUNDS, sampling_rate=24000, padding=False, return_tensors="pt")
    with pytest.raises(ShapeError, match=r"expected \[S\] of at least 256 samples, got \[255\]"):
        own(np.zeros(255), sampling_rate=24000)
    with pytest.raises(ShapeError, match="raw_speech: expected at least one sound, got an empty list"):
        own([], sampling_rate=24000)
    with pytest.raises(ShapeError, match="raw_speech: expected mono sounds"):
        own(np.zeros(0), sampling_rate=24000)
    with pytest.raises(ArgumentError, match="win_function"):
        ours.UnivNetFeatureExtractor(win_function="kaiser")
    with pytest.raises(ArgumentError, match="win_length"):
        ours.UnivNetFeatureExtractor(win_length=800)
    with pytest.raises(LoadError, match="preprocessor_config"):
        ours.UnivNetFeatureExtractor.from_pretrained(tmp_path)


def test_from_sound_to_sound(pair: tuple[Any, ours.UnivNetModel]) -> None:
    _, own = pair
    extractor = ours.UnivNetFeatureExtractor(num_mel_bins=40, model_in_channels=10)
    inputs = extractor(SOUNDS, sampling_rate=24000, return_tensors="pt").to("cpu")
    out = own(**inputs)
    sounds = extractor.batch_decode(**out)
    assert [len(sound) for sound in sounds] == [5000, 7680, 3001]
    assert torch.equal(torch.from_numpy(sounds[0]), out.waveforms[0, :5000])
    assert len(extractor.batch_decode(out.waveforms)[0]) == 7680
    assert torch.allclose(
        extractor.denormalize(extractor.normalize(inputs["input_features"])), inputs["input_features"], atol=1e-5
    )
