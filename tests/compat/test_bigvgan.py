"""NVIDIA's BigVGAN class, used as its page shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fastvoc.compat import bigvgan
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.hub import download as hub
from helpers import assert_golden, golden, implementations

pytestmark = pytest.mark.golden
CASES = ("bigvgan_base_small", "bigvgan_v2_small")


@pytest.mark.parametrize("impl", implementations("snake_aa"))
@pytest.mark.parametrize("name", CASES)
def test_example_of_the_page(name: str, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case = golden(name)
    model = bigvgan.BigVGAN.from_pretrained(case.dir, use_cuda_kernel=False)
    model.remove_weight_norm()
    model = model.eval().to("cpu")
    assert model.h.sampling_rate == 24000
    with torch.inference_mode():
        wav = model(case.inputs["mel"])
    assert_golden(wav, case, "wav")
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_inference_script(name: str) -> None:
    case = golden(name)
    h = bigvgan.load_hparams_from_json(case.dir / "config.json")
    generator = bigvgan.BigVGAN(h, use_cuda_kernel=True)
    state = torch.load(case.dir / "bigvgan_generator.pt", weights_only=True)["generator"]
    result = generator.load_state_dict(state)
    assert not result.missing_keys
    assert not result.unexpected_keys
    generator.eval()
    with torch.no_grad():
        wav = generator(case.inputs["mel"])
    assert_golden(wav, case, "wav")
    twin = bigvgan.BigVGAN(h)
    twin.load_state_dict(generator.state_dict())
    with torch.no_grad():
        assert torch.equal(twin(case.inputs["mel"]), wav)


def test_front_end() -> None:
    case = golden("mel_bigvgan_24k_100band")
    h = bigvgan.AttrDict(json.loads((case.dir / "config.json").read_text()))
    assert_golden(bigvgan.get_mel_spectrogram(case.inputs["wav"], h), case, "mel")


def test_hub_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, options: hub.Options) -> Path:
        asked.append((name, options.revision))
        return golden("bigvgan_v2_small").dir

    monkeypatch.setattr(hub, "fetch", fetch)
    name = "nvidia/bigvgan_v2_24khz_100band_256x"
    bigvgan.BigVGAN.from_pretrained(name)
    bigvgan.BigVGAN.from_pretrained(name, revision="v2.4")
    assert asked == [(name, revision) for revision in (None, "v2.4")]


def test_refusals(tmp_path: Path) -> None:
    case = golden("bigvgan_v2_small")
    h = bigvgan.load_hparams_from_json(case.dir / "config.json")
    with pytest.raises(ArgumentError, match=r"h: field 'activation' is missing"):
        bigvgan.BigVGAN({name: value for name, value in h.items() if name != "activation"})
    with pytest.raises(ArgumentError, match="activation"):
        bigvgan.BigVGAN({**h, "activation": "relu"})
    generator = bigvgan.BigVGAN(h)
    state = torch.load(case.dir / "bigvgan_generator.pt", weights_only=True)["generator"]
    name = "resblocks.3.activations.2.upsample.filter"
    with pytest.raises(ArgumentError, match=name.replace(".", r"\.")):
        generator.load_state_dict({**state, name: state[name] * 1.01})
    with pytest.raises(RuntimeError, match=r"resblocks\.99"):
        generator.load_state_dict({**state, "resblocks.99.upsample.filter": state[name]})
    with pytest.raises(ArgumentError, match="'colour'"):
        bigvgan.BigVGAN.from_pretrained(case.dir, colour="red")
    with pytest.raises(LoadError, match="no hub id"):
        bigvgan.BigVGAN.from_pretrained(tmp_path / "absent")
    with pytest.raises(LoadError, match=r"config\.json"):
        bigvgan.load_hparams_from_json(tmp_path / "config.json")
    shutil.copytree(golden("hifigan_v3").dir, tmp_path / "other")
    with pytest.raises(LoadError, match="a hifigan model, expected bigvgan"):
        bigvgan.BigVGAN.from_pretrained(tmp_path / "other")
