"""nsf_source: the excitation of a neural source-filter vocoder, sines of F0's harmonics plus noise.

Wang, Takaki and Yamagishi 2019 (arXiv 1904.12088), as HiFTNet, CosyVoice and Chatterbox use it. Phases are 64-bit
integers in units of 2^-64 cycles: sums wrap exactly, so there is no drift, and the phase of harmonic h is h times the
fundamental's. Noise depends only on seed, absolute sample and harmonic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops import _philox
from fastvoc.ops._checks import check_activations, check_lengths
from fastvoc.ops._cpp import float32, register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import float32_only, register_triton
from fastvoc.ops.nsf_stream import NsfStream
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.native import Native
from fastvoc.runtime.packing import NsfSource
from fastvoc.runtime.registry import Spec, define

KINDS = ("sample", "frame_linear", "frame_nearest")
NOISES = ("none", "normal", "uniform")
_MAX_SINES = 64  # of csrc/cpu/nsf_source_args.h


@dataclass(frozen=True)
class NsfSourceParams:
    """Merging weights and shape of a source.

    weight [H + 1] for the fundamental and its H harmonics, bias [1]; sample_rate in Hz; `hop` samples a frame of F0.
    `kind` says how the phase runs: sample adds F0 sample by sample; frame_linear interpolates the phases summed frame
    by frame; frame_nearest holds each of those for its frame. Frames above `threshold` Hz are voiced: sines of
    amplitude `amp` and noise of `noise_std`; the others have no sines and noise of amp / 3. `noise` is normal, uniform
    in [0, 1) or none.
    """

    weight: Tensor
    bias: Tensor
    sample_rate: int
    hop: int
    kind: Literal["sample", "frame_linear", "frame_nearest"] = "sample"
    amp: float = 0.1
    noise_std: float = 0.003
    threshold: float = 10.0
    noise: Literal["normal", "uniform", "none"] = "normal"

    def __post_init__(self) -> None:
        if self.weight.dim() != 1 or self.weight.shape[0] == 0:
            raise ShapeError(f"nsf_source: weight: expected [H + 1], got {list(self.weight.shape)}")
        if self.bias.shape != (1,):
            raise ShapeError(f"nsf_source: bias: expected [1], got {list(self.bias.shape)}")
        if self.sample_rate < 1 or self.hop < 1:
            raise ArgumentError(
                f"nsf_source: sample_rate {self.sample_rate}, hop {self.hop}: expected positive integers"
            )
        if self.kind not in KINDS:
            raise ArgumentError(f"nsf_source: kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.noise not in NOISES:
            raise ArgumentError(f"nsf_source: noise: expected one of {', '.join(NOISES)}, got {self.noise!r}")
        for name in ("amp", "noise_std", "threshold"):
            if not math.isfinite(getattr(self, name)):
                raise ArgumentError(f"nsf_source: {name}: expected a finite number, got {getattr(self, name)}")

    def tensors(self) -> list[Tensor]:
        """The merging weights."""
        return [self.weight, self.bias]

    @property
    def rows(self) -> int:
        """Sines: the fundamental and the harmonics."""
        return self.weight.shape[0]

    @property
    def lookahead(self) -> int:
        """Frames of F0 that a frame of output needs beyond its own."""
        return 1 if self.kind == "frame_linear" else 0


def begin(params: NsfSourceParams, batch: int, seed: Tensor | None = None, phase: Tensor | None = None) -> Tensor:
    """The state [B, H + 2] before the first sample; `seed` and `phase` as in `nsf_source`."""
    device = params.weight.device
    seed = torch.zeros(batch, dtype=torch.int64, device=device) if seed is None else seed
    wanted = (("seed", seed, (batch,), torch.int64), ("phase", phase, (batch, params.rows), params.weight.dtype))
    _check_tensors(params.weight, wanted)
    position = torch.zeros_like(seed)[:, None]
    if phase is not None:
        return torch.cat([position, _units(phase.double() / (2 * torch.pi))], 1)
    phases = _philox.words(seed, position, params.rows, domain=1)[:, :, 0] << 32
    phases[:, 0 if params.kind == "sample" else slice(None)] = 0
    return torch.cat([position, phases], 1)


def _check(
    f0: Tensor,
    params: NsfSourceParams,
    state: Tensor | None = None,
    phase: Tensor | None = None,
    seed: Tensor | None = None,
    noise: Tensor | None = None,
    lengths: Tensor | None = None,
    frames: Tensor | None = None,
) -> None:
    check_activations("nsf_source", f0, 1, params.weight)
    batch, _, steps = f0.shape
    check_lengths("nsf_source", lengths, batch, steps)
    if state is not None and phase is not None:
        raise ArgumentError("nsf_source: phase: expected None beside a state, which holds the phases")
    _check_tensors(
        f0,
        (
            ("state", state, (batch, params.rows + 1), torch.int64),
            ("phase", phase, (batch, params.rows), f0.dtype),
            ("seed", seed, (batch,), torch.int64),
            ("noise", noise, (batch, params.rows, steps * params.hop), f0.dtype),
        ),
    )
    if state is not None and not state.is_contiguous():
        raise ShapeError(f"nsf_source: state: expected a contiguous tensor, got strides {state.stride()}")
    if frames is not None:
        _check_frames(frames, steps, lengths, batch)


def _check_tensors(like: Tensor, wanted: Sequence[tuple[str, Tensor | None, tuple[int, ...], torch.dtype]]) -> None:
    for name, tensor, shape, dtype in wanted:
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ShapeError(f"nsf_source: {name}: expected {list(shape)}, got {list(tensor.shape)}")
        if tensor.dtype != dtype:
            raise DtypeError(f"nsf_source: {name}: expected {dtype}, got {tensor.dtype}")
        if tensor.device != like.device:
            raise DeviceError(f"nsf_source: {name}: expected a tensor on {like.device}, got {tensor.device}")


def _check_frames(frames: Tensor, steps: int, lengths: Tensor | None, batch: int) -> None:
    if frames.shape != (batch,):
        raise ShapeError(f"nsf_source: frames: expected [{batch}], got {list(frames.shape)}")
    if frames.dtype != torch.int64:
        raise DtypeError(f"nsf_source: frames: expected torch.int64, got {frames.dtype}")
    if frames.device.type != "cpu":
        raise DeviceError(f"nsf_source: frames: expected a tensor on the CPU, got {frames.device}")
    made, valid = frames.tolist(), [steps] * batch if lengths is None else lengths.tolist()
    if any(not 0 <= n <= most for n, most in zip(made, valid, strict=True)):
        raise ArgumentError(f"nsf_source: frames: expected 0 up to the lengths {valid}, got {made}")


def nsf_source_ref(
    f0: Tensor,
    params: NsfSourceParams,
    state: Tensor | None = None,
    phase: Tensor | None = None,
    seed: Tensor | None = None,
    noise: Tensor | None = None,
    lengths: Tensor | None = None,
    frames: Tensor | None = None,
) -> Tensor:
    """tanh(bias + sum over harmonics of weight * (sine + noise)).

    Phases are integers here, sines and drawn noise in float64, rounded once to f0's dtype.

    Args:
        f0: [B, 1, T] Hz per frame, dtype and device of the weights; `hop` samples hold each value.
        params: weights and shape.
        seed: [B] int64 on f0's device; 0 when None. An item's noise depends on its own seed only.
        phase: [B, H + 1] start phases in radians, dtype and device of f0. None: for kind sample drawn uniformly from
            the seed, 0 for the fundamental; 0 for the others, whose published start phases have no effect.
        noise: [B, H + 1, T * hop] takes the place of the drawn noise; it is scaled as that would be.
        lengths: [B] int64 on the CPU, valid frames of each item; what lies beyond is never read, the output there is 0.
        state: [B, H + 2] contiguous int64 on f0's device, where each item begins: the absolute number of its first
            sample, then the phases before that. Advanced in place past the frames made. Calls that hand on a state
            from `begin` make the pieces of one signal; they equal the whole.
        frames: [B] int64 on the CPU, frames to make of each item, at most its length; all when None. Further frames of
            f0 are look-ahead: kind frame_linear wants one (`params.lookahead`), or takes the signal to end there.

    Returns:
        [B, 1, T * hop], 0 beyond the frames made. NaN where the phase runs by an F0 of NaN or infinity; it stands still
        there.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    batch, _, steps = f0.shape
    hop = params.hop
    valid = torch.full((batch,), steps, dtype=torch.int64, device="cpu") if lengths is None else lengths
    made, valid = on_device(valid if frames is None else frames, f0), on_device(valid, f0)
    seed = torch.zeros(batch, dtype=torch.int64, device=f0.device) if seed is None else seed
    start = begin(params, batch, seed, phase) if state is None else state

    f0 = f0[:, 0].masked_fill(torch.arange(steps, device=f0.device) >= valid[:, None], 0)
    phases, after = _PHASES[params.kind](f0, params, start, valid, made)
    sines = (phases.double() * (2.0**-64 * 2 * torch.pi)).sin().to(f0.dtype) * params.amp

    voiced = (f0 > params.threshold).to(f0.dtype).repeat_interleave(hop, 1)[:, None]
    source = sines * voiced
    if params.noise != "none" or noise is not None:
        position = start[:, :1] + torch.arange(steps * hop, device=f0.device)
        noise = _draw(params, seed, position).to(f0.dtype) if noise is None else noise
        source = source + noise * (voiced * params.noise_std + (1 - voiced) * params.amp / 3)
    y = torch.tanh(torch.einsum("h,bht->bt", params.weight, source) + params.bias)
    y = (y + _poison(f0, params))[:, None]
    beyond = torch.arange(steps * hop, device=f0.device) >= (made * hop)[:, None]
    if state is not None:
        state.copy_(after)
    return y.masked_fill(beyond[:, None], 0)


def _units(cycles: Tensor) -> Tensor:
    """Cycles -> phase modulo 1, as a signed integer of 2^-64 cycles; 0 for NaN and infinity."""
    cycles = torch.where(cycles.isfinite(), cycles, 0)
    return ((cycles - (cycles + 0.5).floor()) * 2.0**64).to(torch.int64)


def _steps(f0: Tensor, params: NsfSourceParams, state: Tensor, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, H + 1, T] each: phase before a frame, its advance a sample; and [B, H + 2] the state after the last made."""
    harmonics = torch.arange(1, params.rows + 1, device=f0.device)
    advance = _units(f0.double() / params.sample_rate)
    total = F.pad((advance * params.hop).cumsum(1), (1, 0))
    phases = state[:, 1:]
    before = phases[:, :, None] + harmonics[:, None] * total[:, None, :-1]
    last = phases + harmonics * total.gather(1, made[:, None])
    after = torch.cat([state[:, :1] + (made * params.hop)[:, None], last], 1)
    return before, harmonics[:, None] * advance[:, None], after


def _by_sample(f0: Tensor, params: NsfSourceParams, state: Tensor, _: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    before, advance, after = _steps(f0, params, state, made)
    k = torch.arange(1, params.hop + 1, device=f0.device)
    return (before[..., None] + advance[..., None] * k).flatten(2), after


def _by_frame(f0: Tensor, params: NsfSourceParams, state: Tensor, _: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    before, advance, after = _steps(f0, params, state, made)
    return (before + advance * params.hop).repeat_interleave(params.hop, 2), after


def _interpolated(
    f0: Tensor, params: NsfSourceParams, state: Tensor, valid: Tensor, made: Tensor
) -> tuple[Tensor, Tensor]:
    """Linear between the middles of frames, constant before the first and after the last."""
    before, advance, after = _steps(f0, params, state, made)
    hop, frame = params.hop, torch.arange(f0.shape[1], device=f0.device)
    at_middle = before + advance * hop
    half = (advance >> 1) & (2**63 - 1)  # of an advance in [0, 1) cycles, as published; the weights below are twice w
    first = (state[:, :1] == 0) & (frame == 0)
    before = torch.where(first[:, None], at_middle, before)
    into = torch.where(first[:, None], 0, half)
    onward = F.pad(half, (0, 1))[..., 1:].masked_fill((frame + 1 >= valid[:, None])[:, None], 0)
    k = 2 * torch.arange(hop, device=f0.device) + 1
    early = before[..., None] + into[..., None] * (k + hop)
    late = at_middle[..., None] + onward[..., None] * (k - hop)
    return torch.where(k < hop, early, late).flatten(2), after


_PHASES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "sample": _by_sample,
    "frame_linear": _interpolated,
    "frame_nearest": _by_frame,
}


def _draw(params: NsfSourceParams, seed: Tensor, position: Tensor) -> Tensor:
    """[B, H + 1, S] unscaled noise at absolute samples."""
    if params.noise == "uniform":
        return _philox.uniform(_philox.words(seed, position, params.rows, domain=0))
    return _philox.normal(_philox.words(seed, position, params.rows + params.rows % 2, domain=0))[:, : params.rows]


def _poison(f0: Tensor, params: NsfSourceParams) -> Tensor:
    """[B, S] NaN where the phase runs by an F0 that is not finite, else 0."""
    bad = torch.where(f0.isfinite(), 0.0, torch.nan).to(f0.dtype)
    at = bad.repeat_interleave(params.hop, 1)
    if params.kind != "frame_linear":
        return at
    late = 2 * torch.arange(params.hop, device=f0.device) + 1 >= params.hop
    return at + torch.where(late, F.pad(bad, (0, 1))[:, 1:, None], 0).flatten(1)


def _pack(params: NsfSourceParams) -> NsfSource:
    shape = params.sample_rate, params.hop, KINDS.index(params.kind), NOISES.index(params.noise)
    levels = params.amp, params.noise_std, params.threshold
    return NsfSource(params.weight.detach().contiguous(), params.bias.detach(), *shape, *levels)


def _supports_cpp(spec: Spec) -> str | None:
    if spec.params.rows > _MAX_SINES:
        return f"makes up to {_MAX_SINES} sines, not {spec.params.rows}"
    return float32(spec)


def _fake(p: NsfSource, f0: Tensor, *_: Tensor | None) -> Tensor:
    return f0.new_empty((f0.shape[0], f0.shape[2] * p.hop, 1)).transpose(1, 2)


NATIVE = Native("nsf_source", NsfSource, _fake, nsf_source_ref, mutates=("state",))


def _stream(params: NsfSourceParams, run: Callable[..., Tensor]) -> NsfStream:
    def start(batch: int, seed: Tensor | None, phase: Tensor | None) -> Tensor:
        return begin(params, batch, seed, phase)

    def chunk(f0: Tensor, state: Tensor, seed: Tensor | None, frames: Tensor) -> Tensor:
        return run(f0, state, None, seed, None, None, frames)

    return NsfStream(params.hop, params.lookahead, start, chunk)


def _stream_ref(params: NsfSourceParams, _: Any) -> NsfStream:
    return _stream(params, lambda f0, *args: nsf_source_ref(f0, params, *args))


def _stream_native(params: NsfSourceParams, packed: NsfSource) -> NsfStream:
    return _stream(params, NATIVE.bound(packed))


def _stream_device(params: NsfSourceParams, run: Callable[..., Tensor], packed: NsfSource, _: object) -> NsfStream:
    return _stream(params, lambda f0, *args: run(f0, packed, *args))


def _work(f0: Tensor, params: NsfSourceParams, *_: Tensor | None) -> tuple[int, Tensor]:
    y = output(f0, f0.shape[0], 1, f0.shape[2] * params.hop)
    return y.numel() * params.rows, y


OP = nsf_source = define("nsf_source", _check, nsf_source_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, _supports_cpp, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack, stream=_stream_device)
register_triton(OP, float32_only, _stream_device, _pack)
