"""Whole models on Triton's kernels: golden cases in the interpreter, and launches of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from fastvoc.checkpoints import detect_and_load
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan
from helpers import assert_golden, golden, need_triton


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    need_triton()
    with torch.inference_mode():
        yield


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    [
        "hifigan_odd_kernel",
        pytest.param("hifigan_v3", marks=pytest.mark.slow),
        pytest.param("hifigan_v1_small", marks=pytest.mark.slow),
        pytest.param("hifigan_v2", marks=pytest.mark.slow),
    ],
)
def test_golden_hifigan(name: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    model = HifiGan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    assert_golden(model(case.inputs["mel"], backend="triton"), case, "wav")


def _hifigan(config: object) -> Callable[[], None]:
    return lambda: HifiGan(config)(torch.randn(1, config.num_mels, 9), backend="triton")


@pytest.mark.parametrize(
    ("forward", "most"),
    [
        pytest.param(_hifigan(HIFIGAN_V1), 32, id="v1"),
        pytest.param(_hifigan(HIFIGAN_V2), 32, id="v2"),
        pytest.param(_hifigan(HIFIGAN_V3), 13, id="v3"),
    ],
)
def test_launches_per_forward(forward: Callable[[], None], most: int) -> None:
    from fastvoc.kernels.launch import record

    with record(dry=True) as recording:
        forward()
    assert 0 < len(recording.launches) <= most, [launch.name for launch in recording.launches]
