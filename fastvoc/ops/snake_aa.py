"""snake_aa: snake between a 2x upsampling and a 2x downsampling, which keep its harmonics from aliasing (BigVGAN)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ShapeError
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.stream import MarginStream, Rows
from fastvoc.runtime.native import Native, like_rows
from fastvoc.runtime.registry import define

TAPS = 12
_REACH = 5


@cache
def kaiser_sinc() -> Tensor:
    """The published low-pass filter [12]: a sinc of cutoff 1/4 under a Kaiser window, its sum 1, computed in float64.

    The window follows from a transition half-width of 0.3 of the sampling rate (Kaiser's formula for the attenuation).
    """
    with torch.inference_mode(False):
        attenuation = 2.285 * (TAPS / 2 - 1) * math.pi * 4 * 0.3 + 7.95
        window = torch.kaiser_window(TAPS, False, 0.1102 * (attenuation - 8.7), dtype=torch.float64, device="cpu")
        time = torch.arange(TAPS, dtype=torch.float64, device="cpu") - (TAPS - 1) / 2
        taps = window * torch.sinc(time / 2)
        return (taps / taps.sum()).float()


@dataclass(frozen=True)
class SnakeAaParams:
    """alpha [C] and inverse [C] of x + inverse * sin^2(alpha * x); taps [12] of the filter on both sides of it."""

    alpha: Tensor
    inverse: Tensor
    taps: Tensor = field(default_factory=kaiser_sinc)

    def __post_init__(self) -> None:
        if self.alpha.dim() != 1 or self.inverse.shape != self.alpha.shape or len(self.alpha) == 0:
            shapes = f"{list(self.alpha.shape)} and {list(self.inverse.shape)}"
            raise ShapeError(f"snake_aa: alpha, inverse: expected [C] both, got {shapes}")
        if self.taps.shape != (TAPS,):
            raise ShapeError(f"snake_aa: taps: expected [{TAPS}], got {list(self.taps.shape)}")

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [self.alpha, self.inverse]


def _check(x: Tensor, params: SnakeAaParams, lengths: Tensor | None = None) -> None:
    check_activations("snake_aa", x, params.alpha.shape[0], params.alpha, lengths)


def upsampled_ref(x: Tensor, taps: Tensor) -> Tensor:
    """Interpolation by 2: [B, C, T] -> [B, C, 2 T]."""
    channels = x.shape[1]
    weight = taps.to(x).expand(channels, 1, -1)
    padded = F.pad(x, (5, 5), mode="replicate")
    return 2 * F.conv_transpose1d(padded, weight, stride=2, groups=channels)[:, :, 15:-15]


def snake_aa_ref(x: Tensor, params: SnakeAaParams, lengths: Tensor | None = None) -> Tensor:
    """y = down(snake(up(x))): replicate-padded interpolation by 2, snake, replicate-padded decimation by 2.

    Args:
        x: [B, C, T], dtype and device of the weights; any strides, time-major ones are the fast ones.
        params: weights and filter.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: snake_aa_ref(item, params))
    with full_float32(x):
        up = upsampled_ref(x, params.taps)
        up = up + params.inverse[:, None] * torch.sin(params.alpha[:, None] * up).square()
        weight = params.taps.to(x).expand(x.shape[1], 1, -1)
        return F.conv1d(F.pad(up, (5, 6), mode="replicate"), weight, stride=2, groups=x.shape[1])


class _Packed(NamedTuple):
    alpha: Tensor
    inverse: Tensor
    taps: Tensor


def _pack(params: SnakeAaParams) -> _Packed:
    alpha, inverse = params.alpha.detach().float(), params.inverse.detach().float()
    return _Packed(alpha.contiguous(), inverse.contiguous(), params.taps.to(alpha).contiguous())


NATIVE = Native("snake_aa", _Packed, like_rows, snake_aa_ref)


def _stream(params: SnakeAaParams, run: Callable[[Tensor], Tensor], rows: Rows | None = None) -> MarginStream:
    return MarginStream((_REACH, _REACH), len(params.alpha), run, rows=rows)


def _stream_ref(params: SnakeAaParams, _: Any) -> MarginStream:
    return _stream(params, lambda x: snake_aa_ref(x, params))


def _stream_native(params: SnakeAaParams, packed: _Packed) -> MarginStream:
    return _stream(params, NATIVE.bound(packed))


def _stream_device(params: SnakeAaParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None) -> MarginStream:
    return _stream(params, lambda x: run(x, packed), rows)


def _work(x: Tensor, *_: object) -> tuple[int, Tensor]:
    return 2 * TAPS * x.numel(), output(x, *x.shape)  # two steps of 6 taps up, one of 12 down


OP = snake_aa = define("snake_aa", _check, snake_aa_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack, stream=_stream_device)
register_triton(OP, stream=_stream_device)
