"""The measures on signals whose result is known."""

from __future__ import annotations

import pytest
import torch

from fastvoc.errors import ShapeError
from fastvoc.sound.mel import HIFIGAN_22K, MelSpectrogram
from fastvoc.training import metrics

MEASURES = (metrics.pesq_wb, metrics.stoi)
RATE = 22050


@pytest.fixture(autouse=True)
def _packages() -> None:
    if missing := {"pesq", "pystoi"} - set(metrics.available()):
        pytest.skip(f"not installed: {sorted(missing)}")


def speechlike() -> torch.Tensor:
    """Two seconds of syllables: a buzz with moving harmonics under an envelope of 4 Hz."""
    time = torch.arange(2 * RATE) / RATE
    phase = 2 * torch.pi * (120 * time + 3 * torch.sin(2 * torch.pi * 2 * time))
    buzz = sum(torch.sin(k * phase) / k for k in range(1, 20))
    return 0.2 * buzz * (0.05 + torch.sin(torch.pi * 4 * time) ** 2)


def test_a_perfect_copy_has_the_best_value() -> None:
    wav = speechlike()
    assert metrics.pesq_wb(wav, wav, RATE) == pytest.approx(4.64, abs=0.01)
    assert metrics.stoi(wav, wav, RATE) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_more_noise_is_worse(measure: object) -> None:
    wav, noise = speechlike(), torch.randn(2 * RATE)
    values = [measure(wav, wav + level * noise, RATE) for level in (0.0, 0.01, 0.1)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[2] > 0.1


@pytest.mark.parametrize("measure", MEASURES)
def test_level_and_a_longer_tail_do_not_count(measure: object) -> None:
    wav = speechlike()
    longer = torch.cat([0.5 * wav, torch.zeros(200)])
    assert measure(wav, longer, RATE) == pytest.approx(measure(wav, wav, RATE), abs=0.02)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_clip_without_speech_is_unmeasurable(measure: object) -> None:
    with pytest.raises(metrics.UnmeasurableError):
        measure(torch.zeros(3000), torch.zeros(3000), RATE)
    with pytest.raises(ShapeError, match="degraded"):
        measure(torch.zeros(3000), torch.zeros(1, 3000), RATE)


def test_mel_l1_of_a_scaled_copy_is_the_logarithm_of_the_scale() -> None:
    wav = 0.1 * torch.randn(RATE)
    assert metrics.mel_l1(wav, 0.5 * wav, MelSpectrogram(HIFIGAN_22K)) == pytest.approx(0.6931, abs=1e-3)
