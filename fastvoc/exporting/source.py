"""The excitation of a source-filter vocoder.

Phases are sums of as many terms as there are frames, in float64 cycles: what a runtime without float64 makes of them
drifts.
"""

from __future__ import annotations

import math

import torch

from fastvoc.exporting.convolutions import drawn
from fastvoc.exporting.emitters import emits
from fastvoc.exporting.wire import Wire, concat
from fastvoc.ops.nsf_source import NsfSourceParams


@emits(NsfSourceParams)
def nsf_source(
    params: NsfSourceParams, f0: Wire, state: Wire | None, phase: Wire | None, seed: Wire | None, noise: Wire | None
) -> Wire:
    """tanh(bias + sum over harmonics of weight * (sine + noise)); noise and start phases drawn unless given."""
    graph, hop, rows = f0.graph, params.hop, params.rows
    if state is not None or seed is not None:
        raise graph.refuse("a source with a state or a seed that are given cannot be exported")
    batch = f0.shape[0]
    cycles = _KINDS[params.kind](params, f0)  # [B, H + 1, T * hop]
    start = _start(params, f0, phase)
    if start is not None:
        cycles = cycles + start.to(torch.float64)
    # Within half a cycle float32 is enough, and its sine is fast.
    sines = (_wrapped(cycles).to(f0.dtype) * (2 * math.pi)).unary("Sin") * params.amp
    voiced = _held(f0.compare("Greater", params.threshold).to(f0.dtype), hop)
    source = sines * voiced
    if params.noise != "none" or noise is not None:
        if noise is None:
            sizes = concat([f0.size(0), graph.constant([rows], torch.int64), voiced.size(2)], 0)
            shape = (batch, rows, None)
            empty = graph.add("ConstantOfShape", sizes, shape=shape, dtype=torch.float32)
            noise = drawn(empty, params.noise).to(f0.dtype)
        source = source + noise * (voiced * params.noise_std + (1.0 - voiced) * (params.amp / 3))
    return (f0.like(params.weight[None]) @ source + params.bias[:, None]).unary("Tanh")


def _start(params: NsfSourceParams, f0: Wire, phase: Wire | None) -> Wire | None:
    """Cycles [B, H + 1, 1] from which the sines start; None for 0."""
    graph, rows = f0.graph, params.rows
    if phase is not None:
        return phase.unsqueeze(2) * (0.5 / math.pi)
    if params.kind != "sample" or rows == 1:
        return None
    sizes = concat([f0.size(0), graph.constant([rows, 1], torch.int64)], 0)
    empty = graph.add("ConstantOfShape", sizes, shape=(f0.shape[0], rows, 1), dtype=torch.float32)
    overtones = torch.ones(rows, 1, dtype=torch.float32, device="cpu")
    overtones[0] = 0.0
    return drawn(empty, "uniform") * overtones


def _wrapped(cycles: Wire) -> Wire:
    return cycles - (cycles + 0.5).unary("Floor")


def _held(x: Wire, hop: int) -> Wire:
    """[B, C, T] -> [B, C, T * hop], every value `hop` times."""
    return _joined(x.unsqueeze(3).expand(1, 1, 1, hop, shape=(*x.shape, hop)))


def _joined(x: Wire) -> Wire:
    """[B, C, T, hop] -> [B, C, T * hop]."""
    return x.reshape(0, 0, -1, shape=(*x.shape[:2], None))


def _fraction(cycles: Wire) -> Wire:
    """In [0, 1)."""
    return cycles - cycles.unary("Floor")


def _steps(params: NsfSourceParams, f0: Wire) -> tuple[Wire, Wire]:
    """[B, H + 1, T] each, in cycles: the phase before a frame, and its advance a sample."""
    advance = _fraction(f0.to(torch.float64) / float(params.sample_rate))
    axis = f0.graph.constant(2, torch.int64)
    frames = _fraction(advance * float(params.hop))
    total = f0.graph.add("CumSum", frames, axis, shape=f0.shape, exclusive=1)
    harmonics = torch.arange(1, params.rows + 1, dtype=torch.float64, device="cpu")[:, None]
    return _fraction(total * harmonics), _fraction(advance * harmonics)


def _along(base: Wire, slope: Wire, factors: torch.Tensor) -> Wire:
    """base + slope * factors within each frame: [B, C, T] -> [B, C, T, hop]."""
    return base.unsqueeze(3) + slope.unsqueeze(3) * factors


def _by_sample(params: NsfSourceParams, f0: Wire) -> Wire:
    before, advance = _steps(params, f0)
    return _joined(_along(before, advance, _count(params)))


def _by_frame(params: NsfSourceParams, f0: Wire) -> Wire:
    before, advance = _steps(params, f0)
    return _held(before + advance * float(params.hop), params.hop)


def _interpolated(params: NsfSourceParams, f0: Wire) -> Wire:
    """Linear between the middles of frames, constant before the first and after the last."""
    before, advance = _steps(params, f0)
    hop = params.hop
    middle = before + advance * float(hop)
    half = advance * 0.5
    before = concat([middle.sliced(2, 0, 1), before.sliced(2, 1)], 2)
    into = concat([half.sliced(2, 0, 1) * 0.0, half.sliced(2, 1)], 2)
    onward = concat([half.sliced(2, 1), half.sliced(2, 0, 1) * 0.0], 2)
    k = 2 * _count(params) - 1
    early, late = _along(before, into, k + hop), _along(middle, onward, k - hop)
    first = int((k < hop).sum())
    return _joined(concat([early.sliced(3, 0, first), late.sliced(3, first)], 3))


def _count(params: NsfSourceParams) -> torch.Tensor:
    return torch.arange(1, params.hop + 1, dtype=torch.float64, device="cpu")


_KINDS = {"sample": _by_sample, "frame_nearest": _by_frame, "frame_linear": _interpolated}
