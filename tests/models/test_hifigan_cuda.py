"""HiFi-GAN by the emulated CUDA kernels: golden cases, and the accuracy of tensor cores on a whole model."""

from __future__ import annotations

import pytest
import torch
from cuda_emulation import emulated

from fastvoc.checkpoints import detect_and_load
from fastvoc.models.hifigan import HifiGan
from helpers import GoldenCase, assert_golden, golden, relative_l2


def load(case: GoldenCase) -> HifiGan:
    checkpoint = detect_and_load(case.dir)
    model = HifiGan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    return model.eval().requires_grad_(False)


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    [pytest.param("hifigan_v1_small", marks=pytest.mark.slow), "hifigan_v2", "hifigan_v3", "hifigan_odd_kernel"],
)
def test_golden(name: str) -> None:
    case = golden(name)
    with torch.inference_mode(), emulated():
        assert_golden(load(case)(case.inputs["mel"], backend="cuda"), case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("name", ["hifigan_v1_small", "hifigan_v3"])
def test_bfloat16_errs_no_more_than_torch(name: str) -> None:
    case = golden(name)
    mel = case.inputs["mel"][:1, :, :12].bfloat16()
    model = load(case).bfloat16()
    with torch.inference_mode():
        theirs = model(mel, backend="torch")
        with emulated():
            ours = model(mel, backend="cuda")
        exact = model.double()(mel.double(), backend="torch")
    assert relative_l2(ours, exact) <= 1.1 * relative_l2(theirs, exact)
