"""Vocoder: what goes in, what comes out, and what is refused before anything runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from signals import SPEECH, speech, synthetic
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, MelWarning, ShapeError
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.sound.mel import (
    COSYVOICE2_24K,
    HIFIGAN_22K,
    SPEECHT5_16K,
    TACOTRON2_22K,
    VOCOS_24K,
    MelConfig,
    MelSpectrogram,
)
from fastvoc.vocoder import Vocoder


def _vocoder(mel: MelConfig | None = HIFIGAN_22K, **fields: Any) -> Vocoder:
    """A tiny random HiFi-GAN of hop 256."""
    config = HifiGanConfig(
        num_mels=80 if mel is None else mel.n_mels,
        sample_rate=22050 if mel is None else mel.sample_rate,
        upsample_rates=(16, 16),
        upsample_kernel_sizes=(32, 32),
        upsample_initial_channel=8,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),),
        mel=mel,
        **fields,
    )
    torch.manual_seed(1)
    model = HifiGan(config).eval().requires_grad_(False)
    return Vocoder(model, config, config.mel)


@pytest.fixture(scope="module")
def voc() -> Vocoder:
    return _vocoder()


def _mel(*shape: int) -> Tensor:
    return torch.randn(*shape) - 5


def test_calls_the_model(voc: Vocoder) -> None:
    mel = _mel(2, 80, 20)
    wav = voc(mel)
    assert wav.shape == (2, 20 * voc.hop)
    assert wav.dtype == torch.float32
    assert torch.equal(wav, voc.model(mel)[:, 0])
    assert torch.equal(voc(mel[0]), voc.model(mel[:1])[0, 0])
    wav *= 0.5  # an inference tensor would refuse


def test_what_it_tells(voc: Vocoder) -> None:
    assert (voc.sample_rate, voc.hop, voc.n_mels) == (22050, 256, 80)
    assert (voc.device, voc.dtype) == (torch.device("cpu"), torch.float32)
    assert repr(voc) == "Vocoder(HifiGan, 22050 Hz, hop 256, torch.float32, cpu)"


@pytest.mark.parametrize(
    "change",
    [
        lambda mel: mel.double(),
        lambda mel: mel.numpy(),
        lambda mel: mel.numpy().astype(np.float64),
        lambda mel: mel.numpy().astype(">f4"),
        lambda mel: mel.numpy()[::-1].copy()[::-1],
        lambda mel: np.asfortranarray(mel.numpy()),
        lambda mel: mel.t().contiguous().t(),
        lambda mel: mel.clone().requires_grad_(),
        lambda mel: mel[:, :1].expand(-1, 20),
        lambda mel: torch.stack([mel, mel], -1)[..., 1],
    ],
)
def test_other_forms_of_a_mel(voc: Vocoder, change: Callable[[Tensor], Any]) -> None:
    mel = _mel(80, 1).expand(-1, 20).clone()
    assert torch.equal(voc(change(mel)), voc(mel))


def test_read_only_numpy(voc: Vocoder) -> None:
    mel = _mel(80, 4).numpy()
    mel.flags.writeable = False
    assert voc(mel).shape == (4 * 256,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_mel(voc: Vocoder, dtype: torch.dtype) -> None:
    mel = _mel(80, 6).to(dtype)
    assert torch.equal(voc(mel), voc(mel.float()))


@pytest.mark.parametrize("lengths", [[5, 12, 1], np.array([5, 12, 1]), torch.tensor([5, 12, 1], dtype=torch.int32)])
def test_padded_batch_equals_single_calls(voc: Vocoder, lengths: Any) -> None:
    mel = _mel(3, 80, 12)
    mel[0, :, 5:] = 1e4
    wav = voc(mel, lengths)
    for item, sound, frames in zip(mel, wav, [5, 12, 1], strict=True):
        torch.testing.assert_close(sound[: frames * 256], voc(item[:, :frames]), atol=1e-6, rtol=0)
        assert not sound[frames * 256 :].any()


@pytest.mark.parametrize(
    ("mel", "error", "message"),
    [
        (torch.zeros(80), ShapeError, r"\[80, T\] or \[B, 80, T\].*got \[80\]"),
        (torch.zeros(1, 1, 80, 9), ShapeError, r"got \[1, 1, 80, 9\]"),
        (torch.zeros(79, 9), ShapeError, r"got \[79, 9\]"),
        (torch.zeros(2, 100, 9), ShapeError, r"got \[2, 100, 9\]"),
        (torch.zeros(80, 0), ShapeError, r"T > 0, got \[80, 0\]"),
        (torch.zeros(0, 80, 9), ShapeError, r"got \[0, 80, 9\]"),
        (torch.zeros(9, 80), ShapeError, r"got \[9, 80\]: it is transposed; pass mel.transpose\(-1, -2\)"),
        (torch.zeros(2, 9, 80), ShapeError, "transposed"),
        (torch.zeros(80, 9, dtype=torch.int64), DtypeError, "torch.int64"),
        (torch.zeros(80, 9, dtype=torch.complex64), DtypeError, "torch.complex64"),
        (np.zeros((80, 9), np.int16), DtypeError, "int16"),
        (np.array([["a"]]), DtypeError, "numpy array"),
        ([[0.0]], DtypeError, "list"),
        (None, DtypeError, "NoneType"),
        (torch.zeros(80, 9, device="meta"), DeviceError, "expected a tensor on cpu.*got meta"),
    ],
)
def test_bad_mels_never_reach_the_model(
    voc: Vocoder, monkeypatch: pytest.MonkeyPatch, mel: Any, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(voc, "model", None if error is not DeviceError else voc.model)
    monkeypatch.setattr(Vocoder, "device", torch.device("cpu"))
    with pytest.raises(error, match=f"^mel: .*{message}"):
        voc(mel)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([3], ShapeError, r"expected \[2\].*got \[1\]"),
        ([3, 10], ArgumentError, r"1\.\.9, got 3\.\.10"),
        ([0, 9], ArgumentError, r"got 0\.\.9"),
        ([1.0, 2.0], DtypeError, "float32"),
        ([True, True], DtypeError, "bool"),
        (["a", "b"], DtypeError, "whole numbers"),
        ([[1], [2, 3]], DtypeError, "whole numbers"),
    ],
)
def test_bad_lengths(voc: Vocoder, lengths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^lengths: .*{message}"):
        voc(torch.zeros(2, 80, 9), lengths)
    with pytest.raises(ShapeError, match="only for a batch"):
        voc(torch.zeros(80, 9), [9])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers(voc: Vocoder, value: float) -> None:
    mel = _mel(3, 80, 60)
    clean = voc(mel, [60, 60, 40], check=False)
    mel[2, 7, 50] = value
    with pytest.raises(ArgumentError, match="NaN or infinity in item 2"):
        voc(mel)
    assert torch.equal(voc(mel, [60, 60, 40]), clean)
    torch.testing.assert_close(voc(mel, check=False)[:2], clean[:2], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"^wav: holds NaN"):
        voc.mel(torch.full((4000,), value))


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_extreme_mels_give_finite_sound(voc: Vocoder, value: float) -> None:
    wav = voc(torch.full((80, 60), value))
    assert wav.isfinite().all()
    assert wav.abs().max() <= 1


def test_own_front_end(voc: Vocoder) -> None:
    wav = torch.randn(2, 5000) * 0.1
    mel = voc.mel(wav)
    assert torch.equal(mel, MelSpectrogram(HIFIGAN_22K)(wav))
    assert torch.equal(voc.mel(wav[0].numpy()), mel[0])
    with pytest.raises(ShapeError, match="at least 385"):
        voc.mel(wav[:, :50])
    with pytest.raises(DtypeError, match=r"^wav: .*int16"):
        voc.mel(np.zeros(5000, np.int16))
    with pytest.raises(ArgumentError, match="does not say"):
        _vocoder(None).mel(wav)


def test_normalising_models_take_the_raw_mel() -> None:
    voc = _vocoder(normalize_before=True)
    voc.model.mean.fill_(-5.0)
    voc.model.scale.fill_(2.0)
    plain = _vocoder()
    mel = _mel(80, 7)
    torch.testing.assert_close(voc(mel), plain((mel + 5) / 2), atol=1e-6, rtol=0)


def test_to_and_warmup() -> None:
    voc, other = _vocoder(), _vocoder()
    assert voc.to(torch.float64) is voc
    assert voc.dtype == torch.float64
    mel = _mel(80, 10)
    assert voc.warmup(3) is voc
    torch.testing.assert_close(voc(mel), other(mel), atol=1e-5, rtol=0)


# What another front end would have given, of a log-mel by natural logarithm or by log10.
WRONG: dict[str, Callable[[Tensor, MelConfig], Tensor]] = {
    "linear magnitudes": lambda mel, c: mel.exp() if c.log == "ln" else 10**mel,
    "decibels": lambda mel, c: mel * 20 / (math.log(10) if c.log == "ln" else 1),
    "normalised": lambda mel, _: (mel - mel.mean()) / mel.std(),
    "other logarithm": lambda mel, c: mel / math.log(10) if c.log == "ln" else mel * math.log(10),
    "transposed": lambda mel, c: mel[:, 60 : 60 + c.n_mels].t(),
}
NAMED = {
    "linear magnitudes": "linear magnitudes",
    "decibels": "decibels",
    "normalised": r"normalised \(mean 0",
    "other logarithm": "log10: multiply|a natural logarithm: divide",
    "transposed": "transposed",
}
FRONT_ENDS = {
    "hifigan": HIFIGAN_22K,
    "tacotron2": TACOTRON2_22K,
    "speecht5": SPEECHT5_16K,
    "cosyvoice2": COSYVOICE2_24K,
}


@pytest.mark.golden
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_another_front_end_is_named_once(front_end: str, wrong: str) -> None:
    config = FRONT_ENDS[front_end]
    voc = _vocoder(config)
    for case in SPEECH:
        mel = WRONG[wrong](MelSpectrogram(config)(speech(case, config.sample_rate)), config)
        with pytest.warns(MelWarning, match=f"^mel: looks ({NAMED[wrong]})") as caught:
            voc(torch.stack([mel, mel]))
        assert len(caught) == 1, case
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            voc(mel, check=False)
            if wrong != "transposed":
                voc(mel[:, -49:])


@pytest.mark.golden
@pytest.mark.parametrize("front_end", [*FRONT_ENDS, "vocos"])
def test_no_warning_for_speech_of_the_right_front_end(front_end: str) -> None:
    config = VOCOS_24K if front_end == "vocos" else FRONT_ENDS[front_end]
    voc = _vocoder(config)
    for case in SPEECH:
        wav = speech(case, config.sample_rate)
        silence = torch.zeros(2 * len(wav))
        for kind in (wav, 0.03 * wav, (8 * wav).clamp(-1, 1), torch.cat([silence, wav[:20000], silence])):
            mel = MelSpectrogram(config)(kind)
            windows = [mel[:, i : i + n] for n in (50, config.n_mels) for i in range(0, mel.shape[1] - n, n)]
            for part in (mel, *windows):
                assert voc.examine(part) is None, (case, part.shape)


@pytest.mark.parametrize("config", [HIFIGAN_22K, SPEECHT5_16K], ids=["hifigan", "speecht5"])
def test_no_warning_for_other_sounds_of_the_right_front_end(config: MelConfig) -> None:
    voc = _vocoder(config)
    for name, wav in synthetic(config.sample_rate).items():
        mel = MelSpectrogram(config)(wav)
        for part in (mel, mel[:, 5:55], mel[:, 40 : 40 + config.n_mels]):
            assert voc.examine(part) is None, (name, part.shape)


def test_unknown_front_end_is_not_judged() -> None:
    assert _vocoder(None).examine(torch.rand(80, 200)) is None
    assert "linear" in str(_vocoder().examine(torch.rand(80, 200) ** 9))


def test_smoothed_speech_is_not_taken_for_another_unit() -> None:
    """Acoustic models smooth; that must not look like log10."""
    mel = MelSpectrogram(replace(HIFIGAN_22K))(speech("mel_hifigan", 22050))
    smooth = torch.nn.functional.avg_pool2d(mel[None], 3, 1, 1, count_include_pad=False)[0]
    assert _vocoder().examine(smooth) is None
