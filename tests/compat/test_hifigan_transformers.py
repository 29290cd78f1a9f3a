"""SpeechT5HifiGan and FastSpeech2ConformerHifiGan against those of transformers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc import hub
from fastvoc.compat import hifigan_transformers as ours
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
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
    with pytest.raises(DtypeError, match="float32"):
        model(torch.randn(5, 80).double())
    for name in (tmp_path, tmp_path / "absent", "no hub id"):
        with pytest.raises(LoadError):
            ours.SpeechT5HifiGan.from_pretrained(name)
    with pytest.raises(LoadError, match="'speecht5_hifigan', expected 'univnet'"):
        ours.SpeechT5HifiGan.from_pretrained(golden("hf_univnet").dir, config=ours.SpeechT5HifiGanConfig())
