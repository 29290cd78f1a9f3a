"""UnivNet folders of Transformers: the front end beside the weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from fastvoc.sound.mel import BIGVGAN_24K_100
from helpers import golden

pytestmark = pytest.mark.golden


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = golden("hf_univnet")
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(case.dir / name, tmp_path / name)
    return tmp_path


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def change_state(folder: Path, drop: str | None = None, **tensors: Tensor) -> None:
    state = load_file(folder / "model.safetensors")
    if drop is not None:
        del state[drop]
    save_file({**state, **tensors}, folder / "model.safetensors")


def test_weight_norm_is_folded(folder: Path) -> None:
    plain = detect_and_load(folder)
    state = load_file(folder / "model.safetensors")
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.endswith(".weight"):
            split[name] = tensor
            continue
        split[f"{name[:-6]}parametrizations.weight.original0"] = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
        split[f"{name[:-6]}parametrizations.weight.original1"] = tensor * 2
    save_file(split, folder / "model.safetensors")
    for name, tensor in detect_and_load(folder).state.items():
        torch.testing.assert_close(tensor, plain.state[name], rtol=1e-6, atol=1e-8)


def test_extractor_beside_the_weights(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    assert detect_and_load(folder).config.mel == BIGVGAN_24K_100
    change_json(path, fmin=40.0, fmax=8000.0, sampling_rate=22050, mel_floor=1e-8, compression_clip_val=1e-6)
    config = detect_and_load(folder).config
    expected = {"f_min": 40.0, "f_max": 8000.0, "sample_rate": 22050, "magnitude_eps": 1e-8, "floor": 1e-6}
    assert config.mel == replace(BIGVGAN_24K_100, **expected)
    assert config.sample_rate == 22050
    change_json(path, filter_length=None, win_length=800)
    assert detect_and_load(folder).config.mel.n_fft == 1024


@pytest.mark.parametrize(
    "values", [{"do_normalize": True}, {"center": True}, {"hop_length": 200}, {"compression_factor": 2.0}]
)
def test_a_front_end_that_is_not_ours_is_left_out(values: dict[str, Any], folder: Path) -> None:
    change_json(folder / "preprocessor_config.json", **values)
    assert detect_and_load(folder).config.mel is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_type": "hifigan"}, "model_type 'hifigan'"),
        ({"model_hidden_channels": 16}, "conv_pre.weight"),
        ({"kernel_predictor_hidden_channels": 16}, "kernel_predictor_hidden_channels"),
        ({"resblock_stride_sizes": [8, 8]}, "resblock_kernel_sizes"),
        ({"resblock_stride_sizes": [8, 8, 0]}, "resblock_stride_sizes"),
        ({"kernel_predictor_num_blocks": 2**31 - 1}, "kernel_predictor.resblocks.3.conv1.weight"),
        ({"leaky_relu_slope": "0.2"}, "leaky_relu_slope"),
    ],
)
def test_bad_configurations(values: dict[str, Any], named: str, folder: Path) -> None:
    change_json(folder / "config.json", **values)
    with pytest.raises(LoadError) as caught:
        detect_and_load(folder)
    assert named in str(caught.value)


def test_bad_states(folder: Path) -> None:
    change_state(folder, drop="resblocks.1.kernel_predictor.bias_conv.bias")
    with pytest.raises(LoadError, match=r"resblocks\.1\.kernel_predictor\.bias_conv\.bias"):
        detect_and_load(folder)


def test_unknown_tensors(folder: Path) -> None:
    change_state(folder, **{"resblocks.3.convt_pre.weight": torch.ones(8, 8, 2)})
    with pytest.raises(LoadError, match=r"resblocks\.3\.convt_pre\.weight.*no place"):
        detect_and_load(folder)
