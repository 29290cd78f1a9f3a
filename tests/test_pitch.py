"""The F0 by which a voice's copies are judged."""

from __future__ import annotations

import sys

import pytest
import torch

from fastvoc.sound.audio import mono, read_audio
from helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import pitch

RATE = 22050


def voice(hertz: torch.Tensor) -> torch.Tensor:
    """Harmonics of an F0 [L] in Hz, the lowest the loudest."""
    phase = 2 * torch.pi * hertz.double().cumsum(0) / RATE
    return sum((k * phase).sin() / k for k in range(1, 12)).float() * 0.2  # type: ignore[union-attr]


@pytest.mark.parametrize("hertz", [70.0, 111.0, 220.0, 388.0])
def test_a_steady_voice_has_its_f0(hertz: float) -> None:
    found = pitch.pitch(voice(torch.full((RATE,), hertz)), RATE)
    torch.testing.assert_close(found, torch.full_like(found, hertz), rtol=3e-3, atol=0)


def test_a_gliding_voice_is_followed() -> None:
    glide = torch.linspace(100, 200, 2 * RATE)
    found = pitch.pitch(voice(glide), RATE)
    assert (found > 0).all()
    assert (found.diff() > 0).double().mean() > 0.95


def test_noise_and_silence_are_unvoiced() -> None:
    assert (pitch.pitch(torch.randn(RATE), RATE) > 0).double().mean() < 0.02
    assert (pitch.pitch(torch.zeros(RATE), RATE) == 0).all()


def test_errors_are_in_cents_and_in_parts_of_all_frames() -> None:
    real, copied = (voice(torch.full((RATE,), hertz)) for hertz in (200.0, 200.0 * 2 ** (30 / 1200)))
    cents, voicing = pitch.pitch_error(real, copied, RATE)
    assert cents == pytest.approx(30, abs=3)
    assert voicing == 0
    half = torch.cat([real[: RATE // 2], torch.zeros(RATE - RATE // 2)])
    cents, voicing = pitch.pitch_error(real, half, RATE)
    assert cents < 3
    assert 0.4 < voicing < 0.6


def test_a_clip_of_speech_against_itself_has_no_error() -> None:
    speech, rate = read_audio(ROOT / "fastvoc" / "assets" / "demo.flac")
    found = pitch.pitch(mono(speech), rate)
    assert 0.3 < (found > 0).double().mean() < 0.9
    assert 120 < found[found > 0].median() < 280
    assert pitch.pitch_error(mono(speech), mono(speech), rate) == (0.0, 0.0)
