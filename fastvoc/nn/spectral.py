"""Spectral layers: waveform to STFT features, and log-magnitudes and phases to waveform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import istft_head as istft_head_op
from fastvoc.ops import stft as stft_op


def _hann(n_fft: int) -> Tensor:
    """A periodic Hann window [n_fft] of the same values whatever torch's defaults are.

    float32, or float64 where that is the default; on the default device, or on the CPU where that holds no values.
    """
    window = torch.hann_window(n_fft, dtype=torch.float32, device="cpu")
    device = torch.get_default_device()
    dtype = torch.promote_types(window.dtype, torch.get_default_dtype())
    return window.to("cpu" if device.type == "meta" else device, dtype)


class Stft(Layer, Wide):
    """stft with a periodic Hann window."""

    window: Tensor

    def __init__(self, n_fft: int, hop: int, *, features: Literal["complex", "polar"] = "complex") -> None:
        super().__init__()
        self.register_buffer("window", _hann(n_fft), persistent=False)
        self._n_fft, self._hop, self._features = n_fft, hop, features
        self.prepared = Prepared(stft_op.OP, self.params, self._tensors)

    def params(self) -> stft_op.StftParams:
        """The op's view of this layer."""
        return stft_op.StftParams(self._n_fft, self._hop, self.window, self._features)

    def _tensors(self) -> list[Tensor]:
        return [self.window]

    def width(self) -> int:
        return self._n_fft + 2

    def output_lengths(self, lengths: Any) -> Any:
        return 1 + lengths // self._hop


class IstftHead(Layer, Wide):
    """istft_head with a periodic Hann window."""

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop: int,
        *,
        padding: Literal["center", "same"] = "center",
        clip: float | None = None,
        phase: Literal["linear", "sin"] = "linear",
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("window", _hann(n_fft), persistent=False)
        self._n_fft, self._hop, self._options = n_fft, hop, (padding, clip, phase, clamp)
        self.prepared = Prepared(istft_head_op.OP, self.params, self._tensors)

    def params(self) -> istft_head_op.IstftHeadParams:
        """The op's view of this layer."""
        return istft_head_op.IstftHeadParams(self._n_fft, self._hop, self.window, *self._options)

    def _tensors(self) -> list[Tensor]:
        return [self.window]

    def output_lengths(self, lengths: Any) -> Any:
        return (lengths - int(self._options[0] == "center")) * self._hop

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        run, _ = super().bound(backend)
        return run, self.window.device.type == "cpu"
