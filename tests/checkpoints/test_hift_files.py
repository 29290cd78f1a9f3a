"""Files of the HiFTNet family: published layouts, both weight norms, prefixes, drafts, native files, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hift_files import DRAFT, SMALL, draft_name, normed, state_of, yaml_of
from safetensors.torch import load_file, save_file
from torch import Tensor

import fastvoc
from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.hift_config import CHATTERBOX, COSYVOICE1, COSYVOICE2, COSYVOICE3, HIFTNET
from fastvoc.models.hiftnet import HiftNet
from fastvoc.sound.mel import COSYVOICE2_24K, COSYVOICE3_24K, HIFIGAN_22K, MelConfig
from helpers import golden

FORMATS = {
    "chatterbox_hift": ("chatterbox", replace(CHATTERBOX, base_channels=64, f0_channels=64)),
    "cosyvoice1_hift": ("cosyvoice", replace(COSYVOICE1, base_channels=64, f0_channels=64)),
    "cosyvoice2_hift": ("cosyvoice", replace(COSYVOICE2, base_channels=64, f0_channels=64)),
    "cosyvoice3_causal_hift": ("cosyvoice", replace(COSYVOICE3, base_channels=64, f0_channels=64)),
    "hiftnet_original": ("hiftnet", replace(HIFTNET, base_channels=64)),
}


def same_state(checkpoint: Checkpoint, state: dict[str, Tensor]) -> None:
    expected = {name.replace("l_linear.", ""): tensor for name, tensor in state.items()}
    assert checkpoint.state.keys() == expected.keys()
    for name, tensor in checkpoint.state.items():
        torch.testing.assert_close(tensor, expected[name].reshape(tensor.shape), rtol=1e-6, atol=1e-7)


@pytest.mark.golden
@pytest.mark.parametrize("name", FORMATS)
def test_published_layouts(name: str) -> None:
    checkpoint = detect_and_load(golden(name).dir)
    format_, config = FORMATS[name]
    assert checkpoint.format == format_
    assert checkpoint.config == config
    model = HiftNet(config)
    model.load_state_dict(checkpoint.state)


@pytest.mark.golden
@pytest.mark.parametrize("name", FORMATS)
def test_native_files_hold_the_whole_model(name: str, tmp_path: Path) -> None:
    case = golden(name)
    voc = fastvoc.load(case.dir)
    fastvoc.save(voc, tmp_path / "model.safetensors")
    again = fastvoc.load(tmp_path / "model.safetensors")
    assert again.config == voc.config
    mel = case.inputs["mel"]
    assert torch.equal(again.f0(mel), voc.f0(mel))
    f0 = voc.f0(mel)
    torch.testing.assert_close(again(mel, f0=f0, seed=9), voc(mel, f0=f0, seed=9), rtol=0, atol=1e-6)


@pytest.mark.golden
def test_folding_precision() -> None:
    folder = golden("chatterbox_hift").dir
    raw = load_file(folder / "s3gen.safetensors")
    for name, weight in detect_and_load(folder).state.items():
        g = raw.get(f"mel2wav.{name.removesuffix('weight')}parametrizations.weight.original0")
        if g is not None:
            v = raw[f"mel2wav.{name.removesuffix('weight')}parametrizations.weight.original1"].double()
            exact = v * (g.double() / v.square().sum((1, 2), keepdim=True).sqrt())
            assert (weight.double() - exact).abs().max() <= exact.abs().max() * 2**-24


@pytest.mark.parametrize("prefix", ["", "generator."])
@pytest.mark.parametrize(
    "names", [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")]
)
@pytest.mark.parametrize("name", ["cosyvoice1", "cosyvoice2", "cosyvoice3"])
def test_cosyvoice(name: str, names: tuple[str, str], prefix: str, tmp_path: Path) -> None:
    config = SMALL[name]
    state = state_of(config)
    tensors: dict[str, Any] = {prefix + key: tensor for key, tensor in normed(state, names).items()}
    if prefix:  # what else GAN training saves
        tensors |= {"discriminator.mpd.weight": torch.ones(3), "epoch": 3}
    torch.save(tensors, tmp_path / "hift.pt")
    (tmp_path / f"{name.removesuffix('1')}.yaml").write_text(yaml_of(config))
    for other in ("flow.pt", "llm.pt"):
        torch.save({"weight": torch.ones(2)}, tmp_path / other)
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.format == "cosyvoice"
    assert checkpoint.config == config
    same_state(checkpoint, state)


def test_folded_cosyvoice_with_its_front_end_and_sizes(tmp_path: Path) -> None:
    config = replace(SMALL["cosyvoice3"], lookahead=2, clamp=0.5, leaky_relu_slope=0.2, harmonics=3, f0_channels=9)
    state = state_of(config)
    torch.save(state, tmp_path / "hift.pt")
    text = yaml_of(config, conv_pre_look_right=2)
    feature = {"n_fft": 1920, "num_mels": 80, "sampling_rate": "<sample_rate>", "hop_size": 480, "win_size": 1920}
    feature |= {"fmin": 40, "fmax": None, "center": False}
    text += yaml.safe_dump({"feat_extractor": feature})
    (tmp_path / "cosyvoice3.yaml").write_text(text)
    checkpoint = detect_and_load(tmp_path / "hift.pt")
    assert checkpoint.config == replace(config, mel=replace(COSYVOICE3_24K, f_min=40.0))
    same_state(checkpoint, state)


def test_a_front_end_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    config = SMALL["cosyvoice2"]
    torch.save(state_of(config), tmp_path / "hift.pt")
    feature = {"n_fft": 1024, "num_mels": 80, "sampling_rate": 24000, "hop_size": 256, "win_size": 1024, "fmin": 0}
    (tmp_path / "cosyvoice2.yaml").write_text(yaml_of(config) + yaml.safe_dump({"feat_extractor": feature}))
    assert detect_and_load(tmp_path).config == replace(config, mel=None)


@pytest.mark.parametrize("container", ["s3gen.safetensors", "s3gen.pt"])
def test_chatterbox_among_other_tensors_without_a_configuration(container: str, tmp_path: Path) -> None:
    config = SMALL["chatterbox"]
    state = state_of(config)
    names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    tensors = {f"mel2wav.{key}": tensor for key, tensor in normed(state, names).items()}
    tensors |= {"flow.weight": torch.ones(3), "tokenizer.conv_pre.weight": torch.ones(2, 2, 2)}
    tensors |= {"speaker_encoder.steps": torch.tensor(4), "conv_pre.weight": torch.full((2, 2, 7), torch.nan)}
    (save_file if container.endswith("safetensors") else torch.save)(tensors, tmp_path / container)
    save_file({"text_emb": torch.ones(2)}, tmp_path / "t3_cfg.safetensors")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.format == "chatterbox"
    assert checkpoint.config == config
    same_state(checkpoint, state)


@pytest.mark.parametrize("draft", DRAFT)
def test_the_vocoder_draft_of_transformers(draft: str, tmp_path: Path) -> None:
    config = SMALL["chatterbox"]
    state = state_of(config)
    names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    tensors = {draft_name(key, DRAFT[draft]): tensor for key, tensor in normed(state, names).items()}
    assert len(tensors) == len(normed(state, names))
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "generator", "hop_size": 5}))
    checkpoint = detect_and_load(tmp_path)
    assert (checkpoint.format, checkpoint.config) == ("hiftnet_transformers", config)
    assert checkpoint.metadata["status"].startswith("experimental")
    same_state(checkpoint, state)


@pytest.mark.parametrize("prefix", ["hiftnet.", ""])
def test_the_model_draft_of_transformers(prefix: str, tmp_path: Path) -> None:
    config = replace(SMALL["cosyvoice1"], harmonics=4, source_amp=0.2, clamp=0.9)
    state = state_of(config)
    tensors = {prefix + key: tensor for key, tensor in normed(state, ("weight_g", "weight_v")).items()}
    save_file({**tensors, f"{prefix}stft_window": torch.hann_window(16)}, tmp_path / "model.safetensors")
    fields = {"model_type": "hiftnet", "base_channels": 8, "nb_harmonics": 4, "nsf_alpha": 0.2, "audio_limit": 0.9}
    (tmp_path / "config.json").write_text(json.dumps({**fields, "f0_predictor_cond_channels": 6}))
    checkpoint = detect_and_load(tmp_path)
    assert (checkpoint.format, checkpoint.config) == ("hiftnet_transformers", config)
    same_state(checkpoint, state)


@pytest.mark.golden
def test_hiftnet_without_its_wrapper_takes_the_last_of_its_files(tmp_path: Path) -> None:
    folder = golden("hiftnet_original").dir
    shutil.copy(folder / "config.json", tmp_path)
    state = torch.load(folder / "g_00650000", weights_only=True)["generator"]
    torch.save(state, tmp_path / "g_00700000")
    torch.save({"generator": {}}, tmp_path / "g_00000100")
    ours, theirs = detect_and_load(tmp_path), detect_and_load(folder)
    assert ours.config == theirs.config
    assert all(torch.equal(ours.state[name], tensor) for name, tensor in theirs.state.items())


def _write(folder: Path, state: dict[str, Tensor], text: str | None) -> Path:
    torch.save(state, folder / "hift.pt")
    if text is not None:
        (folder / "cosyvoice2.yaml").write_text(text)
    return folder


def test_refusals_name_what_is_wrong(tmp_path: Path) -> None:
    config = SMALL["cosyvoice2"]
    state, text = state_of(config), yaml_of(config)

    def without(name: str) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in state.items() if key != name}

    cases: list[tuple[dict[str, Tensor], str | None, str]] = [
        (state, None, "cosyvoice2.yaml or cosyvoice.yaml or config.yaml is missing"),
        (without("resblocks.4.activations2.1.alpha"), text, "'resblocks.4.activations2.1.alpha' .* is missing"),
        (without("conv_pre.weight"), text, "no tensor 'conv_pre.weight' of rank 3"),
        ({**state, "stray.weight": torch.ones(2)}, text, "'stray.weight' .* has no place"),
        ({**state, "conv_post.bias": torch.full((18,), torch.nan)}, text, "'conv_post.bias' holds NaN"),
        ({**state, "ups.1.weight": torch.ones(4, 2, 9)}, text, "'ups.1.weight' has shape .*the configuration needs"),
        (state, text.replace("upsample_rates: [8, 5, 3]", "upsample_rates: [8, 5]"), "illegal configuration"),
        (state, text.replace("upsample_rates: [8, 5, 3]", "upsample_rates: all"), "'hift.upsample_rates': expected"),
        (state, text.replace("<sample_rate>", "<nothing>"), "'hift.sampling_rate' is missing"),
        (state, text.replace("n_fft: 16", "n_fft: 15"), "illegal configuration: HiftConfig.n_fft"),
        (state, "hift: 3", "'hift': expected a mapping"),
        (state, "- 1", "expected a YAML mapping"),
    ]
    for number, (tensors, config_text, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(LoadError, match=message):
            detect_and_load(_write(folder, tensors, config_text))


@pytest.mark.golden
def test_hiftnet_refusals(tmp_path: Path) -> None:
    folder = golden("hiftnet_original").dir
    config = json.loads((folder / "config.json").read_text())
    shutil.copy(folder / "g_00650000", tmp_path)
    for changes, message in (
        ({"resblock": "2"}, "resblock '2', expected '1'"),
        ({"upsample_rates": [8]}, "illegal configuration: HiftConfig.upsample_kernel_sizes"),
        ({"gen_istft_n_fft": None}, "'gen_istft_n_fft' is missing"),
        ({"fmax": -90000}, "illegal front end"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(LoadError, match=message):
            detect_and_load(tmp_path)


def test_a_huge_configuration_is_refused_at_once(tmp_path: Path) -> None:
    config = SMALL["cosyvoice2"]
    rows = json.dumps([[1] * 16] * 16)
    text = yaml_of(config, resblock_kernel_sizes=json.dumps([3] * 16), resblock_dilation_sizes=rows)
    with pytest.raises(LoadError, match="is missing"):
        detect_and_load(_write(tmp_path, state_of(config), text))
    (tmp_path / "cosyvoice2.yaml").write_text(yaml_of(config, upsample_rates=json.dumps([2] * 30)))
    with pytest.raises(LoadError, match=r"HiftConfig\.upsample_rates"):
        detect_and_load(tmp_path)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "mel"),
    [
        ("chatterbox_hift", COSYVOICE2_24K),
        ("cosyvoice1_hift", HIFIGAN_22K),
        ("cosyvoice3_causal_hift", COSYVOICE3_24K),
        ("hiftnet_original", HIFIGAN_22K),
    ],
)
def test_front_ends(name: str, mel: MelConfig) -> None:
    assert detect_and_load(golden(name).dir).config.mel == mel
