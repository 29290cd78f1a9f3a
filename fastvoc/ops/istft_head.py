"""istft_head: log-magnitudes and phases to samples, the last layer of Vocos and HiFT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.ops import stream
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.stft import check_transform, supports_cpp, transform_work
from fastvoc.ops.stream import PolyphaseStream, Rows
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import shortest
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define

_SMALLEST_ENVELOPE = 1e-11  # torch.istft and Vocos refuse what is below
_LEAST_SQUARE = 1e-6  # added to the squared window where nothing is dropped, as frames fade to nothing at the ends


@dataclass(frozen=True)
class IstftHeadParams:
    """Shape of an inverse transform: even `n_fft`, `hop` in samples, window [n_fft].

    `padding` center drops n_fft / 2 samples at either end, as torch.istft does; same drops (n_fft - hop) / 2, so that a
    frame is worth exactly `hop` samples; none drops nothing and adds 1e-6 to the squared window. `clip` bounds the
    magnitude, `clamp` the samples. `phase` linear takes the phase rows as radians, sin takes their sine as radians
    (HiFT).
    """

    n_fft: int
    hop: int
    window: Tensor
    padding: Literal["center", "same", "none"] = "center"
    clip: float | None = None
    phase: Literal["linear", "sin"] = "linear"
    clamp: float | None = None
    shortest: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_transform("istft_head", self.n_fft, self.hop, self.window)
        if self.padding not in ("center", "same", "none"):
            raise ArgumentError(f"istft_head: padding: expected center, same or none, got {self.padding!r}")
        if self.padding == "same" and (self.n_fft - self.hop) % 2:
            raise ArgumentError(f"istft_head: hop: padding same needs an even n_fft - hop, got {self.n_fft - self.hop}")
        if self.phase not in ("linear", "sin"):
            raise ArgumentError(f"istft_head: phase: expected linear or sin, got {self.phase!r}")
        for name, bound in (("clip", self.clip), ("clamp", self.clamp)):
            if bound is not None and not bound > 0:
                raise ArgumentError(f"istft_head: {name}: expected a positive number or None, got {bound}")
        object.__setattr__(self, "shortest", self._shortest())

    def tensors(self) -> list[Tensor]:
        """The window."""
        return [self.window]

    @property
    def trim(self) -> int:
        """Samples dropped at either end of the overlapped frames."""
        return {"center": self.n_fft // 2, "same": (self.n_fft - self.hop) // 2, "none": 0}[self.padding]

    @property
    def squares(self) -> Tensor:
        """[n_fft] the window squared, of which the envelope is the sum."""
        return self.window.square() + (_LEAST_SQUARE if self.padding == "none" else 0.0)

    def output_length(self, frames: int) -> int:
        """Samples made from a number of frames."""
        return (frames - 1) * self.hop + self.n_fft - 2 * self.trim

    def envelope(self, frames: int, crop: tuple[int, int]) -> Tensor:
        """[samples] sum of the squared windows over each sample, without the first and last `crop` ones."""
        squared = self.squares.expand(1, frames, -1).transpose(1, 2)
        return _overlap_add(squared, self.hop, crop)[0]

    def _shortest(self) -> int:
        """Frames from which on every sample lies under a window; one frame more never lowers the smallest sum."""
        if self.window.is_meta:
            return 1
        for frames in range(1, self.n_fft // self.hop + 3):
            made = self.output_length(frames) > 0
            if made and self.envelope(frames, (self.trim, self.trim)).min() > _SMALLEST_ENVELOPE:
                return frames
        raise ArgumentError("istft_head: window: leaves samples without weight at this hop")


def _check(x: Tensor, params: IstftHeadParams, lengths: Tensor | None = None) -> None:
    narrow = isinstance(x, Tensor) and x.dtype is torch.bfloat16 and params.window.dtype is torch.float32
    like = params.window.to(x.dtype) if narrow else params.window
    check_activations("istft_head", x, params.n_fft + 2, like, lengths)
    fewest = shortest(lengths, x.shape[2])
    if fewest < params.shortest:
        raise ShapeError(f"istft_head: x: expected at least {params.shortest} frames, got {fewest}")


def istft_head_ref(x: Tensor, params: IstftHeadParams, lengths: Tensor | None = None) -> Tensor:
    """exp and clip of the magnitudes, inverse real transform, window, overlap-add, division by the windows' envelope.

    float16 and bfloat16 compute in float32.

    Args:
        x: [B, n_fft + 2, T], dtype and device of the window, or bfloat16 beside a float32 one: n_fft / 2 + 1 rows of
            log-magnitude, then the phase rows.
        params: shape of the transform.
        lengths: [B] int64 on the CPU, valid frames of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, 1, S] with S = (T - 1) * hop for padding center, T * hop for same, (T - 1) * hop + n_fft for none. The
        imaginary parts of the first and last bin have no effect.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument; so few frames that no window covers some
            sample (with padding center, a single frame).
    """
    if lengths is not None:
        samples = params.output_length(x.shape[2])
        return by_item(x, lengths, samples, lambda item, _: istft_head_ref(item, params))
    return _synthesize(x, params, (params.trim, params.trim))


def _synthesize(x: Tensor, params: IstftHeadParams, crop: tuple[int, int]) -> Tensor:
    """The samples of whole frames, without the first and last `crop` ones."""
    log_magnitude, phase = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, 1)
    magnitude = log_magnitude.exp()
    if params.clip is not None:
        magnitude = magnitude.clamp(max=params.clip)
    if params.phase == "sin":
        phase = phase.sin()
    spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
    frames = torch.fft.irfft(spectrum, params.n_fft, 1) * params.window[:, None]
    y = _overlap_add(frames, params.hop, crop) / params.envelope(x.shape[2], crop)
    if params.clamp is not None:
        y = y.clamp(-params.clamp, params.clamp)
    return y[:, None].to(params.window.dtype)


def _overlap_add(frames: Tensor, hop: int, crop: tuple[int, int]) -> Tensor:
    """[B, n_fft, T] frames -> [B, S] their sum at their places, cropped."""
    total = (frames.shape[2] - 1) * hop + frames.shape[1]
    summed = F.fold(frames, (1, total), (1, frames.shape[1]), stride=(1, hop))
    return summed[:, 0, 0, crop[0] : total - crop[1]]


class _Packed(NamedTuple):
    tables: Tensor
    radices: list[int]  # of the passes of the transform on the CPU
    size: int
    hop: int
    sine: bool
    wide: bool  # whether the samples are float32
    clip: float
    clamp: float
    left: int  # samples dropped at either end, last: a stream's change
    right: int


def _pack(params: IstftHeadParams) -> _Packed:
    size, hop = params.n_fft, params.hop
    radices, factors = packing.pack_real_fft(size)
    window, squares = (t.detach().cpu().double() for t in (params.window, params.squares))
    overlap = F.pad(squares, (0, -size % hop)).reshape(-1, hop).sum(0)
    inverse = (1 / overlap).repeat(1 + -(-packing.PANEL // hop))[: hop + packing.PANEL]
    return _packed(params, torch.cat([factors, torch.cat([window / size, squares, inverse]).float()]), radices, True)


def _pack_cuda(params: IstftHeadParams) -> _Packed:
    """Tables as csrc/cuda/istft_head.cuh reads them."""
    turns = torch.arange(params.n_fft, dtype=torch.float64, device="cpu") * (2 * torch.pi / params.n_fft)
    window, squares = (t.detach().cpu().double() for t in (params.window, params.squares))
    tables = torch.cat([turns.cos(), turns.sin(), window / params.n_fft, squares]).float()
    return _packed(params, tables.to(params.window.device), [], params.window.dtype is torch.float32)


def _packed(params: IstftHeadParams, tables: Tensor, radices: list[int], wide: bool) -> _Packed:
    clip, clamp = (float("inf") if bound is None else bound for bound in (params.clip, params.clamp))
    shape = params.n_fft, params.hop, params.phase == "sin", wide
    return _Packed(tables, radices, *shape, clip, clamp, params.trim, params.trim)


def _supports_cpp(spec: Spec) -> str | None:
    narrow = spec.dtype is torch.bfloat16 and spec.params.window.dtype is torch.float32
    return supports_cpp(replace(spec, dtype=torch.float32) if narrow else spec)


def _supports_triton(spec: Spec) -> str | None:
    dtype = spec.params.window.dtype
    return None if dtype is torch.float32 else f"computes in torch.float32, not in {dtype}"


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    samples = (x.shape[2] - 1) * p.hop + p.size - p.left - p.right
    return x.new_empty((x.shape[0], samples, 1), dtype=torch.float32 if p.wide else x.dtype).transpose(1, 2)


NATIVE = Native("istft_head", _Packed, _fake, istft_head_ref)


def _stream(
    params: IstftHeadParams, run: Callable[[Tensor, int, int], Tensor], rows: Rows | None = None
) -> PolyphaseStream:
    """A chunk's samples see all the frames they overlap, so that the envelope is that of the whole signal."""
    return PolyphaseStream(
        params.n_fft, params.hop, (params.trim, params.trim), 1, run, rows=rows, dtype=params.window.dtype
    )


def _stream_ref(params: IstftHeadParams, _: Any) -> PolyphaseStream:
    return _stream(params, lambda rows, left, right: _synthesize(rows, params, (left, right)))


def _stream_native(params: IstftHeadParams, packed: _Packed) -> PolyphaseStream:
    native = NATIVE.bound(packed[:-2])
    return _stream(params, lambda rows, left, right: native(left, right, rows), stream.NATIVE)


def _stream_device(
    params: IstftHeadParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None
) -> PolyphaseStream:
    def step(x: Tensor, left: int, right: int) -> Tensor:
        return run(x, packed._replace(left=left, right=right))

    return _stream(params, step, rows)


def _work(x: Tensor, params: IstftHeadParams, *_: Tensor | None) -> tuple[int, Tensor]:
    y = output(x, x.shape[0], 1, params.output_length(x.shape[2]), dtype=params.window.dtype)
    return x.shape[0] * x.shape[2] * transform_work(params.n_fft), y


OP = istft_head = define("istft_head", _check, istft_head_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, _supports_cpp, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack_cuda, stream=_stream_device)
register_triton(OP, _supports_triton, _stream_device)
