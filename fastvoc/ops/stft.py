"""stft: short-time Fourier transform of a waveform, as features for a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops._checks import beside, by_item, check_activations, check_reflect
from fastvoc.ops._cpp import float32, register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import float32_only, register_triton
from fastvoc.ops.conv1d import PAD_MODES
from fastvoc.ops.stream import Geometry, Rows, TailStream
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import shortest
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define

_NO_ANGLE = 1e-12  # magnitudes below give their angle no gradient: it would be 1 / |z|, then NaN


@dataclass(frozen=True)
class StftParams:
    """Shape of a transform: even `n_fft`, `hop` in samples, window [n_fft].

    `features` complex gives all real parts, then all imaginary parts; polar gives magnitudes, then angles in radians.
    `padding` reflect centres frames on multiples of the hop, same has (n_fft - hop) / 2 zeros at either end, so that a
    frame is worth exactly `hop` samples, none has the first frame begin at the first sample.
    """

    n_fft: int
    hop: int
    window: Tensor
    features: Literal["complex", "polar"] = "complex"
    padding: Literal["reflect", "same", "none"] = "reflect"
    first_is_real: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_transform("stft", self.n_fft, self.hop, self.window)
        if self.features not in ("complex", "polar"):
            raise ArgumentError(f"stft: features: expected complex or polar, got {self.features!r}")
        if self.padding not in ("reflect", "same", "none"):
            raise ArgumentError(f"stft: padding: expected reflect, same or none, got {self.padding!r}")
        if self.padding == "same" and (self.n_fft - self.hop) % 2:
            raise ArgumentError(f"stft: hop: padding same needs an even n_fft - hop, got {self.n_fft - self.hop}")
        mirror = self.window[1:]
        centred = self.padding == "reflect" and not mirror.is_meta
        real = centred and torch.allclose(mirror, mirror.flip(0), rtol=0, atol=1e-6)
        object.__setattr__(self, "first_is_real", real)

    def tensors(self) -> list[Tensor]:
        """The window."""
        return [self.window]

    @property
    def side(self) -> int:
        """Samples beside the signal at either end."""
        return {"reflect": self.n_fft // 2, "same": (self.n_fft - self.hop) // 2, "none": 0}[self.padding]

    @property
    def pad_mode(self) -> str:
        """What those samples are, zeros or reflect."""
        return "reflect" if self.padding == "reflect" else "zeros"

    @property
    def pad(self) -> int:
        """The number of that mode (csrc/cpu/args.h)."""
        return PAD_MODES.index(self.pad_mode)

    def output_length(self, steps: int) -> int:
        """Frames made from a number of samples."""
        return (steps + 2 * self.side - self.n_fft) // self.hop + 1


def check_transform(op: str, n_fft: int, hop: int, window: Tensor) -> None:
    """`n_fft` must be even, `hop` in 1..n_fft, `window` [n_fft]."""
    if n_fft < 2 or n_fft % 2:
        raise ArgumentError(f"{op}: n_fft: expected an even number of 2 or more, got {n_fft}")
    if not 1 <= hop <= n_fft:
        raise ArgumentError(f"{op}: hop: expected 1..{n_fft}, got {hop}")
    if window.shape != (n_fft,):
        raise ShapeError(f"{op}: window: expected [{n_fft}], got {list(window.shape)}")


def _check(x: Tensor, params: StftParams, lengths: Tensor | None = None) -> None:
    check_activations("stft", x, 1, params.window, lengths)
    least = params.n_fft - 2 * params.side
    if params.padding == "reflect":
        check_reflect("stft", (params.side,), lengths, x.shape[2])
    elif (fewest := shortest(lengths, x.shape[2])) < least:
        raise ShapeError(f"stft: x: expected at least {least} samples, got {fewest}")


def stft_ref(x: Tensor, params: StftParams, lengths: Tensor | None = None) -> Tensor:
    """Frames of the signal: reflected by n_fft / 2 at either end (torch.stft's default), between zeros or as it is.

    Args:
        x: [B, 1, L] samples, dtype and device of the window.
        params: shape of the transform.
        lengths: [B] int64 on the CPU, valid samples of each item; what lies beyond is never read, the output there is
            0.

    Returns:
        [B, n_fft + 2, 1 + L // hop], with padding same L // hop, without any 1 + (L - n_fft) // hop: n_fft / 2 + 1 rows
        of each kind. Where the exact value is real, its angle is 0 or +pi, never -pi, as networks see the difference:
        in the first and last bin, and under a symmetric window and reflection in the whole first frame, which the
        reflection makes symmetric.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        frames = params.output_length(x.shape[2])
        return by_item(x, lengths, frames, lambda item, _: stft_ref(item, params))
    return _frames(beside(x, (params.side, params.side), params.pad_mode), params, params.first_is_real)


def _frames(padded: Tensor, params: StftParams, first_is_real: bool) -> Tensor:
    """Features of the frames that begin at every `hop`-th of the samples [B, 1, L]."""
    x = padded[:, 0]
    frames_in_time = x.unfold(1, params.n_fft, params.hop) * params.window
    spectrum = torch.fft.rfft(frames_in_time.to(_at_least_float32(x.dtype))).transpose(1, 2)
    if params.features == "complex":
        return torch.cat([spectrum.real, spectrum.imag], 1).to(x.dtype)
    angle = _angle(spectrum)
    if first_is_real:
        angle = torch.cat([_real_angle(spectrum.real[..., :1]), angle[..., 1:]], 2)
    return torch.cat([spectrum.abs(), angle], 1).to(x.dtype)


def _angle(z: Tensor) -> Tensor:
    """Angle in (-pi, pi]: a zero imaginary part counts as +0."""
    if z.requires_grad:
        z = torch.where(z.detach().abs() < _NO_ANGLE, z.detach(), z)
    return torch.where(z.imag == 0, _real_angle(z.real), torch.angle(z))


def _real_angle(x: Tensor) -> Tensor:
    """+pi where x < 0, 0 where it is not, NaN where it is NaN."""
    return torch.where(x < 0, torch.pi, torch.where(x.isnan(), x, 0))


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _Packed(NamedTuple):
    tables: Tensor
    radices: list[int]  # of the passes of the transform on the CPU
    size: int
    hop: int
    left: int
    right: int
    pad: int
    polar: bool
    first_is_real: bool


def _pack(params: StftParams) -> _Packed:
    radices, factors = packing.pack_real_fft(params.n_fft)
    window = F.pad(params.window.detach().cpu() * 0.5, (0, packing.PANEL))
    return _packed(params, torch.cat([factors, window]), radices)


def _pack_cuda(params: StftParams) -> _Packed:
    """Tables as csrc/cuda/stft.cuh reads them."""
    turns = torch.arange(params.n_fft, dtype=torch.float64, device="cpu") * (2 * torch.pi / params.n_fft)
    tables = torch.cat([turns.cos(), turns.sin(), params.window.detach().cpu().double()]).float()
    return _packed(params, tables.to(params.window.device), [])


def _packed(params: StftParams, tables: Tensor, radices: list[int]) -> _Packed:
    flags = params.features == "polar", params.first_is_real
    return _Packed(tables, radices, params.n_fft, params.hop, params.side, params.side, params.pad, *flags)


def supports_cpp(spec: Spec) -> str | None:
    """Why the C++ transforms refuse a call, or None."""
    if packing.fft_radices(spec.params.n_fft) is None:
        return f"transforms twice a product of 2, 3 and 5, not {spec.params.n_fft}"
    return float32(spec)


def transform_work(size: int) -> int:
    """Multiply-adds of a real transform of so many numbers, half of its 2.5 n log2 n operations, and of the window."""
    return round(1.25 * size * math.log2(size)) + size


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    frames = (x.shape[2] + p.left + p.right - p.size) // p.hop + 1
    return x.new_empty((x.shape[0], frames, p.size + 2)).transpose(1, 2)


NATIVE = Native("stft", _Packed, _fake, stft_ref)


class StftStream(TailStream):
    """The transform of a signal in chunks; run(samples, whether they begin the signal) transforms them as they are."""

    def __init__(
        self,
        params: StftParams,
        run: Callable[[Tensor, bool], Tensor],
        native: Any = None,
        rows: Rows | None = None,
    ) -> None:
        geometry = Geometry(params.n_fft, params.hop, params.side, params.side, params.pad_mode)
        super().__init__(geometry, params.n_fft + 2, lambda x: run(x, self._made == 0), native, rows=rows)


def _stream_ref(params: StftParams, _: Any) -> StftStream:
    return StftStream(params, lambda rows, first: _frames(rows, params, first and params.first_is_real))


def _stream_native(params: StftParams, packed: _Packed) -> StftStream:
    bare = packed._replace(left=0, right=0)
    begin, later = NATIVE.bound(bare), NATIVE.bound(bare._replace(first_is_real=False))
    return StftStream(params, lambda rows, first: begin(rows) if first else later(rows), (params, packed))


def _stream_device(params: StftParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None) -> StftStream:
    begin = packed._replace(left=0, right=0)
    later = begin._replace(first_is_real=False)
    return StftStream(params, lambda x, first: run(x, begin if first else later), rows=rows)


def _work(x: Tensor, params: StftParams, *_: Tensor | None) -> tuple[int, Tensor]:
    frames = params.output_length(x.shape[2])
    return x.shape[0] * frames * transform_work(params.n_fft), output(x, x.shape[0], params.n_fft + 2, frames)


OP = stft = define("stft", _check, stft_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, supports_cpp, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack_cuda, stream=_stream_device)
register_triton(OP, float32_only, _stream_device)
