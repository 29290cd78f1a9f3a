"""Spectral layers: waveform to STFT features, and log-magnitudes and phases to waveform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer, Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import istft_head as istft_head_op
from fastvoc.ops import stft as stft_op


class _Windowed(Layer, nn.Module):
    """A layer with a periodic Hann window, which is where the weight of the layer beside it is, in float32 at least.

    No buffer: what builds a model without values and assigns them then would leave it without any.
    """

    _beside: Any

    def __init__(self, n_fft: int, beside: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_beside", beside)  # no part, so that every weight has one name
        self._size = n_fft
        self._made = _hann(n_fft, torch.device("cpu"), torch.float32)

    @property
    def window(self) -> Tensor:
        """[n_fft], float32 or float64."""
        weight: Tensor = self._beside.weight
        window, wide = self._made, weight.dtype is torch.float64
        if window.device != weight.device or (window.dtype is torch.float64) is not wide:
            window = self._made = _hann(self._size, weight.device, torch.float64 if wide else torch.float32)
        return window

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.window  # noqa: B018  # follows now, not in the first call, which may be one that records a graph
        return self


def _hann(n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    # Shared by calls of every kind, so never an inference tensor.
    with torch.inference_mode(False):
        return torch.hann_window(n_fft, dtype=torch.float32, device="cpu").to(device, dtype)


class Stft(_Windowed):
    """stft with a periodic Hann window; `beside` is a layer of the same model that has a `weight`."""

    def __init__(
        self,
        n_fft: int,
        hop: int,
        beside: nn.Module,
        *,
        features: Literal["complex", "polar"] = "complex",
        padding: Literal["reflect", "none"] = "reflect",
    ) -> None:
        super().__init__(n_fft, beside)
        self._hop, self._options = hop, (features, padding)
        self.prepared = Prepared(stft_op.OP, self.params, self._tensors)

    def params(self) -> stft_op.StftParams:
        """The op's view of this layer."""
        return stft_op.StftParams(self._size, self._hop, self.window, *self._options)

    def _tensors(self) -> list[Tensor]:
        return [self.window]

    def width(self) -> int:
        return self._size + 2

    def output_lengths(self, lengths: Steps) -> Steps:
        surplus = 0 if self._options[1] == "reflect" else -self._size
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

    def _tensors(self) -> list[Tensor]:
        return [self.window]

    def output_lengths(self, lengths: Steps) -> Steps:
        if self._options[0] == "none":
            return (lengths - 1) * self._hop + self._size
        return (lengths - int(self._options[0] == "center")) * self._hop

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        run, _ = super().bound(backend)
        return run, self.window.device.type == "cpu"
