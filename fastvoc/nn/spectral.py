"""Spectral layers: waveform to STFT features, and log-magnitudes and phases to waveform."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fastvoc.nn.beside import Beside
from fastvoc.nn.layer import Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import istft_head as istft_head_op
from fastvoc.ops import stft as stft_op


class _Windowed(Beside):
    """A layer with a periodic Hann window."""

    def __init__(self, n_fft: int, beside: nn.Module) -> None:
        super().__init__(beside, partial(torch.hann_window, n_fft, dtype=torch.float32, device="cpu"))
        self._size = n_fft

    @property
    def window(self) -> Tensor:
        """[n_fft], float32 or float64."""
        return self.constant


class Stft(_Windowed):
    """stft with a periodic Hann window; `beside` is a layer of the same model that has a `weight`."""

    def __init__(
        self,
        n_fft: int,
        hop: int,
        beside: nn.Module,
        *,
        features: Literal["complex", "polar"] = "complex",
        padding: Literal["reflect", "same", "none"] = "reflect",
    ) -> None:
        super().__init__(n_fft, beside)
        self._hop, self._options = hop, (features, padding)
        self.prepared = Prepared(stft_op.OP, self.params, self._tensors)

    def params(self) -> stft_op.StftParams:
        """The op's view of this layer."""
        return stft_op.StftParams(self._size, self._hop, self.window, *self._options)

    def width(self) -> int:
        return self._size + 2

    def output_lengths(self, lengths: Steps) -> Steps:
        surplus = {"reflect": 0, "same": -self._hop, "none": -self._size}[self._options[1]]
        return 1 + (lengths + surplus) // self._hop


class IstftHead(_Windowed):
    """istft_head with a periodic Hann window; `beside` is a layer of the same model that has a `weight`."""

    def __init__(
        self,
        n_fft: int,
        hop: int,
        beside: nn.Module,
        *,
        padding: Literal["center", "same", "none"] = "center",
        clip: float | None = None,
        phase: Literal["linear", "sin"] = "linear",
        clamp: float | None = None,
    ) -> None:
        super().__init__(n_fft, beside)
        self._hop, self._options = hop, (padding, clip, phase, clamp)
        self.prepared = Prepared(istft_head_op.OP, self.params, self._tensors)

    def params(self) -> istft_head_op.IstftHeadParams:
        """The op's view of this layer."""
        return istft_head_op.IstftHeadParams(self._size, self._hop, self.window, *self._options)

    def output_lengths(self, lengths: Steps) -> Steps:
        if self._options[0] == "none":
            return (lengths - 1) * self._hop + self._size
        return (lengths - int(self._options[0] == "center")) * self._hop

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        run, _ = super().bound(backend)
        return run, self.window.device.type == "cpu"
