"""What a vocoder takes beside the mel, and F0 out of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.models.hift_config import CHATTERBOX
from fastvoc.models.hiftnet import HiftNet
from fastvoc.vocoder import Vocoder

CONFIG = replace(CHATTERBOX, base_channels=8, f0_channels=6)
ROWS = CONFIG.harmonics + 1


@pytest.fixture(scope="module")
def voc() -> Vocoder:
    torch.manual_seed(2)
    model = HiftNet(CONFIG).eval().requires_grad_(False)
    model.f0_predictor.classifier.bias.fill_(150.0)
    return Vocoder(model, CONFIG, CONFIG.mel)


def _mel(*shape: int) -> Tensor:
    return torch.randn(*shape) - 5


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() < 1e-4)


def test_a_batch(voc: Vocoder) -> None:
    mel = _mel(2, 80, 7)
    f0 = voc.f0(mel)
    assert f0.shape == (2, 7)
    assert close(voc(mel, f0=f0), voc(mel))
    assert close(voc(mel, f0=f0, seed=[3, 4]), voc.model(mel, f0=f0, seed=[3, 4])[:, 0])
    source = voc.model.make_source(f0, seed=3)
    assert close(voc(mel, source=source), voc(mel, f0=f0, seed=3))
    assert not close(voc(mel, f0=f0 * 1.5), voc(mel, f0=f0))
    noise, phase = torch.zeros(2, ROWS, 7 * 480), torch.zeros(2, ROWS)
    assert close(voc(mel, noise=noise, phase=phase), voc(mel, noise=noise, phase=phase, seed=9))


def test_a_single_mel_has_no_batch_axis_anywhere(voc: Vocoder) -> None:
    mel = _mel(80, 7)
    f0 = voc.f0(mel)
    assert f0.shape == (7,)
    whole = voc(mel[None], f0=f0[None], seed=5)[0]
    assert close(voc(mel, f0=f0, seed=5), whole)
    assert close(voc(mel, f0=f0, seed=torch.tensor(5)), whole)
    assert close(voc(mel, source=torch.zeros(1, 7 * 480)), voc(mel[None], source=torch.zeros(1, 1, 7 * 480))[0])
    assert voc(mel, noise=torch.zeros(ROWS, 7 * 480), phase=torch.zeros(ROWS)).shape == (7 * 480,)
    f0 += 1  # an inference tensor would refuse


def test_numpy(voc: Vocoder) -> None:
    mel = _mel(2, 80, 5)
    f0 = voc.f0(mel)
    ours = voc(mel.numpy(), f0=f0.numpy().astype(np.float64), seed=np.array([1, 2], dtype=np.int32))
    assert close(ours, voc(mel, f0=f0, seed=[1, 2]))
    assert close(voc.f0(mel.numpy()), f0)


def test_lengths(voc: Vocoder) -> None:
    mel = _mel(2, 80, 9)
    mel[1, :, 4:] = torch.nan
    f0 = voc.f0(mel, [9, 4])
    assert not f0[1, 4:].any()
    assert close(f0[1, :4], voc.f0(mel[1, :, :4]))
    beyond = f0.clone()
    beyond[1, 4:] = torch.nan
    wav = voc(mel, [9, 4], f0=beyond, seed=3)
    assert close(wav[1, : 4 * 480], voc(mel[1, :, :4], f0=f0[1, :4], seed=3))
    assert not wav[1, 4 * 480 :].any()


def test_half_precision_keeps_f0_exact(voc: Vocoder) -> None:
    half = Vocoder(HiftNet(CONFIG).eval(), CONFIG, CONFIG.mel)
    half.model.load_state_dict(voc.model.state_dict())
    half.to(torch.bfloat16)
    mel = _mel(80, 6).bfloat16()
    assert half.dtype is torch.bfloat16
    assert close(half.f0(mel), voc.f0(mel.float()))
    assert half(mel, f0=torch.full((6,), 123.4)).shape == (6 * 480,)


def test_shapes_in_errors_are_those_that_came(voc: Vocoder) -> None:
    mel = _mel(80, 6)
    shapes = {"f0": (6,), "source": (1, 6 * 480), "phase": (9,), "noise": (9, 6 * 480)}
    assert voc.model.input_shapes(6) == shapes
    for name, shape in shapes.items():
        for wrong in ((1, *shape), (*shape[:-1], shape[-1] + 1), ()):
            text = re.escape(f"{name}: expected {list(shape)} for a mel [80, 6], got {list(wrong)}")
            for value in (torch.ones(wrong), np.ones(wrong, np.float32)):
                with pytest.raises(ShapeError, match=text):
                    voc(mel, check=False, **{name: value})
        assert voc(mel, check=False, **{name: torch.ones(shape)}).shape == (6 * 480,)


def test_wrong_inputs_are_named(voc: Vocoder) -> None:
    mel = _mel(2, 80, 6)
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ArgumentError, "pitch: HiftNet has no such input; it takes f0, source, seed, phase, noise", {"pitch": 3}),
        (ArgumentError, "f0: holds NaN or infinity", {"f0": torch.full((2, 6), torch.nan)}),
        (ArgumentError, "source: holds NaN or infinity", {"source": torch.full((2, 1, 6 * 480), torch.inf)}),
        (ShapeError, "f0: expected", {"f0": torch.ones(2, 5)}),
        (ShapeError, "source: expected", {"source": torch.ones(2, 6 * 480)}),
        (DtypeError, "f0: expected", {"f0": torch.ones(2, 6, dtype=torch.long)}),
        (DtypeError, "f0: expected", {"f0": np.ones((2, 6), dtype=bool)}),
        (DtypeError, "f0: expected", {"f0": [[1.0] * 6] * 2}),
        (DeviceError, "f0: expected", {"f0": torch.ones(2, 6, device="meta")}),
        (DtypeError, "seed: expected", {"seed": 0.5}),
        (ShapeError, "seed: expected", {"seed": [1, 2, 3]}),
    ]
    for error, text, inputs in wrong:
        with pytest.raises(error, match=text):
            voc(mel, **inputs)
    assert voc(mel, f0=torch.full((2, 6), torch.nan), check=False).shape == (2, 6 * 480)


def test_a_wrong_value_of_no_frame_is_found_whatever_the_lengths(voc: Vocoder) -> None:
    frames = voc.model.input_shapes(1)["phase"][0]  # as many as there are phases: they are no frames all the same
    phase, f0 = torch.zeros(2, frames), torch.full((2, frames), 100.0)
    phase[0, 5] = f0[0, 5] = torch.nan
    with pytest.raises(ArgumentError, match="phase: holds NaN or infinity"):
        voc(_mel(2, 80, frames), [3, frames], phase=phase)
    assert voc(_mel(2, 80, frames), [3, frames], f0=f0).isfinite().all()


def test_models_without_such_inputs_say_so() -> None:
    config = HifiGanConfig(upsample_rates=(4,), upsample_kernel_sizes=(8,), upsample_initial_channel=8)
    voc = Vocoder(HifiGan(config).eval(), config)
    with pytest.raises(ArgumentError, match="f0: HifiGan has no such input; it takes nothing but the mel"):
        voc(_mel(80, 5), f0=torch.ones(5))
    with pytest.raises(ArgumentError, match="f0: HifiGan does not predict F0"):
        voc.f0(_mel(80, 5))


def test_f0_checks_its_mel(voc: Vocoder) -> None:
    with pytest.raises(ShapeError, match="it is transposed"):
        voc.f0(_mel(5, 80))
    with pytest.raises(ArgumentError, match="mel: holds NaN or infinity"):
        voc.f0(torch.full((80, 5), torch.nan))
    assert voc.f0(torch.full((80, 5), torch.nan), check=False).isnan().all()
