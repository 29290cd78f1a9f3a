"""The losses against published values and against their own formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fastvoc.sound.mel import MelConfig, MelSpectrogram
from fastvoc.training.config import TrainConfig
from fastvoc.training.losses import LoudnessLoss, MelLoss, PhaseLoss, StftLoss, feature_loss, waveform_loss
from fastvoc.training.objective import distances
from helpers import GoldenCase, assert_golden


def test_mel_loss_and_gradient_equal_the_published_ones(golden: Callable[[str], GoldenCase]) -> None:
    case = golden("hifigan_losses_mel")
    config = TrainConfig.read(case.dir / "config.json")
    mel = MelSpectrogram(config.mel(config.fmax_for_loss))
    real, generated = case.inputs["y_real"], case.inputs["y_generated"].requires_grad_()
    loss = config.mel_weight * MelLoss([mel])(real, generated)
    assert_golden(loss[None], case, "mel_loss")
    assert_golden(torch.autograd.grad(loss, generated)[0], case, "grad")
    assert_golden(mel(generated), case, "mid.mel_generated")


def test_feature_loss_leaves_the_real_side_alone() -> None:
    real, generated = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    feature_loss([(real, [real])], [(generated, [generated])]).backward()
    assert real.grad is None
    assert torch.equal(generated.grad, 2 * (generated - real).sign() / 6)


def test_stft_loss_follows_its_formula() -> None:
    real, generated = torch.randn(2, 2048), torch.randn(2, 2048)
    expected = 0.0
    for n_fft, hop in ((256, 64), (512, 128)):
        a, b = (
            torch.stft(x.double(), n_fft, hop, window=torch.hann_window(n_fft).double(), return_complex=True).abs()
            for x in (real, generated)
        )
        a, b = a * 4 / n_fft, b * 4 / n_fft
        logs = (a + 0.01).log() - (b + 0.01).log()
        expected += ((a - b).norm() / (a.norm() + 0.01) + logs.abs().mean()) / 2
    assert StftLoss([(256, 64), (512, 128)], 0.01)(real, generated).item() == pytest.approx(float(expected), rel=1e-5)


def test_stft_loss_is_zero_for_equal_sounds_and_finite_for_silence() -> None:
    loss = StftLoss([(256, 64)], 1e-5)
    wav = torch.randn(1, 1024)
    assert loss(wav, wav) == 0
    silent = torch.zeros(1, 1024, requires_grad=True)
    for real in (wav, torch.zeros(1, 1024)):
        value = loss(real, silent)
        value.backward()
        assert value.isfinite()
        assert silent.grad.isfinite().all()


def test_waveform_loss_is_relative() -> None:
    real = torch.randn(2, 1, 100)
    assert waveform_loss(real, 0.75 * real).item() == pytest.approx(0.25)
    assert waveform_loss(10 * real, 7.5 * real).item() == pytest.approx(0.25)
    assert waveform_loss(torch.zeros(1, 1, 9), torch.zeros(1, 1, 9)) == 0


def test_loudness_is_the_fourth_root_of_power_and_excess_counts_twice() -> None:
    loss = LoudnessLoss(22050)
    real = torch.randn(2, 8000)
    assert loss(real, real) == 0
    assert loss(real, real / 16).item() == pytest.approx(0.75, rel=1e-3)
    assert loss(real, 16 * real).item() == pytest.approx(2 * 3, rel=1e-3)


def test_loudness_weighs_what_is_heard() -> None:
    """The same change of a tone costs more when it is loud, and nothing above 8 kHz counts."""
    time = torch.arange(8000) / 22050

    def cost(hertz: float, level: float) -> float:
        rest = 0.1 * torch.sin(2 * torch.pi * 500 * time)
        tone = level * torch.sin(2 * torch.pi * hertz * time)
        return LoudnessLoss(22050)((rest + tone)[None], (rest + 0.5 * tone)[None]).item()

    assert cost(2000, 0.1) > 2 * cost(2000, 0.001) > 0
    assert cost(10000, 0.1) < 0.1 * cost(2000, 0.1)


def test_loudness_of_silence_has_a_finite_gradient() -> None:
    silent = torch.zeros(1, 2000, requires_grad=True)
    LoudnessLoss(22050)(torch.zeros(1, 2000), silent).backward()
    assert silent.grad.isfinite().all()


def test_mel_loss_is_the_mean_over_its_front_ends() -> None:
    config = TrainConfig(mel_resolutions=((512, 40), (256, 20)))
    real, generated = 0.1 * torch.randn(2, 4096), 0.1 * torch.randn(2, 4096)
    (mel,) = [d for d in distances(config) if d.name == "mel"]
    fronts = [MelSpectrogram(MelConfig(22050, n, n, n // 4, bands)) for n, bands in config.mel_resolutions]
    expected = sum((f(real) - f(generated)).abs().mean() for f in fronts) / 2
    torch.testing.assert_close(mel.function(real, generated), expected)


def test_phase_loss_sees_neither_loudness_nor_sign_but_another_sound() -> None:
    loss = PhaseLoss(256, 64)
    real = torch.randn(4, 8192)
    assert loss(real, real).item() == pytest.approx(0, abs=1e-3)
    assert loss(real, -3 * real).item() == pytest.approx(0, abs=1e-3)
    assert loss(real, torch.randn(4, 8192)).item() > 1


def test_phase_loss_follows_its_formula() -> None:
    real, generated = torch.randn(1, 1024, dtype=torch.float64), torch.randn(1, 1024, dtype=torch.float64)
    window = torch.hann_window(128, dtype=torch.float64)
    a, b = (torch.stft(x, 128, 32, window=window, return_complex=True)[0] for x in (real, generated))
    expected = 0.0
    for axis in (0, 1):
        error = b.angle().diff(dim=axis) - a.angle().diff(dim=axis)
        magnitude = a.abs()
        steps = magnitude.shape[axis] - 1
        weight = (magnitude.narrow(axis, 1, steps) * magnitude.narrow(axis, 0, steps)).pow(0.25)
        expected += float((weight * (1 - error.cos())).sum() / weight.sum())
    assert PhaseLoss(128, 32)(real, generated).item() == pytest.approx(expected, rel=1e-4)


def test_phase_loss_is_finite_for_silence() -> None:
    silent = torch.zeros(1, 1024, requires_grad=True)
    for real in (torch.randn(1, 1024), torch.zeros(1, 1024)):
        value = PhaseLoss(128, 32)(real, silent)
        value.backward()
        assert value.isfinite()
        assert silent.grad is not None
        assert silent.grad.isfinite().all()
