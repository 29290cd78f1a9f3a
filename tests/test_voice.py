"""The embedded voices: the files, what their cards say, and that they speak."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from statistics import fmean

import pytest
import torch

import fastvoc
from fastvoc.loading import EMBEDDED
from fastvoc.models.hifigan import HIFIGAN_V2
from fastvoc.sound.audio import mono, read_audio
from fastvoc.training import metrics
from fastvoc.training.config import TrainConfig
from fastvoc.training.data import find_clips, read_clip
from helpers import ROOT, golden_folder, relative_l2

ASSETS = ROOT / "fastvoc" / "assets"
RESULTS = ROOT / "benchmarks" / "results" / "voice.json"
CARDS = {"hifigan": "hifigan_v2_voice", "vocos-22k": "vocos_22k_voice"}
PESQ_BARS, STOI_BARS = {"hifigan": 2.5, "vocos-22k": 2.9}, {"hifigan": 0.94, "vocos-22k": 0.955}
each_voice = pytest.mark.parametrize("name", sorted(EMBEDDED))


def test_it_is_a_small_v2_with_its_front_end() -> None:
    assert (ASSETS / "hifigan_v2_voice.safetensors").stat().st_size < 4e6
    voc = fastvoc.load("hifigan")
    assert replace(voc.config, mel_rounds=0) == HIFIGAN_V2
    assert TrainConfig.read(ASSETS / "hifigan_v2_voice.json").model() == voc.config


def test_it_is_a_small_vocos_with_the_same_front_end() -> None:
    assert (ASSETS / "vocos_22k_voice.safetensors").stat().st_size < 6e6
    voc = fastvoc.load("vocos-22k")
    assert sum(parameter.numel() for parameter in voc.model.parameters()) < 3e6
    assert voc.mel_config == HIFIGAN_V2.mel
    assert TrainConfig.read(ASSETS / "vocos_22k_voice.json").model() == voc.config


@each_voice
def test_the_demo_clip_comes_back_as_intelligible_speech(name: str) -> None:
    if missing := {"pesq", "pystoi"} - set(metrics.available()):
        pytest.skip(f"not installed: {sorted(missing)}")
    wav, rate = read_audio(ASSETS / "demo.flac")
    voc, wav = fastvoc.load(name), mono(wav)
    assert rate == voc.sample_rate
    copy = voc(voc.mel(wav))
    assert metrics.stoi(wav, copy, rate) > 0.85
    assert metrics.pesq_wb(wav, copy, rate) > 1.5
    unrelated = 0.1 * torch.randn(len(wav))
    assert metrics.stoi(wav, unrelated, rate) < 0.5


@pytest.mark.slow
@each_voice
def test_held_out_speech_clears_the_bars(name: str) -> None:
    held_out = golden_folder().parent / "speech" / "valid"
    if not held_out.is_dir():
        pytest.skip(f"no held-out clips in {held_out}")
    voc = fastvoc.load(name)
    rate, pesq, stoi = voc.sample_rate, [], []
    for path in find_clips(held_out):
        wav = read_clip(path, rate)
        copy = voc(voc.mel(wav))
        pesq.append(metrics.pesq_wb(wav, copy, rate))
        stoi.append(metrics.stoi(wav, copy, rate))
    assert fmean(pesq) >= PESQ_BARS[name]
    assert fmean(stoi) >= STOI_BARS[name]


@each_voice
def test_the_card_states_the_committed_measurement(name: str) -> None:
    means = json.loads(RESULTS.read_text())["voices"][name]["mean"]
    card = (ASSETS / f"{CARDS[name]}.md").read_text()
    assert means["pesq_wb"] >= PESQ_BARS[name]
    assert means["stoi"] >= STOI_BARS[name]
    labels = {"pesq_wb": "PESQ-wb", "stoi": "STOI", "mel_l1": "mel L1", "f0_cents": "F0 error", "voicing": "voicing"}
    for measure, label in labels.items():
        stated = re.search(rf"\| {label}[^|]*\| ([0-9.]+) \|", card)
        assert stated is not None, label
        digits = len(stated[1].partition(".")[2])
        assert float(stated[1]) == pytest.approx(means[measure], abs=0.51 * 10**-digits), label


def test_the_demo_plays_the_better_one() -> None:
    voices = json.loads(RESULTS.read_text())["voices"]
    better = max(EMBEDDED, key=lambda name: voices[name]["mean"]["pesq_wb"])
    assert f"--model {better} " in (ROOT / "Makefile").read_text()


@pytest.mark.native
def test_phase_rounds_stay_close_on_real_speech() -> None:
    """Within 5e-5 of float64 as they are; in bfloat16 to the ear, as angles of quiet bins turn."""
    voc, half = (fastvoc.load("vocos-22k", dtype=dtype, backend="cpp") for dtype in ("fp32", "bf16"))
    wav, rate = read_audio(ASSETS / "demo.flac")
    mel = voc.mel(mono(wav))
    copy, narrow = voc(mel), half(mel)
    with torch.inference_mode():
        wide = voc.model.double()(mel[None].double(), backend="torch")[0, 0]
    assert relative_l2(copy, wide) < 5e-5
    assert relative_l2(narrow, copy) < 10 ** (-15 / 20)
    if "pesq" in metrics.available():
        assert metrics.pesq_wb(copy, narrow, rate) > 4.2


@pytest.mark.native
@pytest.mark.parametrize("number", [0, 1, 2])
def test_bfloat16_stays_close_on_real_speech(number: int) -> None:
    """The embedded voice on mels of its own sound: a signal-to-noise ratio of at least 40 dB against float32."""
    exact, narrow = fastvoc.load("hifigan"), fastvoc.load("hifigan", dtype="bf16", backend="cpp")
    speech, rate = read_audio(ASSETS / "demo.flac")
    part = mono(speech)[number * rate : (number + 2) * rate]
    mel = exact.mel(part)
    wav = exact(mel)
    assert relative_l2(narrow(mel), wav) <= 0.01
    with narrow.stream() as stream:
        pieces = [stream.push(mel[:, i : i + 11]) for i in range(0, mel.shape[1], 11)]
        pieces.append(stream.flush())
    assert torch.equal(torch.cat(pieces), narrow(mel, exact=True))
