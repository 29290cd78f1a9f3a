"""Losses of HiFi-GAN (arXiv 2010.05646) and the multi-resolution STFT loss of Parallel WaveGAN (arXiv 1910.11480)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.sound.mel import MelConfig, MelSpectrogram, mel_filterbank
from fastvoc.training.discriminators import Judged


def discriminator_loss(real: Sequence[Judged], generated: Sequence[Judged]) -> Tensor:
    """Least-squares loss of the discriminators: sum over them of mean (1 - D(y))^2 + mean D(G)^2."""
    terms = [(1 - r[0]).square().mean() + g[0].square().mean() for r, g in zip(real, generated, strict=True)]
    return torch.stack(terms).sum()


def generator_loss(generated: Sequence[Judged]) -> Tensor:
    """Least-squares loss of the generator: sum over discriminators of mean (1 - D(G))^2."""
    return torch.stack([(1 - g[0]).square().mean() for g in generated]).sum()


def feature_loss(real: Sequence[Judged], generated: Sequence[Judged]) -> Tensor:
    """Twice the sum of mean absolute differences over all feature maps. No gradient flows into `real`."""
    terms = [
        F.l1_loss(b, a.detach()) for r, g in zip(real, generated, strict=True) for a, b in zip(r[1], g[1], strict=True)
    ]
    return 2 * torch.stack(terms).sum()


class MelLoss(nn.Module):
    """Mean absolute log-mel difference, averaged over front ends; HiFi-GAN has one and weights it with 45."""

    def __init__(self, front_ends: Sequence[MelSpectrogram]) -> None:
        super().__init__()
        self._mels = list(front_ends)

    def forward(self, real: Tensor, generated: Tensor) -> Tensor:
        """real, generated: [B, L] samples -> scalar."""
        return torch.stack([F.l1_loss(mel(generated), mel(real)) for mel in self._mels]).mean()


def waveform_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Norm of the difference of [B, L] samples over the norm of the real ones.

    A log-mel of overlapping frames holds much of the phase; this loss teaches it early, where magnitudes alone leave a
    generator at a buzz with the frames' period.
    """
    relative: Tensor = (real - generated).norm() / real.norm().clamp(min=1e-3)
    return relative


class StftLoss(nn.Module):
    """Spectral convergence plus mean absolute log-magnitude difference, averaged over resolutions.

    `resolutions` holds (n_fft, hop) in samples; the window is a Hann window of n_fft. Magnitudes are relative to a
    full-scale tone; `floor` is added to them under the logarithm, so that what is much quieter does not count.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int]], floor: float) -> None:
        super().__init__()
        self._resolutions, self._floor = [(int(n), int(h)) for n, h in resolutions], floor

    def forward(self, real: Tensor, generated: Tensor) -> Tensor:
        """real, generated: [B, L] samples -> scalar."""
        total = generated.new_zeros(())
        for n_fft, hop in self._resolutions:
            a, b = magnitude(real, n_fft, hop), magnitude(generated, n_fft, hop)
            # Over the batch: relative to a nearly silent item alone, any sound would be a huge error.
            convergence = (a - b).norm() / (a.norm() + self._floor)
            distance = F.l1_loss((b + self._floor).log(), (a + self._floor).log())
            total = total + convergence + distance
        return total / len(self._resolutions)


class LoudnessLoss(nn.Module):
    """Mean difference of loudness in 64 mel bands up to 8 kHz and frames of 32 ms, relative to the mean loudness.

    Loudness is band power to the power of 0.25, close to Zwicker's law as ITU-T P.862 uses it. Where the generated
    sound is the louder one the difference counts twice: added sound disturbs more than missing sound.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self._n_fft = round(0.032 * sample_rate / 4) * 4
        f_max = min(8000.0, sample_rate / 2)
        bands = mel_filterbank(MelConfig(sample_rate, self._n_fft, self._n_fft, self._n_fft // 4, 64, f_max=f_max))
        self._bands = bands / bands.sum(1, keepdim=True).clamp(min=1e-8)

    def forward(self, real: Tensor, generated: Tensor) -> Tensor:
        """real, generated: [B, L] samples -> scalar."""
        target = self._loudness(real)
        excess = self._loudness(generated) - target
        return (excess.abs() + excess.clamp(min=0)).mean() / target.mean()

    def _loudness(self, wav: Tensor) -> Tensor:
        power = magnitude(wav, self._n_fft, self._n_fft // 4).square()
        return (self._bands.to(power) @ power + 1e-9).pow(0.25)


class PhaseLoss(nn.Module):
    """How phases differ between neighbouring bins and between neighbouring frames: 1 - cosine of the error, summed.

    Of the two differences, which are what a mel leaves determined of a phase, each is a mean weighted by the root of
    the real magnitude, as quiet bins have no phase that is heard. APNet (arXiv 2305.07952) has them as group delay and
    phase time difference. `n_fft` and `hop` in samples.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self._n_fft, self._hop = n_fft, hop

    def forward(self, real: Tensor, generated: Tensor) -> Tensor:
        """real, generated: [B, L] samples -> scalar."""
        a, b = _spectrum(real, self._n_fft, self._hop), _spectrum(generated, self._n_fft, self._hop)
        total = generated.new_zeros(())
        for axis in (1, 2):
            turned, wanted = _turn(b, axis), _turn(a, axis)
            weight = wanted.abs().pow(0.25)
            cosine = (turned * wanted.conj()).real / (turned.abs() * wanted.abs() + 1e-6)
            total = total + ((1 - cosine) * weight).sum() / weight.sum().clamp(min=1e-6)
        return total


def _turn(spectrum: Tensor, axis: int) -> Tensor:
    """From each step along an axis to the next: a number with the phase's difference, the product of the magnitudes."""
    steps = spectrum.shape[axis] - 1
    return spectrum.narrow(axis, 1, steps) * spectrum.narrow(axis, 0, steps).conj()


def _spectrum(wav: Tensor, n_fft: int, hop: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=wav.dtype, device=wav.device)
    return torch.stft(wav, n_fft, hop, window=window, return_complex=True)


def magnitude(wav: Tensor, n_fft: int, hop: int) -> Tensor:
    """Of samples [B, L] the STFT's magnitudes [B, bins, frames] relative to a full-scale tone, under a Hann window."""
    spectrum = _spectrum(wav, n_fft, hop)
    # 1e-14: the gradient of a root at zero would be infinite.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-14).sqrt() * (4 / n_fft)
