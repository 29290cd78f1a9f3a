"""Whole models on Triton's kernels: golden cases in the interpreter, and launches of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import ENCODEC_24K
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan
from fastvoc.models.hift_config import COSYVOICE2
from fastvoc.models.hiftnet import HiftNet
from fastvoc.models.vocos import VOCOS_MEL_24K, Vocos
from fastvoc.registry import use_backend
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


@pytest.mark.golden
def test_golden_vocos() -> None:
    case = golden("vocos_mel_same")
    checkpoint = detect_and_load(case.dir)
    model = Vocos(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    assert_golden(model(case.inputs["features"], backend="triton")[:, 0], case, "wav")


def _vocoder(model: Callable[[Any], Any], config: Any) -> Callable[[], Tensor]:
    return lambda: model(config).bfloat16()(torch.randn(1, config.num_mels, 9).bfloat16())


def _decoded() -> Tensor:
    return Encodec(ENCODEC_24K).bfloat16().decode([torch.zeros(1, 8, 9, dtype=torch.int64)])


@pytest.mark.parametrize(
    ("forward", "most"),
    [
        pytest.param(_vocoder(HifiGan, HIFIGAN_V1), 32, id="v1"),
        pytest.param(_vocoder(HifiGan, HIFIGAN_V2), 32, id="v2"),
        pytest.param(_vocoder(HifiGan, HIFIGAN_V3), 13, id="v3"),
        pytest.param(_vocoder(HiftNet, COSYVOICE2), 40, id="hift"),
        pytest.param(_vocoder(Vocos, VOCOS_MEL_24K), 30, id="vocos"),
        pytest.param(_decoded, 16, id="encodec-decode"),
    ],
)
def test_launches_per_forward(forward: Callable[[], Tensor], most: int) -> None:
    """Of Triton's kernels in bfloat16 on sm_90; the LSTM of EnCodec is torch's."""
    from fastvoc.kernels.launch import record
    from fastvoc.kernels.tuned import compile_for

    with compile_for("sm_90"), record(dry=True) as recording, use_backend("lstm=torch,*=triton"):
        forward()
    assert 0 < len(recording.launches) <= most, [launch.name for launch in recording.launches]
