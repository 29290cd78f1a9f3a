"""Rounds that bring the mel of a made sound near the one it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from fastvoc.nn.beside import Beside
from fastvoc.nn.model import Stated
from fastvoc.nn.network import Trace, Value, stacked
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.spectral import IstftHead, Stft
from fastvoc.ops import conv1d as conv1d_op
from fastvoc.sound.mel import MelConfig, mel_filterbank

_RELAXATION = 1.5  # a step beyond what one frame alone wants: its neighbours, which overlap it, take part back
_MOST = 3.0  # nepers that a band is wrong by at most
_SILENT = 1e-12  # keeps the logarithm of a magnitude finite


class MelRounds(Stated):
    """So many rounds in which a sound's STFT gets the magnitudes, band by band, that a log-mel wants; its phases stay.

    Each round divides the wanted mel by that of the sound and scales every bin by what its bands say, in proportion to
    their weights there. Griffin and Lim's algorithm (1984) keeps magnitudes and looks for phases; here the phases are
    those of a network, and the magnitudes are known through the mel alone.

    mel: a front end with padding reflect_hop whose window is as long as its FFT; here silence surrounds the sound, so
    that one frame is enough. `beside` is a layer of the model that has a `weight`.
    """

    def __init__(self, mel: MelConfig, rounds: int, beside: nn.Module) -> None:
        super().__init__()
        shape = mel.n_fft, mel.hop_length, beside
        self._mel, self._rounds = mel, rounds
        self.first = Stft(*shape, features="polar", padding="same")
        self.again = Stft(*shape, features="polar", padding="none")
        self.bands = _Pointwise(beside, partial(mel_filterbank, mel))
        self.bins = _Pointwise(beside, partial(_shares, mel))
        self.between = IstftHead(*shape, padding="none")
        self.last = IstftHead(*shape, padding="same", clamp=1.0)

    def network(self, run: Trace, wav: Value, mel: Value) -> Value:
        """Samples [B, 1, T * hop] and the log-mel [B, n_mels, T] they were made from -> as many, within [-1, 1]."""
        x = run(self.first, wav)
        for later in range(self._rounds)[::-1]:
            bands = run(self.bands, run.map(partial(_raised, power=self._mel.power), x))
            gains = run(self.bins, run.join(partial(_wanted, mel=self._mel), bands, mel))
            x = run(self.between if later else self.last, run.join(_scaled, x, gains))
            x = run(self.again, x) if later else x
        return x


class _Pointwise(Beside):
    """A matrix [out, in] of constants over the channels of every step."""

    MORE = 1

    def __init__(self, beside: nn.Module, make: Callable[[], Tensor]) -> None:
        super().__init__(beside, make)
        self.prepared = Prepared(conv1d_op.OP, self.params, self._tensors)

    def params(self) -> conv1d_op.Conv1dParams:
        """The op's view of this layer."""
        return conv1d_op.Conv1dParams(self.constant[:, :, None], None)

    def width(self) -> int:
        return len(self.constant)


def _shares(mel: MelConfig) -> Tensor:
    """[bins, n_mels] what a bin takes of each band's gain: the band's part of all weights there."""
    filters = mel_filterbank(mel)
    return (filters / filters.sum(0).clamp(min=torch.finfo(filters.dtype).tiny)).t().contiguous()


def _raised(x: Tensor, power: float) -> Tensor:
    """Of magnitudes and angles the magnitudes as the mel sums them."""
    magnitude = x.chunk(2, 1)[0]
    return magnitude if power == 1.0 else torch.square(magnitude)


def _wanted(bands: Tensor, given: Tensor, mel: MelConfig) -> Tensor:
    """The logarithm of the gain of each band's magnitude."""
    base = 1.0 if mel.log == "ln" else math.log(10.0)
    lacking = given * base - torch.log(torch.clamp(bands, min=mel.floor))
    return torch.clamp(lacking * (1.0 / mel.power), min=-_MOST, max=_MOST) * _RELAXATION


def _scaled(x: Tensor, gains: Tensor) -> Tensor:
    """Magnitudes and angles to log-magnitudes, raised by the gains, and angles."""
    magnitude, angle = x.chunk(2, 1)
    return stacked(torch.log(torch.clamp(magnitude, min=_SILENT)) + gains, angle)
