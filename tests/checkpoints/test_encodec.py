"""EnCodec's checkpoints: the original's names and Transformers', recognised configurations, hashes, refusals."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_files import file_tensors, original_config, random_state, transformers_config
from codec_models import MONO, STEREO, UNUSUAL, lively
from safetensors.torch import save_file
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.encodec_config import ENCODEC_24K, ENCODEC_48K, EncodecConfig
from helpers import golden


def refused(path: Path, *named: str) -> None:
    with pytest.raises(LoadError) as caught:
        detect_and_load(path)
    for text in (str(path.parent), *named):
        assert text in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize(
    ("dialect", "form"),
    [
        ("original", "folded"),
        ("original", "weight_g"),
        ("transformers", "folded"),
        ("transformers", "weight_g"),
        ("transformers", "parametrizations"),
    ],
)
def test_any_configuration_in_every_form(name: str, dialect: str, form: str, tmp_path: Path) -> None:
    config = UNUSUAL[name]
    state = random_state(config)
    tensors = file_tensors(state, config, dialect, form)
    if dialect == "original":
        path = tmp_path / "model.th"
        torch.save(tensors, path)
    else:
        path = tmp_path / "model.safetensors"
        save_file({n: t.clone() for n, t in tensors.items()}, path)
    text = original_config(config) if dialect == "original" else transformers_config(config)
    (tmp_path / "config.json").write_text(json.dumps(text))
    checkpoint = detect_and_load(tmp_path)
    assert checkpoint.config == config
    assert checkpoint.format == {"original": "encodec", "transformers": "transformers"}[dialect]
    assert list(checkpoint.state) == list(state)
    for key, tensor in checkpoint.state.items():
        assert torch.allclose(tensor, state[key], rtol=1e-6, atol=1e-9), key


@pytest.mark.parametrize(("config", "count", "rate"), [(ENCODEC_24K, 252, 24), (ENCODEC_48K, 224, 48)])
def test_published_files_are_recognised_and_their_hash_checked(
    config: EncodecConfig, count: int, rate: int, tmp_path: Path
) -> None:
    form = "weight_g" if config.causal else "folded"
    tensors = file_tensors(random_state(config), config, "original", form)
    assert len(tensors) == count  # as published
    plain = tmp_path / "state.th"
    torch.save(tensors, plain)
    sha = hashlib.sha256(plain.read_bytes()).hexdigest()
    good = plain.rename(tmp_path / f"encodec_{rate}khz-{sha[:8]}.th")
    checkpoint = detect_and_load(good)
    assert checkpoint.config == config
    bad = good.rename(tmp_path / f"encodec_{rate}khz-d7cc33bc.th")
    refused(bad, "SHA-256 begins with d7cc33bc", sha)


@pytest.mark.golden
def test_golden_without_a_configuration(tmp_path: Path) -> None:
    folder = golden("encodec_ecdc").dir
    mono = detect_and_load(folder / "encodec_24khz.th").config
    assert mono == EncodecConfig(n_filters=4, dimension=16, n_q=4, bandwidths=(1.5, 3.0))
    stereo = detect_and_load(folder / "encodec_48khz.th").config
    assert stereo == replace(ENCODEC_48K, n_filters=3, dimension=12, n_q=2, bandwidths=(3.0,))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_residual_layers": 2},
        {"n_residual_layers": 3, "lstm": 1, "ratios": (4, 2), "compress": 4},
        {"lstm": 3, "ratios": (3, 3, 2, 2, 2)},
        {"ratios": (7,), "conv_shortcut": False, "n_residual_layers": 2, "residual_kernel_size": 5},
        {"kernel_size": 9, "last_kernel_size": 5, "bins": 128},
    ],
)
@pytest.mark.parametrize("stereo", [False, True])
def test_depth_is_read_off_the_tensors(changes: dict[str, Any], stereo: bool, tmp_path: Path) -> None:
    kind = replace(ENCODEC_48K if stereo else ENCODEC_24K, n_filters=4, dimension=12)
    wanted = replace(kind, n_q=1 << 10, **changes).fitted(kind.sample_rate, kind.n_q)
    path = tmp_path / "state.th"
    torch.save(file_tensors(random_state(wanted), wanted, "original", "folded" if stereo else "weight_g"), path)
    checkpoint = detect_and_load(path)
    assert checkpoint.config == wanted
    assert ("dilation_base" in checkpoint.assumed) == (wanted.n_residual_layers > 1)


@pytest.mark.golden
def test_weight_norm_forms_fold_to_the_same_bits() -> None:
    first, second = (detect_and_load(golden(f"hf_encodec_24k_small{end}").dir) for end in ("", "_weight_g"))
    assert first.config == second.config
    assert all(torch.equal(t, second.state[name]) for name, t in first.state.items())


def saved(folder: Path, config: EncodecConfig = MONO, drop: str = "", **changes: Tensor) -> Path:
    tensors = {**file_tensors(random_state(config), config, "original", "weight_g"), **changes}
    path = folder / "model.th"
    torch.save({name: t for name, t in tensors.items() if name != drop}, path)
    (folder / "config.json").write_text(json.dumps(original_config(config)))
    return path


BOOK = "quantizer.vq.layers.3._codebook.embed"


@pytest.mark.parametrize(
    ("drop", "changes", "named"),
    [
        ("encoder.model.0.conv.conv.bias", {}, ["encoder.layers.0.conv.bias", "missing"]),
        ("encoder.model.13.lstm.weight_hh_l1", {}, ["encoder.layers.13.weight_hh_l1", "missing"]),
        ("encoder.model.0.conv.conv.weight_g", {}, ["encoder.model.0.conv.conv.weight_v", "stands alone"]),
        (BOOK, {}, ["quantizer.codebooks.3", "missing"]),
        ("", {BOOK: torch.zeros(63, 12)}, [BOOK, "[63, 12]", "[64, 12]"]),
        ("", {BOOK: torch.full((64, 12), torch.nan)}, ["quantizer.codebooks.3", "NaN"]),
        ("", {BOOK.replace("3", "8"): torch.zeros(64, 12)}, ["no place"]),
        ("", {"quantizer.layers.3.codebook.embed": torch.zeros(64, 12)}, [BOOK, "are both"]),
        ("", {"discriminator.weight": torch.zeros(3)}, ["discriminator.weight", "no place"]),
        ("", {"encoder.model.0.conv.norm.weight": torch.ones(4)}, ["encoder.model.0.conv.norm.weight", "no place"]),
    ],
)
def test_first_wrong_tensor_is_named(drop: str, changes: dict[str, Tensor], named: list[str], tmp_path: Path) -> None:
    refused(saved(tmp_path, drop=drop, **changes), *named)


def test_kinds_that_nothing_describes(tmp_path: Path) -> None:
    config = replace(MONO, channels=2)
    path = saved(tmp_path, config)
    assert detect_and_load(path).config == config
    (tmp_path / "config.json").unlink()
    refused(path, "2 audio channels and weight_norm", "config.json")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "dac"}, "model_type 'dac'"),
        ({"codebook_dim": 7}, "codebook_dim"),
        ({"codebook_size": 100}, "codebook_size"),
        ({"chunk_length_s": 1.0, "overlap": None}, "overlap"),
        ({"upsampling_ratios": [0, 2]}, "upsampling_ratios"),
        ({"upsampling_ratios": [2] * 50000}, "upsampling_ratios"),
        ({"target_bandwidths": []}, "target_bandwidths"),
        ({"target_bandwidths": ["6"]}, "target_bandwidths"),
        ({"target_bandwidths": [1e29]}, "n_q"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"num_residual_layers": 10**6}, "n_residual_layers"),
        ({"num_filters": 2**30}, "n_filters"),
        ({"norm_type": "layer_norm"}, "norm"),
        ({"pad_mode": "circular"}, "pad_mode"),
        ({"use_causal_conv": "yes"}, "use_causal_conv"),
    ],
)
def test_hostile_transformers_configurations(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    config = UNUSUAL["mono"]
    tensors = file_tensors(random_state(config), config, "transformers", "weight_g")
    save_file({n: t.clone() for n, t in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**transformers_config(config), **changes}))
    refused(tmp_path / "model.safetensors", named)


def test_lively_models_are_loadable(tmp_path: Path) -> None:
    model = lively(STEREO)
    torch.save(file_tensors(model.state_dict(), STEREO, "original", "folded"), tmp_path / "m.th")
    (tmp_path / "config.json").write_text(json.dumps(original_config(STEREO)))
    loaded = detect_and_load(tmp_path)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in loaded.state.items())
