"""Log-mel front ends against published values, an independent formula, and their own streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.sound.mel import (
    BIGVGAN_24K_100,
    COSYVOICE2_24K,
    COSYVOICE3_24K,
    HIFIGAN_22K,
    PRESETS,
    SPEECHT5_16K,
    TACOTRON2_22K,
    VOCOS_24K,
    VOCOS_24K_SAME,
    MelConfig,
    MelSpectrogram,
    MelStream,
    mel_filterbank,
)
from helpers import GoldenCase, assert_golden

HIFIGAN_LOSS = replace(HIFIGAN_22K, f_max=None)
ODD = MelConfig(
    8000, 250, 201, 67, 13, 30.0, 3900.0, scale="htk", log="log10", floor=1e-6, magnitude_eps=1e-7, power=2.0
)
GOLDEN = [
    ("mel_hifigan", "wav", "mel_fmax8000", HIFIGAN_22K),
    ("mel_hifigan", "wav", "mel_fmax_none", HIFIGAN_LOSS),
    ("hifigan_losses_mel", "y_generated", "mid.mel_generated", HIFIGAN_LOSS),
    ("mel_bigvgan_24k_100band", "wav", "mel", BIGVGAN_24K_100),
    ("mel_cosyvoice", "wav_22050", "mel_cosyvoice1_feat", HIFIGAN_22K),
    ("mel_cosyvoice", "wav_22050", "mel_cosyvoice1_loss", HIFIGAN_LOSS),
    ("mel_cosyvoice", "wav_24000", "mel_cosyvoice2_feat", COSYVOICE2_24K),
    ("mel_cosyvoice", "wav_24000", "mel_cosyvoice3_feat", COSYVOICE3_24K),
    ("mel_s3gen", "wav", "mel", COSYVOICE2_24K),
    ("mel_vocos", "wav", "mel_center", VOCOS_24K),
    ("mel_vocos", "wav", "mel_same", VOCOS_24K_SAME),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "source", "name", "config"), GOLDEN, ids=[f"{c}-{n}" for c, _, n, _ in GOLDEN])
def test_equals_published(
    golden: Callable[[str], GoldenCase], case: str, source: str, name: str, config: MelConfig
) -> None:
    data = golden(case)
    assert_golden(MelSpectrogram(config)(data.inputs[source]), data, name)


@pytest.mark.golden
def test_filterbank_equals_published(golden: Callable[[str], GoldenCase]) -> None:
    assert_golden(mel_filterbank(HIFIGAN_LOSS), golden("mel_hifigan"), "mid.mel_basis_fmax_none")


@pytest.mark.golden
def test_loss_and_gradient_equal_published(golden: Callable[[str], GoldenCase]) -> None:
    data = golden("hifigan_losses_mel")
    mel = MelSpectrogram(HIFIGAN_LOSS)
    made = data.inputs["y_generated"].clone().requires_grad_()
    loss = 45 * (mel(data.inputs["y_real"]) - mel(made)).abs().mean()
    loss.backward()
    assert_golden(loss[None], data, "mel_loss")
    assert made.grad is not None
    assert_golden(made.grad, data, "grad")


def test_speecht5_equals_transformers() -> None:
    data = load_file(Path(__file__).parent / "data" / "mel_speecht5" / "io.safetensors")
    ours = MelSpectrogram(SPEECHT5_16K)(data["wav"] / 32768)
    assert ours.shape == data["mel"].shape
    assert (ours - data["mel"]).abs().max() < 2e-5


def _by_definition(config: MelConfig, wav: np.ndarray) -> np.ndarray:
    """The log-mel [n_mels, frames] of samples [L] by an explicit DFT in float64."""
    n_fft, win = config.n_fft, config.win_length
    window = np.zeros(n_fft)
    left = (n_fft - win) // 2
    window[left : left + win] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    padded = np.pad(wav, config.padding, mode="reflect")
    starts = range(0, len(padded) - n_fft + 1, config.hop_length)
    frames = np.stack([padded[s : s + n_fft] for s in starts]) * window
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) / n_fft
    power = np.abs(frames @ np.exp(-2j * np.pi * turns)) ** 2 + config.magnitude_eps
    mel = mel_filterbank(config, torch.float64).numpy() @ (power ** (config.power / 2)).T
    logarithm = np.log if config.log == "ln" else np.log10
    return logarithm(np.maximum(mel, config.floor))


@pytest.mark.parametrize("config", [ODD, replace(ODD, pad="center", power=1.0), TACOTRON2_22K], ids=["odd", "c", "t2"])
def test_equals_its_definition(config: MelConfig) -> None:
    wav = 0.1 * torch.randn(3001, dtype=torch.float64)
    ours = MelSpectrogram(config)(wav)
    assert ours.dtype == torch.float64
    assert ours.shape[-1] == config.frames(3001)
    np.testing.assert_allclose(ours.numpy(), _by_definition(config, wav.numpy()), atol=1e-9)


def test_htk_filters_peak_at_one_and_slaney_filters_have_unit_area() -> None:
    assert mel_filterbank(replace(VOCOS_24K, n_mels=10)).max() == pytest.approx(1.0, abs=0.05)
    areas = mel_filterbank(replace(HIFIGAN_22K, n_mels=20)).sum(1) * 22050 / 1024
    torch.testing.assert_close(areas, torch.ones(20), atol=0.05, rtol=0)


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
def test_silence_is_the_floor_and_its_gradient_is_finite(config: MelConfig) -> None:
    wav = torch.zeros(2, 4000, requires_grad=True)
    mel = MelSpectrogram(config)(wav)
    torch.testing.assert_close(mel, torch.full_like(mel, config.log_floor))
    mel.sum().backward()
    assert wav.grad is not None
    assert wav.grad.isfinite().all()


def test_item_depends_on_nothing_but_itself() -> None:
    mel = MelSpectrogram(HIFIGAN_22K)
    for samples in (1000, 8192, 30000):
        wav = torch.randn(70, samples)
        whole = mel(wav)
        for index in (0, 1, 69):
            assert torch.equal(whole[index], mel(wav[index]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    wav = torch.randn(4000).to(dtype)
    mel = MelSpectrogram(HIFIGAN_22K)
    assert torch.equal(mel(wav), mel(wav.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(wav), mel(wav.float()))


def test_trains_after_a_first_call_under_inference_mode() -> None:
    config = replace(HIFIGAN_22K, f_min=3.25)
    with torch.inference_mode():
        MelSpectrogram(config)(torch.randn(4000))
    wav = torch.randn(4000, requires_grad=True)
    MelSpectrogram(config)(wav).sum().backward()
    assert wav.grad is not None


def test_strided_and_expanded_signals() -> None:
    mel = MelSpectrogram(HIFIGAN_22K)
    wav = torch.randn(4000, 3)
    assert torch.equal(mel(wav.t()), mel(wav.t().contiguous()))
    assert torch.equal(mel(wav[:, 0].expand(2, -1))[1], mel(wav[:, 0].clone()))


def _stream(stream: MelStream, wav: Tensor, cuts: list[int]) -> Tensor:
    """The frames of a signal cut into pieces of these sizes, and a last one of the rest."""
    parts, position = [], 0
    for size in cuts:
        parts.append(stream.push(wav[..., position : position + size]))
        position += size
    return torch.cat([*parts, stream.push(wav[..., position:]), stream.flush()], -1)


SIZES = st.one_of(st.integers(0, 3), st.integers(0, 600), st.integers(0, 9000))


@examples(40)
@given(
    cuts=st.lists(SIZES, max_size=25), samples=st.integers(960, 12000), which=st.integers(0, 4), seed=st.integers(0, 9)
)
def test_stream_is_bit_identical_to_the_whole(cuts: list[int], samples: int, which: int, seed: int) -> None:
    config = (HIFIGAN_22K, COSYVOICE2_24K, VOCOS_24K, SPEECHT5_16K, ODD)[which]
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    mel = MelSpectrogram(config)
    assert torch.equal(_stream(mel.stream(), wav, cuts), mel(wav))


def test_stream_of_a_batch_sample_by_sample() -> None:
    mel = MelSpectrogram(ODD)
    wav = torch.randn(3, 700)
    assert torch.equal(_stream(mel.stream(), wav, [1] * 700), mel(wav))


def test_stream_gives_frames_as_soon_as_they_are_complete() -> None:
    stream = MelSpectrogram(HIFIGAN_22K).stream()
    assert stream.push(torch.randn(639)).shape == (80, 0)
    assert stream.push(torch.randn(1)).shape == (80, 1)
    assert stream.push(torch.randn(256)).shape == (80, 1)


def test_stream_misuse() -> None:
    stream = MelSpectrogram(HIFIGAN_22K).stream()
    stream.push(torch.zeros(2, 5))
    with pytest.raises(ShapeError, match=r"\[2, 'n'\].*got \[5\]"):
        stream.push(torch.zeros(5))
    with pytest.raises(ShapeError, match=r"at least 385 samples.*got 5"):
        stream.flush()
    assert stream.push(torch.zeros(2, 1000)).shape == (2, 80, 2)
    stream.flush()
    with pytest.raises(ArgumentError, match="after flush"):
        stream.push(torch.zeros(2, 5))
    with pytest.raises(ArgumentError, match="after flush"):
        stream.flush()
    assert MelSpectrogram(HIFIGAN_22K).stream().flush().shape == (80, 0)


@pytest.mark.parametrize(
    ("wav", "error", "message"),
    [
        (torch.zeros(1, 1, 4000), ShapeError, r"\[1, 1, 4000\]"),
        (torch.zeros(()), ShapeError, r"\[L\] or \[B, L\]"),
        (torch.zeros(0, 4000), ShapeError, r"\[0, 4000\]"),
        (torch.zeros(384), ShapeError, "at least 385 samples.*got 384"),
        (torch.zeros(0), ShapeError, "got 0"),
        (torch.zeros(4000, dtype=torch.int16), DtypeError, "torch.int16"),
        (torch.zeros(4000, dtype=torch.complex64), DtypeError, "torch.complex64"),
        ([0.0] * 4000, DtypeError, "list"),
    ],
)
def test_bad_signals(wav: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^wav: .*{message}"):
        MelSpectrogram(HIFIGAN_22K)(wav)


def test_shortest_signal_has_a_frame() -> None:
    for config in (*PRESETS.values(), ODD):
        assert MelSpectrogram(config)(torch.randn(config.min_samples)).shape[-1] >= 1
        with pytest.raises(ShapeError):
            MelSpectrogram(config)(torch.randn(config.min_samples - 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_fft", 0),
        ("hop_length", 1025),
        ("win_length", 2048),
        ("n_mels", 80.0),
        ("sample_rate", True),
        ("f_min", -1.0),
        ("f_max", 0.0),
        ("f_max", float("inf")),
        ("scale", "bark"),
        ("norm", "peak"),
        ("log", "log2"),
        ("pad", "constant"),
        ("power", 3.0),
        ("floor", 0.0),
        ("magnitude_eps", -1e-9),
        ("magnitude_eps", float("nan")),
    ],
)
def test_bad_configs_name_the_field(field: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"^{field}: "):
        replace(HIFIGAN_22K, **{field: value})


@pytest.mark.parametrize(("scale", "norm"), [("slaney", "slaney"), ("htk", None)])
def test_filters_beyond_nyquist_are_empty(scale: str, norm: str | None) -> None:
    config = MelConfig(8000, 256, 256, 64, 40, f_max=8000.0, scale=scale, norm=norm)
    filters = mel_filterbank(config)
    # At twice the rate nothing is beyond: the same filters on the lower half of the bins.
    whole = mel_filterbank(replace(config, sample_rate=16000, n_fft=512, win_length=512))
    assert torch.equal(filters[:, :-1], whole[:, :128])
    assert filters[0].any()
    assert not filters[-1].any()
    mel = MelSpectrogram(config)(torch.randn(4000))
    assert mel[-1].eq(config.log_floor).all()


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
def test_config_survives_json(config: MelConfig) -> None:
    assert MelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_from_other_values() -> None:
    with pytest.raises(ArgumentError, match="unknown field 'fmax'"):
        MelConfig.from_dict({**HIFIGAN_22K.to_dict(), "fmax": 8000})
    with pytest.raises(ArgumentError, match="'n_mels' is missing"):
        MelConfig.from_dict({k: v for k, v in HIFIGAN_22K.to_dict().items() if k != "n_mels"})
    with pytest.raises(ArgumentError, match="f_min"):
        MelConfig.from_dict({**HIFIGAN_22K.to_dict(), "f_min": "low"})
