"""SpeechT5HifiGan and FastSpeech2ConformerHifiGan against those of transformers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fastvoc
from fastvoc.compat import hifigan_transformers as ours
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.hub import download as hub
from helpers import assert_golden, golden, implementations, relative_l2

transformers = pytest.importorskip("transformers")

NAMES = ("SpeechT5HifiGan", "FastSpeech2ConformerHifiGan")
CASES = {"SpeechT5HifiGan": "hf_speecht5_hifigan", "FastSpeech2ConformerHifiGan": "hf_fastspeech2conformer_hifigan"}
SIZES: dict[str, Any] = {"upsample_initial_channel": 32, "resblock_dilation_sizes": [[1, 3], [1, 3], [1, 5]]}
each_name = pytest.mark.parametrize("name", NAMES)


def theirs(name: str, **values: Any) -> Any:
    """Transformers' model with random weights and statistics."""
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **values})
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5 / max(parameter[0].numel(), 4) ** 0.5)
        model.mean.normal_()
        model.scale.uniform_(0.5, 2.0)
    return model


@each_name
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_transformers(name: str, normalize: bool, tmp_path: Path) -> None:
    model = theirs(name, normalize_before=normalize)
    model.save_pretrained(tmp_path)
    own = getattr(ours, name).from_pretrained(tmp_path)
    assert own.config.normalize_before is normalize
    assert not own.training
    for shape in ((2, 21, 80), (1, 3, 80), (13, 80)):
        mel = torch.randn(shape) * 2 - 4
        with torch.no_grad():
            expected = model(mel)
        wav = own(mel)
        assert wav.shape == expected.shape
        assert relative_l2(wav, expected) < 2e-6
    hidden = {"mean", "scale"} if not normalize else set()
    for key, tensor in model.state_dict().items():
        assert key in hidden or torch.equal(own.state_dict()[key], tensor)
    assert own.state_dict().keys() == model.state_dict().keys()


@each_name
def test_weights_and_configurations_go_both_ways(name: str, tmp_path: Path) -> None:
    model = theirs(name)
    own = getattr(ours, name)(getattr(ours, f"{name}Config")(**SIZES))
    own.load_state_dict(model.state_dict())
    own.save_pretrained(tmp_path)
    back = getattr(transformers, name).from_pretrained(tmp_path)
    assert all(torch.equal(back.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    mel = torch.randn(2, 9, 80)
    with torch.no_grad():
        assert relative_l2(own(mel), model(mel)) < 2e-6
        assert relative_l2(copy.deepcopy(own)(mel), model(mel)) < 2e-6


@each_name
def test_configuration_has_the_same_fields_and_defaults(name: str) -> None:
    own, other = getattr(ours, f"{name}Config")(), getattr(transformers, f"{name}Config")()
    values = other.to_dict()
    for field, value in own.to_dict().items():
        assert json.loads(json.dumps(value)) == json.loads(json.dumps(values[field])), field


@each_name
def test_gradients_equal(name: str) -> None:
    model = theirs(name)
    own = getattr(ours, name)(getattr(ours, f"{name}Config")(**SIZES))
    own.load_state_dict(model.state_dict())
    mel = torch.randn(2, 5, 80)
    for module in (model, own):
        module(mel).square().sum().backward()
    expected = dict(model.named_parameters())
    for key, parameter in own.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("impl", implementations("mrf"))
@each_name
def test_golden(name: str, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case = golden(CASES[name])
    model = getattr(ours, name).from_pretrained(case.dir)
    assert_golden(model(case.inputs["spectrogram"]), case, "wav")
    assert_golden(model(case.inputs["spectrogram_unbatched"]), case, "wav_unbatched")


@pytest.mark.golden
def test_options_of_from_pretrained() -> None:
    folder = golden(CASES["SpeechT5HifiGan"]).dir
    half = ours.SpeechT5HifiGan.from_pretrained(folder, torch_dtype="bfloat16")
    assert half.dtype is torch.bfloat16
    assert half.device.type == "cpu"
    assert half(torch.randn(4, 80).bfloat16()).dtype is torch.bfloat16
    changed = ours.SpeechT5HifiGan.from_pretrained(folder, normalize_before=False, leaky_relu_slope=0.2)
    assert not changed.config.normalize_before
    mel = torch.randn(1, 6, 80)
    assert not torch.equal(changed(mel), ours.SpeechT5HifiGan.from_pretrained(folder)(mel))
    before = torch.get_rng_state()
    ours.SpeechT5HifiGan.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ArgumentError, match="'colour'"):
        ours.SpeechT5HifiGan.from_pretrained(folder, colour="red")


@pytest.mark.golden
def test_hub_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, options: hub.Options) -> Path:
        asked.append((name, options.revision))
        return golden(CASES["SpeechT5HifiGan"]).dir

    monkeypatch.setattr(hub, "fetch", fetch)
    ours.SpeechT5HifiGan.from_pretrained("microsoft/speecht5_hifigan")
    ours.SpeechT5HifiGanConfig.from_pretrained("microsoft/speecht5_hifigan", revision="main")
    assert asked == [("microsoft/speecht5_hifigan", revision) for revision in (None, "main")]


@pytest.mark.golden
def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    model = ours.SpeechT5HifiGan.from_pretrained(golden(CASES["SpeechT5HifiGan"]).dir)
    for shape in ((1, 80, 5), (5,), (1, 0, 80), (0, 5, 80), (1, 1, 5, 80)):
        with pytest.raises(ShapeError, match="spectrogram"):
            model(torch.randn(shape))
    for other in (torch.randn(5, 80).numpy(), [[0.0] * 80], None):
        with pytest.raises(DtypeError, match=r"spectrogram: expected a torch\.Tensor, got"):
            model(other)
    with pytest.raises(DtypeError, match="float32"):
        model(torch.randn(5, 80).double())
    for name in (tmp_path, tmp_path / "absent", "no hub id", "", " "):
        with pytest.raises(LoadError):
            ours.SpeechT5HifiGan.from_pretrained(name)
    with pytest.raises(LoadError, match="'speecht5_hifigan', expected 'univnet'"):
        ours.SpeechT5HifiGan.from_pretrained(golden("hf_univnet").dir, config=ours.SpeechT5HifiGanConfig())


@pytest.mark.golden
def test_the_vocoder_of_a_whole_text_to_speech_model(tmp_path: Path) -> None:
    """Its configuration and its weights are parts of the folder's."""
    case = golden(CASES["FastSpeech2ConformerHifiGan"])
    vocoder = transformers.FastSpeech2ConformerHifiGan.from_pretrained(case.dir)
    small: dict[str, Any] = {"hidden_size": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_linear_units": 8}
    small |= {"decoder_linear_units": 8, "duration_predictor_channels": 4, "energy_predictor_channels": 4}
    small |= {"pitch_predictor_channels": 4, "speech_decoder_postnet_units": 4, "speech_decoder_postnet_layers": 2}
    vocoder.config.leaky_relu_slope = 0.2
    config = transformers.FastSpeech2ConformerWithHifiGanConfig(
        model_config=transformers.FastSpeech2ConformerConfig(**small).to_dict(), vocoder_config=vocoder.config.to_dict()
    )
    whole = transformers.FastSpeech2ConformerWithHifiGan(config).eval()
    whole.vocoder.load_state_dict(vocoder.state_dict())
    whole.save_pretrained(tmp_path)
    mel = case.inputs["spectrogram"]
    with torch.no_grad():
        expected = whole.vocoder(mel)
    own = ours.FastSpeech2ConformerHifiGan.from_pretrained(tmp_path)
    assert own.config.leaky_relu_slope == 0.2
    assert ours.FastSpeech2ConformerHifiGanConfig.from_pretrained(tmp_path).to_dict() == own.config.to_dict()
    assert relative_l2(own(mel), expected) < 2e-6
    assert relative_l2(fastvoc.load(tmp_path)(mel.mT, check=False), expected) < 2e-6
    own.save_pretrained(tmp_path / "alone")
    alone = transformers.FastSpeech2ConformerHifiGan.from_pretrained(tmp_path / "alone").eval()
    with torch.no_grad():
        assert relative_l2(alone(mel), expected) < 2e-6
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "vocoder_config": None}))
    for load in (ours.FastSpeech2ConformerHifiGan.from_pretrained, fastvoc.load):
        with pytest.raises(LoadError, match="vocoder_config"):
            load(tmp_path)


@each_name
def test_states_with_weight_norm_load(name: str) -> None:
    model = theirs(name)
    own = getattr(ours, name)(getattr(ours, f"{name}Config")(**SIZES))
    own.apply_weight_norm()
    mel = torch.randn(1, 7, 80)
    with torch.no_grad():
        expected = model(mel)
        model.apply_weight_norm()
        own.load_state_dict(model.state_dict())
        assert relative_l2(own(mel), expected) < 2e-6
        own.remove_weight_norm()
        assert relative_l2(own(mel), expected) < 2e-6


@each_name
def test_values_as_json(name: str, tmp_path: Path) -> None:
    kind = f"{name}Config"
    own, other = getattr(ours, kind)(**SIZES), getattr(transformers, kind)(**SIZES)
    expected = json.loads(other.to_json_string())
    expected.pop("transformers_version")
    assert json.loads(own.to_json_string()) == {"model_type": own.model_type, **expected}
    assert json.loads(own.to_json_string(use_diff=False)) == json.loads(json.dumps(own.to_dict()))
    own.to_json_file(tmp_path / "config.json")
    assert getattr(ours, kind).from_json_file(tmp_path / "config.json").to_dict() == json.loads(
        json.dumps(own.to_dict())
    )
    for config in (own, other):
        config.update({"leaky_relu_slope": 0.3})
        config.update_from_string("normalize_before=no,model_in_dim=40,leaky_relu_slope=0.4")
        assert (config.normalize_before, config.model_in_dim, config.leaky_relu_slope) == (False, 40, 0.4)
        assert config.use_return_dict is True
        assert config.get_text_config() is config
    for text in ("colour=red", "normalize_before", "normalize_before=maybe", "model_in_dim=x", "upsample_rates=2"):
        with pytest.raises(ArgumentError, match="update_str"):
            own.update_from_string(f"leaky_relu_slope=9,{text}")
        assert own.leaky_relu_slope == 0.4
