"""The generator of jik876's repository, used as its scripts use it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from fastvoc.compat.hifigan import AttrDict, Generator, mel_spectrogram
from fastvoc.errors import ArgumentError
from fastvoc.models.hifigan import HIFIGAN_V2
from helpers import assert_golden, golden, implementations

H = {
    "resblock": "1",
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}
CASES = ("hifigan_v1_small", "hifigan_v1_small_parametrized", "hifigan_v2", "hifigan_v3", "hifigan_odd_kernel")


@pytest.mark.golden
@pytest.mark.parametrize("impl", implementations("mrf"))
@pytest.mark.parametrize("name", CASES)
def test_inference_script(name: str, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case = golden(name)
    h = AttrDict(json.loads((case.dir / "config.json").read_text()))
    generator = Generator(h).to("cpu")
    path = next(path for path in case.dir.iterdir() if path.name.startswith(("g_", "generator")))
    state_dict_g = torch.load(path, map_location="cpu", weights_only=True)
    result = generator.load_state_dict(state_dict_g["generator"])
    assert not result.missing_keys
    assert not result.unexpected_keys
    generator.eval()
    generator.remove_weight_norm()
    with torch.no_grad():
        wav = generator(case.inputs["mel"])
    assert_golden(wav, case, "wav")
    assert generator.num_upsamples == len(h.upsample_rates)
    assert generator.h.upsample_initial_channel == h.upsample_initial_channel


@pytest.mark.golden
def test_front_end() -> None:
    case = golden("mel_hifigan")
    args = (1024, 80, 22050, 256, 1024, 0)
    assert_golden(mel_spectrogram(case.inputs["wav"], *args, 8000, center=False), case, "mel_fmax8000")
    assert_golden(mel_spectrogram(case.inputs["wav"], *args, None), case, "mel_fmax_none")
    with pytest.raises(ArgumentError, match="center"):
        mel_spectrogram(case.inputs["wav"], *args, 8000, center=True)


@pytest.mark.parametrize("h", [H, AttrDict(H), SimpleNamespace(**H)], ids=["dict", "AttrDict", "object"])
def test_any_kind_of_h(h: object) -> None:
    generator = Generator(h)
    assert generator(torch.randn(2, 80, 5)).shape == (2, 1, 40)
    assert set(generator.state_dict()) == set(generator._model.state_dict())


def test_training_reaches_every_parameter() -> None:
    generator = Generator({**H, "resblock": "2"})
    generator(torch.randn(1, 80, 5)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())


def test_published_configuration() -> None:
    values = {name: getattr(HIFIGAN_V2, name) for name in H}
    assert sum(p.numel() for p in Generator(values).parameters()) == 925_985


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match=r"h: field 'upsample_rates' is missing"):
        Generator({name: value for name, value in H.items() if name != "upsample_rates"})
    with pytest.raises(ArgumentError, match="upsample_initial_channel"):
        Generator({**H, "upsample_initial_channel": 2})
    generator = Generator(H)
    state = generator.state_dict()
    half = {**state, "conv_pre.weight_g": torch.ones(16, 1, 1)}
    with pytest.raises(RuntimeError, match=r"conv_pre\.weight_g"):
        generator.load_state_dict(half)
    del state["conv_post.bias"]
    with pytest.raises(RuntimeError, match=r"conv_post\.bias"):
        generator.load_state_dict(state)
    assert generator.load_state_dict(state, strict=False).missing_keys == ["conv_post.bias"]
    with pytest.raises(AttributeError, match="colour"):
        _ = AttrDict(H).colour
