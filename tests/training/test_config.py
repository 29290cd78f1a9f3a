"""The training configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3
from fastvoc.training.config import TrainConfig
from helpers import golden


def test_defaults_are_the_published_v1() -> None:
    assert TrainConfig().model() == HIFIGAN_V1
    assert TrainConfig(upsample_initial_channel=128).model() == HIFIGAN_V2


@pytest.mark.parametrize(("case", "model"), [("hifigan_v2", HIFIGAN_V2), ("hifigan_v3", HIFIGAN_V3)])
def test_published_files_are_read(case: str, model: object) -> None:
    assert TrainConfig.read(golden(case).dir / "config.json").model() == model


def test_a_configuration_survives_json() -> None:
    config = TrainConfig(speeds=(0.9, 1.1), stft_resolutions=((256, 64),), fmax=None)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"learning_rat": 1e-4}, "unknown field 'learning_rat'"),
        ({"batch_size": 0}, "batch_size: got 0, expected a positive integer"),
        ({"batch_size": "8"}, "batch_size: got '8', expected a positive integer"),
        ({"learning_rate": -1.0}, "learning_rate: got -1.0"),
        ({"learning_rate": "fast"}, "learning_rate: got 'fast', expected a number"),
        ({"ema_decay": 1.0}, "ema_decay: got 1.0"),
        ({"segment_size": 8000}, "segment_size: got 8000, expected a multiple of hop_size 256"),
        (
            {"generator": "vocos", "hop_size": 255, "segment_size": 2550},
            "hop_size: got 255, expected less than n_fft, 1024",
        ),
        ({"generator": "vocos", "mel_rounds": 3}, "mel_rounds: got 3, expected 0, since they are hifigan's"),
        ({"hop_size": 128}, "hop_size: got 128, expected the product of upsample_rates, 256"),
        ({"speeds": []}, "speeds"),
        ({"speeds": [3.0]}, "speeds"),
        ({"fmax": 2e6}, "f_max"),
        ({"upsample_initial_channel": 8}, "upsample_initial_channel"),
    ],
)
def test_bad_fields_are_named(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_file_that_is_no_configuration_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(LoadError, match=r"config\.json"):
        TrainConfig.read(path)
    with pytest.raises(LoadError, match=r"gone\.json"):
        TrainConfig.read(tmp_path / "gone.json")
