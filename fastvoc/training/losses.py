"""Losses of HiFi-GAN (arXiv 2010.05646) and the multi-resolution STFT loss of Parallel WaveGAN (arXiv 1910.11480)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.mel import MelSpectrogram
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


def mel_loss(mel: MelSpectrogram, real: Tensor, generated: Tensor) -> Tensor:
    """Mean absolute log-mel difference of [B, L] samples; HiFi-GAN weights it with 45."""
    return F.l1_loss(mel(generated), mel(real))


def waveform_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Norm of the difference of [B, 1, L] samples over the norm of the real ones.

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
            a, b = _magnitude(real, n_fft, hop), _magnitude(generated, n_fft, hop)
            # Over the batch: relative to a nearly silent item alone, any sound would be a huge error.
            convergence = (a - b).norm() / (a.norm() + self._floor)
            distance = F.l1_loss((b + self._floor).log(), (a + self._floor).log())
            total = total + convergence + distance
        return total / len(self._resolutions)


def _magnitude(wav: Tensor, n_fft: int, hop: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=wav.dtype, device=wav.device)
    spectrum = torch.stft(wav, n_fft, hop, window=window, return_complex=True)
    # 1e-14: the gradient of a root at zero would be infinite.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-14).sqrt() * (4 / n_fft)
