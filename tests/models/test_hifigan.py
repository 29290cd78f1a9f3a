"""The HiFi-GAN generator: golden cases, accuracy, ragged batches, configurations, packed weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, BackendError, DeviceError, DtypeError, ShapeError
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan, HifiGanConfig
from fastvoc.runtime.registry import use_backend
from helpers import assert_golden, golden, implementations, relative_l2

IMPLS = implementations("mrf")
SMALL = replace(HIFIGAN_V2, upsample_initial_channel=32)
JIK876 = ("hifigan_v1_small", "hifigan_v1_small_parametrized", "hifigan_v2", "hifigan_v3", "hifigan_odd_kernel")
HUGGINGFACE = ("hf_speecht5_hifigan", "hf_fastspeech2conformer_hifigan")
FRAMES = (1, 2, 3, 7, 13, 31, 64, 100, 257, 1000)
UNUSUAL = {
    "16kHz": HifiGanConfig(
        sample_rate=16000, upsample_rates=(5, 4, 4, 2), upsample_kernel_sizes=(10, 8, 8, 4), upsample_initial_channel=48
    ),
    "44.1kHz": HifiGanConfig(
        sample_rate=44100,
        num_mels=128,
        upsample_rates=(8, 8, 8),
        upsample_kernel_sizes=(16, 16, 16),
        upsample_initial_channel=40,
    ),
    "48kHz-odd": HifiGanConfig(
        sample_rate=48000,
        num_mels=100,
        upsample_rates=(6, 5),
        upsample_kernel_sizes=(11, 8),
        upsample_initial_channel=20,
    ),
    "one-stage": HifiGanConfig(upsample_rates=(4,), upsample_kernel_sizes=(8,), upsample_initial_channel=6),
    "output-padding": HifiGanConfig(
        upsample_rates=(5, 3),
        upsample_kernel_sizes=(10, 6),
        upsample_initial_channel=16,
        upsample_paddings=(3, 2),
        upsample_output_paddings=(1, 1),
    ),
    "reflect": HifiGanConfig(
        upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8), upsample_initial_channel=24, pad_mode="reflect"
    ),
    "no-post-bias": HifiGanConfig(
        upsample_rates=(4,), upsample_kernel_sizes=(8,), upsample_initial_channel=16, post_bias=False
    ),
    "two-blocks": HifiGanConfig(
        upsample_rates=(4, 2),
        upsample_kernel_sizes=(8, 4),
        upsample_initial_channel=12,
        resblock="2",
        resblock_kernel_sizes=(3, 9),
        resblock_dilation_sizes=((1, 2, 4), (1,)),
    ),
}


def lively(config: HifiGanConfig) -> HifiGan:
    """Random weights under which every layer's signal keeps about the same size."""
    model = HifiGan(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0.0, 0.1)
            continue
        fan = parameter.shape[0 if name.startswith("ups") else 1] * parameter.shape[2]
        stride = config.upsample_rates[int(name.split(".")[1])] if name.startswith("ups") else 1
        torch.nn.init.normal_(parameter, 0.0, (0.5 if "resblocks" in name else 1.0) * (stride / fan) ** 0.5)
    return model.eval().requires_grad_(False)


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", JIK876)
def test_golden_jik876(name: str, impl: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    model = HifiGan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    with torch.inference_mode():
        assert_golden(model(case.inputs["mel"], backend=impl), case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", HUGGINGFACE)
def test_golden_huggingface(name: str, impl: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    model = HifiGan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    with torch.inference_mode():
        wav = model(case.inputs["spectrogram"].transpose(1, 2), backend=impl)
        assert_golden(wav[:, 0], case, "wav")
        assert_golden(model(case.inputs["spectrogram_unbatched"].T[None], backend=impl)[0, 0], case, "wav_unbatched")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("config", "longest"),
    [
        pytest.param(HIFIGAN_V1, 31, id="v1"),
        pytest.param(HIFIGAN_V1, 1000, id="v1-long", marks=pytest.mark.slow),
        pytest.param(HIFIGAN_V2, 1000, id="v2"),
        pytest.param(HIFIGAN_V3, 64, id="v3"),
    ],
)
def test_accuracy_against_float64(config: HifiGanConfig, longest: int, impl: str, nan_poison: None) -> None:
    model, exact = _in_float64(config, longest)
    for mel, expected in exact:
        wav = model(mel, backend=impl)
        assert wav.shape == expected.shape
        assert wav.isfinite().all()
        assert relative_l2(wav, expected) <= 1e-5, mel.shape[2]


@cache
def _in_float64(config: HifiGanConfig, longest: int) -> tuple[HifiGan, list[tuple[torch.Tensor, torch.Tensor]]]:
    model = lively(config)
    double = copy.deepcopy(model).double()
    mels = [torch.randn(1, config.num_mels, n) * 2 - 5 for n in FRAMES if n <= longest]
    return model, [(mel, double(mel.double(), backend="torch")) for mel in mels]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_any_legal_configuration(name: str, impl: str, nan_poison: None) -> None:
    config = UNUSUAL[name]
    model = lively(config)
    for frames in (1, 6, 29) if config.pad_mode == "zeros" else (9, 29):
        mel = torch.randn(2, config.num_mels, frames)
        wav = model(mel, backend=impl)
        assert wav.shape == (2, 1, config.samples(frames))
        assert relative_l2(wav, copy.deepcopy(model).double()(mel.double(), backend="torch")) <= 1e-5
    assert HifiGanConfig.from_dict(config.to_dict()) == config


@pytest.mark.native
def test_packed_weights_follow_the_parameters() -> None:
    model = lively(SMALL)
    mel = torch.randn(1, 80, 5)
    model.prepare("cpp")
    for change in (lambda p: p.mul_(0.5), lambda p: p.copy_(torch.randn_like(p) * 0.05)):
        before = model(mel, backend="cpp")
        with torch.no_grad():
            change(model.resblocks[4].convs1[0].weight)
            change(model.conv_pre.weight)
        after = model(mel, backend="cpp")
        assert not torch.equal(before, after)
        assert relative_l2(after, model(mel, backend="torch")) < 1e-5
    twin = copy.deepcopy(model)
    twin.conv_post.weight.data.zero_()  # autograd does not count this change, so `prepare` has to be told
    twin.prepare("cpp")
    assert torch.equal(model(mel, backend="cpp"), after)
    assert not torch.equal(twin(mel, backend="cpp"), after)
    model.load_state_dict(lively(SMALL).state_dict())
    assert relative_l2(model(mel, backend="cpp"), model(mel, backend="torch")) < 1e-5


@pytest.mark.native
def test_forced_backend_refuses_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(SMALL).to(torch.float16)
    mel = torch.randn(1, 80, 4, dtype=torch.float16)
    assert model(mel).dtype is torch.float16
    with pytest.raises(BackendError, match=r"cpp: computes in torch.float32 and torch.bfloat16, not in torch.float16"):
        model(mel, backend="cpp")
    with use_backend("cpp"), pytest.raises(BackendError, match=r"torch\.float16"):
        model(mel)
    monkeypatch.setenv("FASTVOC_BACKEND", "mrf=cpp,*=torch")
    with pytest.raises(BackendError, match="mrf"):
        model(mel)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("upsample_rates", ()),
        ("upsample_rates", (8, 0)),
        ("upsample_kernel_sizes", (16, 16)),
        ("upsample_kernel_sizes", (4, 16, 4, 4)),
        ("upsample_initial_channel", 8),
        ("upsample_initial_channel", -512),
        ("resblock", "3"),
        ("resblock_kernel_sizes", (3, 4, 11)),
        ("resblock_dilation_sizes", ((1, 3, 5),)),
        ("pad_mode", "circular"),
        ("post_kernel_size", 6),
        ("num_mels", 0),
        ("sample_rate", -1),
        ("upsample_paddings", (4,)),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"HifiGanConfig\.{field}: got "):
        HifiGanConfig(**{field: value})


def test_unknown_field_is_named() -> None:
    with pytest.raises(ArgumentError, match="'upsample_rate'"):
        HifiGanConfig.from_dict({"upsample_rate": [8]})
    with pytest.raises(ArgumentError, match=r"HifiGanConfig\.mel: got 3, expected the fields"):
        HifiGanConfig.from_dict({"mel": 3})


def test_wrong_mels_are_named() -> None:
    model = lively(SMALL)
    for mel in (torch.randn(80, 5), torch.randn(1, 81, 5), torch.randn(1, 5, 80), torch.randn(1, 80, 0)):
        with pytest.raises(ShapeError, match=r"mel: expected \[B > 0, 80, T > 0\]"):
            model(mel)
    for mel in (torch.randn(1, 80, 5).double(), torch.randn(1, 80, 5).bfloat16()):
        with pytest.raises(DtypeError, match=r"mel: expected torch\.float32 like the weights"):
            model(mel)
    with pytest.raises(DeviceError, match="mel: expected a tensor on cpu like the weights, got meta"):
        model(torch.randn(1, 80, 5, device="meta"))
