"""The mel doctor names what is wrong with real speech, and mends what can be mended exactly."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from front_ends import SPEECH, Fault, clips, faults, right
from test_vocoder import _vocoder

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.sound.mel import (
    COSYVOICE2_24K,
    HIFIGAN_22K,
    PRESETS,
    SPEECHT5_16K,
    TACOTRON2_22K,
    VOCOS_24K,
    MelConfig,
    MelSpectrogram,
    convert,
)
from fastvoc.sound.mel_doctor import Diagnosis, diagnose

LN10 = math.log(10.0)
MODELS = {"hifigan": HIFIGAN_22K, "speecht5": SPEECHT5_16K, "cosyvoice2": COSYVOICE2_24K}
each_set = pytest.mark.parametrize("most", [2, pytest.param(9, marks=pytest.mark.slow)])  # clips of the nine
MENDED = {"the other logarithm", "decibels", "linear", "normalised", "each band normalised", "transposed"}


def judged(models: list[str], most: int, *, with_wav: bool) -> tuple[float, float, list[str]]:
    """Precision and recall of what is claimed, over all models, clips and front ends, and what was wrong."""
    count: Counter[str] = Counter()
    wrong = []
    for name in models:
        config = MODELS[name]
        for i, wav in enumerate(clips(config.sample_rate, SPEECH[:: 9 // most][:most])):
            for fault, how in faults(config).items():
                mel = how.make(wav, config)
                found = set(diagnose(mel, config, wav if with_wav else None).kinds)
                meant = set(how.kinds if with_wav else how.alone)
                count["right"] += len(found & meant)
                count["claimed"] += len(found)
                count["there"] += len(meant)
                if found != meant:
                    wrong.append(f"{name}, clip {i}, {fault}: {sorted(found)}")
    return count["right"] / count["claimed"], count["right"] / count["there"], wrong


@each_set
def test_with_the_waveform(most: int) -> None:
    assert len(SPEECH) == 9
    assert len(faults(HIFIGAN_22K)) > 12
    precision, recall, wrong = judged(list(MODELS), most, with_wav=True)
    assert min(precision, recall) >= 0.95, wrong


@each_set
def test_from_the_mel_alone(most: int) -> None:
    """Of what changes values or axes of HiFi-GAN's front end; it claims nothing of the rest."""
    precision, recall, wrong = judged(["hifigan"], most, with_wav=False)
    assert min(precision, recall) >= 0.95, wrong


@pytest.mark.parametrize("fault", faults(HIFIGAN_22K))
def test_what_can_be_mended_is(fault: str) -> None:
    wav = next(clips(22050, SPEECH[3:4]))
    how: Fault = faults(HIFIGAN_22K)[fault]
    mel = how.make(wav, HIFIGAN_22K)
    found = diagnose(mel, HIFIGAN_22K, wav)
    assert found.kinds == how.kinds
    assert found.evidence["nepers left"] < 0.01
    own = found.evidence.get("nepers from the model's own")
    if fault in ("hop", "transposed", "another family"):
        assert own is None  # of other frames
    else:
        assert own == pytest.approx(0, abs=1e-6) if fault == "right" else own is not None and own > 0.05
    if fault == "right":
        assert found.mend(mel) is mel
    elif fault in MENDED:
        meant = right(wav, HIFIGAN_22K)
        assert (found.mend(mel) - meant).abs().max() < 2e-3
        assert "mend(mel) converts it" in found.text
    elif fault != "filters' norm":
        with pytest.raises(ArgumentError, match="waveform"):
            found.mend(mel)
        assert "make it from the waveform" in found.text


def test_two_faults_at_once() -> None:
    wav = next(clips(22050))
    config = replace(HIFIGAN_22K, f_max=None)
    for mel, kinds in (
        (right(wav, config) / LN10, {"fmax", "log10"}),
        (right(wav, config).t(), {"fmax", "transposed"}),
        ((right(wav, HIFIGAN_22K) / LN10).t(), {"log10", "transposed"}),
        ((right(wav, replace(HIFIGAN_22K, hop_length=200)) + 5) / 2, {"hop", "normalised"}),
    ):
        found = diagnose(mel, HIFIGAN_22K, wav)
        assert set(found.kinds) == kinds
    found = diagnose((right(wav, HIFIGAN_22K) / LN10).t(), HIFIGAN_22K, wav)
    assert (found.mend((right(wav, HIFIGAN_22K) / LN10).t()) - right(wav, HIFIGAN_22K)).abs().max() < 1e-4


def test_other_families_are_named() -> None:
    wav = next(clips(22050))
    mel = right(wav, TACOTRON2_22K)
    assert diagnose(mel, HIFIGAN_22K, wav).kind == "tacotron2_22k"
    assert diagnose(right(wav, HIFIGAN_22K), TACOTRON2_22K, wav).kind == "hifigan_22k"
    own = next(clips(24000))
    assert diagnose(right(own, VOCOS_24K), HIFIGAN_22K, wav).kind == "vocos_24k"
    alone = diagnose(right(own, VOCOS_24K), HIFIGAN_22K)
    assert alone.kind == "bands"
    assert "100 bands, this model takes 80; bigvgan_24k_100, vocos_24k, vocos_24k_same has so many" in alone.text


def test_what_nothing_explains() -> None:
    wav = next(clips(22050))
    other = list(clips(22050))[4][: len(wav)]
    assert diagnose(right(other, HIFIGAN_22K), HIFIGAN_22K, wav).kind == "unknown"
    assert diagnose(torch.randn(80, 190), HIFIGAN_22K, wav).kind == "unknown"
    assert diagnose(torch.randn(77, 33), HIFIGAN_22K, wav).kind == "bands"
    assert diagnose(torch.zeros(80, len(wav) // 256), HIFIGAN_22K, wav).kind == "unknown"


def test_a_vocoders_own() -> None:
    voc = _vocoder()
    wav = next(clips(22050))
    found = voc.diagnose((voc.mel(wav) / LN10).numpy(), wav.numpy())
    assert isinstance(found, Diagnosis)
    assert found.kind == "log10"
    assert str(found) == found.text
    assert voc.diagnose(voc.mel(wav) / LN10).kind == "log10"
    with pytest.raises(ArgumentError, match="does not say"):
        _vocoder(None).diagnose(voc.mel(wav))


def test_wrong_arguments() -> None:
    mel = torch.zeros(80, 60)
    for wrong, error in (
        ((mel.long(), None), DtypeError),
        ((mel[0], None), ShapeError),
        ((mel[:, :0], None), ShapeError),
        ((mel * torch.nan, None), ArgumentError),
        ((mel, torch.zeros(2, 9)), ShapeError),
        ((mel, torch.full((9,), torch.inf)), ArgumentError),
    ):
        with pytest.raises(error, match=r"(mel|wav): "):
            diagnose(wrong[0], HIFIGAN_22K, wrong[1])


@pytest.mark.parametrize("preset", PRESETS)
def test_conversions_there_and_back(preset: str) -> None:
    config = PRESETS[preset]
    mel = MelSpectrogram(config)(0.1 * torch.randn(2, 6000, dtype=torch.float64))
    for target in (
        replace(config, log="ln" if config.log == "log10" else "log10"),
        replace(config, norm=None if config.norm else "slaney"),
        replace(config, floor=1e-4),
        replace(config, f_max=config.sample_rate / 2) if config.f_max is None else config,
    ):
        meant = MelSpectrogram(target)(0.1 * torch.randn(2, 6000, dtype=torch.float64, generator=None))
        assert convert(mel, config, target).shape == meant.shape
        back = convert(convert(mel, config, target), target, config)
        if target.floor == config.floor:
            torch.testing.assert_close(back, mel, atol=1e-9, rtol=0)


@pytest.mark.parametrize("target", [{"log": "log10"}, {"norm": None}, {"floor": 1e-3}, {"floor": 1e-3, "log": "log10"}])
def test_a_conversion_is_what_the_other_front_end_makes(target: dict[str, object]) -> None:
    wav = 0.1 * torch.randn(20000, dtype=torch.float64)
    other = replace(HIFIGAN_22K, **target)  # type: ignore[arg-type]
    mel, meant = right(wav, HIFIGAN_22K), right(wav, other)
    assert (convert(mel, HIFIGAN_22K, other) - meant).abs().max() < 1e-9
    for unit, values in (("linear", mel.exp()), ("db", mel * 20 / LN10)):
        assert (convert(values, HIFIGAN_22K, other, unit=unit) - meant).abs().max() < 1e-9
    mean, std = mel.mean(1), mel.std(1)
    normal = (mel - mean[:, None]) / std[:, None]
    assert (convert(normal, HIFIGAN_22K, other, mean=mean, std=std) - meant).abs().max() < 1e-9
    power = replace(HIFIGAN_22K, power=2.0)
    decibels = right(wav, power) * 10 / LN10
    assert (convert(decibels, power, power, unit="db") - right(wav, power)).abs().max() < 1e-9


def _changed(**values: object) -> MelConfig:
    return replace(HIFIGAN_22K, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (_changed(hop_length=200), "hop_length: 256 became 200; only the waveform tells"),
        (_changed(f_max=None), "f_max: 8000 became 11025 Hz"),
        (_changed(power=2.0), "power"),
        (_changed(scale="htk"), "scale"),
        (TACOTRON2_22K, "pad"),
        (_changed(floor=1e-7), "floor: values of 1e-05 may have been less"),
    ],
)
def test_what_cannot_be_converted_exactly_is_refused(target: MelConfig, text: str) -> None:
    mel = right(next(clips(22050)), HIFIGAN_22K)
    mel[3, 5] = HIFIGAN_22K.log_floor
    with pytest.raises(ArgumentError, match=text):
        convert(mel, HIFIGAN_22K, target)
    assert convert(mel, HIFIGAN_22K, _changed(floor=1e-4)).min() >= math.log(1e-4)


def test_wrong_arguments_of_a_conversion() -> None:
    mel = torch.zeros(80, 3)
    for wrong, error, text in (
        ({"unit": "bel"}, ArgumentError, "unit"),
        ({"std": 0.0}, ArgumentError, "std"),
        ({"std": torch.ones(79)}, ShapeError, "std"),
        ({"mean": torch.ones(80, 1)}, ShapeError, "mean"),
        ({"mean": "0"}, DtypeError, "mean"),
        ({"mean": None}, DtypeError, "mean"),
        ({"mean": math.nan}, ArgumentError, "mean"),
        ({"std": math.inf}, ArgumentError, "std"),
        ({"mel": mel[:79]}, ShapeError, "mel"),
        ({"mel": mel.long()}, DtypeError, "mel"),
    ):
        given = {"mel": mel, **wrong}  # type: ignore[dict-item]
        with pytest.raises(error, match=text):
            convert(given.pop("mel"), HIFIGAN_22K, HIFIGAN_22K, **given)  # type: ignore[arg-type]


def test_what_is_no_config_is_told() -> None:
    for source, target in ((None, HIFIGAN_22K), (HIFIGAN_22K, "hifigan")):
        with pytest.raises(ArgumentError, match="expected a MelConfig"):
            convert(torch.zeros(80, 3), source, target)  # type: ignore[arg-type]


def test_other_bands_are_told_with_a_waveform_too() -> None:
    mel = torch.zeros(37, 20)
    assert diagnose(mel, HIFIGAN_22K).kind == "bands"
    assert diagnose(mel, HIFIGAN_22K, torch.randn(9000)).kind == "bands"


def test_numpy_is_mended() -> None:
    mel = right(next(clips(22050)), HIFIGAN_22K) / LN10
    found = diagnose(mel, HIFIGAN_22K)
    assert torch.equal(found.mend(mel.numpy()), found.mend(mel))
