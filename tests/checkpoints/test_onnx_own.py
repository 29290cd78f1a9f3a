"""Our own ONNX files read back: the configuration and the front end are those that were exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import SMALL, VITS, random_state
from onnx_files import NORMAL, ODD, edit, need_onnx

import fastvoc
from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.checkpoint import Checkpoint
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import MelConfig

need_onnx()

FRONT = MelConfig(sample_rate=16000, n_fft=64, hop_length=8, win_length=64, n_mels=6)
EXPORTED = {
    "a mel": replace(SMALL, sample_rate=16000, mel=FRONT),
    "no last bias": replace(SMALL, post_bias=False),
    "a latent": replace(SMALL, latent=True),
    "a voice": VITS,
    "padded": ODD,
    "normalised": replace(NORMAL, leaky_relu_slope=0.123456789),
}


def exported(folder: Path, config: HifiGanConfig) -> tuple[fastvoc.Vocoder, Path]:
    fastvoc.save(Checkpoint(config, random_state(config), "fastvoc"), folder / "m.safetensors")
    voc = fastvoc.load_vocoder(folder / "m.safetensors", backend="torch")
    fastvoc.export(voc, folder / "m.onnx")
    return voc, folder / "m.onnx"


@pytest.mark.parametrize("name", EXPORTED)
def test_our_own_exports_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    voc, path = exported(tmp_path, EXPORTED[name])
    again = fastvoc.load_vocoder(path, backend="torch")
    assert again.config == voc.config
    assert (again.mel_config, again.assumed) == (voc.mel_config, {})
    for key, tensor in voc.model.state_dict().items():
        assert torch.allclose(again.model.state_dict()[key], tensor, rtol=1e-5, atol=1e-6), key


def test_the_metadata_of_an_export_must_fit_its_graph(tmp_path: Path) -> None:
    def told(**values: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            for entry in model.metadata_props:
                entry.value = values.get(entry.key, entry.value)

        return change

    _, path = exported(tmp_path, EXPORTED["a mel"])
    whole = path.read_bytes()
    for values, message in (
        ({"config": json.dumps(replace(SMALL, pre_kernel_size=5).to_dict())}, "pre_kernel_size is 5 in its metadata"),
        ({"config": "{}}"}, "not valid JSON"),
        ({"config": '{"colour": 3}'}, "illegal configuration in its metadata"),
        ({"mel": '{"n_fft": 3}'}, "illegal front end in its metadata"),
    ):
        path.write_bytes(whole)
        with pytest.raises(LoadError, match=message):
            detect_and_load(edit(path, told(**values)))
    path.write_bytes(whole)
    assert fastvoc.load_vocoder(edit(path, told(family="other"))).mel_config == FRONT


def test_an_unknown_front_end_says_how_to_give_one(tmp_path: Path) -> None:
    voc, _ = exported(tmp_path, SMALL)
    with pytest.raises(ArgumentError, match=r"give one to fastvoc\.load as mel="):
        voc.mel(torch.zeros(800))
