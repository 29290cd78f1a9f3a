"""The excitation of a source-filter vocoder.

Phases are sums of as many terms as there are frames, and some runtimes compute float64 in float32. So a phase is a list
of digits, in cycles and coarse first: float32 numbers of few bits, whose products with whole numbers and whose sums
are exact, whatever the order, for some 65,000 frames.
"""

from __future__ import annotations

import math
import operator
from functools import reduce

import torch

from fastvoc.exporting.convolutions import drawn, held
from fastvoc.exporting.emitters import emits
from fastvoc.exporting.wire import Wire, concat
from fastvoc.ops.nsf_source import NsfSourceParams

Digits = list[Wire]
_BITS = 56  # of an advance, so that those of 65,000 frames have 30 and more


@emits(NsfSourceParams)
def nsf_source(
    params: NsfSourceParams, f0: Wire, state: Wire | None, phase: Wire | None, seed: Wire | None, noise: Wire | None
) -> Wire:
    """tanh(bias + sum over harmonics of weight * (sine + noise)); noise and start phases drawn unless given."""
    graph, hop, rows = f0.graph, params.hop, params.rows
    if state is not None or seed is not None:
        raise graph.refuse("a source with a state or a seed that are given cannot be exported")
    batch = f0.shape[0]
    sines = _KINDS[params.kind](params, f0, _start(params, f0, phase)) * params.amp  # [B, H + 1, T * hop]
    voiced = held(f0.compare("Greater", params.threshold).to(f0.dtype), hop)
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


def _bits(params: NsfSourceParams) -> int:
    """Of a digit, such that a remainder of the division by the rate still fits behind it."""
    return min(8, 24 - (params.sample_rate - 1).bit_length())


def _whole(x: Wire, unit: float) -> Wire:
    """The multiple of a power of 2 at or below x."""
    return (x * (1 / unit)).unary("Floor") * unit


def _carried(params: NsfSourceParams, digits: Digits) -> Digits:
    """The same phase modulo 1, each digit less than the unit of the one before."""
    bits = _bits(params)
    carry, made = None, []
    for i in range(len(digits) - 1, -1, -1):
        digit = digits[i] if carry is None else digits[i] + carry
        carry = _whole(digit, 2.0 ** (-bits * i))
        made.append(digit - carry)
    return made[::-1]


def _times(digits: Digits, factor: float | torch.Tensor) -> Digits:
    return [digit * factor for digit in digits]


def _sum(one: Digits, other: Digits) -> Digits:
    return [a + b for a, b in zip(one, other, strict=True)]


def _advance(params: NsfSourceParams, f0: Wire) -> Digits:
    """F0 over the sample rate by long division: what is too much or too little in a digit, the next ones take back."""
    bits, rate = _bits(params), float(params.sample_rate)
    left = f0.unary("Floor")
    behind, made = f0 - left, []
    for i in range(-(-_BITS // bits) + 1):
        quotient = (left * (1 / rate)).unary("Floor")
        made.append(quotient * 2.0 ** (-bits * i))
        behind = behind * 2.0**bits
        digit = behind.unary("Floor")
        behind = behind - digit
        left = (left - quotient * rate) * 2.0**bits + digit
    return made[1:]


def _steps(params: NsfSourceParams, f0: Wire, start: Wire | None) -> tuple[Digits, Digits]:
    """[B, H + 1, T] each: the phase before a frame, and its advance a sample."""
    advance = _advance(params, f0.to(torch.float32))
    axis = f0.graph.constant(2, torch.int64)
    total = [
        f0.graph.add("CumSum", digit, axis, shape=f0.shape, exclusive=1)
        for digit in _carried(params, _times(advance, float(params.hop)))
    ]
    harmonics = torch.arange(1, params.rows + 1, dtype=torch.float32, device="cpu")[:, None]
    before, advance = (_carried(params, _times(_carried(params, d), harmonics)) for d in (total, advance))
    if start is not None:
        for i, unit in enumerate((2.0 ** -_bits(params), 4.0 ** -_bits(params), None)):
            digit = start if unit is None else _whole(start, unit)
            before[i], start = before[i] + digit, start - digit
    return before, advance


def _sines(before: Digits, slope: Digits, factors: torch.Tensor) -> Wire:
    """Of before + slope * factors within each frame: [B, C, T] -> [B, C, T, factors]."""
    before, (first, second, *fine) = ([digit.unsqueeze(3) for digit in digits] for digits in (before, slope))
    turn = first * factors
    turn = turn - turn.unary("Floor") + second * factors + (before[0] + before[1] + 0.25)
    rest = reduce(operator.add, before[2:]) + reduce(operator.add, fine) * factors
    # Half a cycle folded over the other: within a quarter, the sine rounds least.
    folded = 0.25 - (turn - turn.unary("Floor") - 0.5 + rest).unary("Abs")
    return (folded * (2 * math.pi)).unary("Sin")


def _joined(x: Wire) -> Wire:
    """[B, C, T, hop] -> [B, C, T * hop]."""
    return x.reshape(0, 0, -1, shape=(*x.shape[:2], None))


def _by_sample(params: NsfSourceParams, f0: Wire, start: Wire | None) -> Wire:
    return _joined(_sines(*_steps(params, f0, start), _count(params)))


def _by_frame(params: NsfSourceParams, f0: Wire, start: Wire | None) -> Wire:
    return held(_joined(_sines(*_steps(params, f0, start), _count(params)[-1:])), params.hop)


def _interpolated(params: NsfSourceParams, f0: Wire, start: Wire | None) -> Wire:
    """Linear between the middles of frames, constant before the first and after the last."""
    before, advance = _steps(params, f0, start)
    hop = params.hop
    middle = _carried(params, _sum(before, _times(advance, float(hop))))
    half = _times(advance, 0.5)
    before = [concat([m.sliced(2, 0, 1), b.sliced(2, 1)], 2) for m, b in zip(middle, before, strict=True)]
    into = [concat([h.sliced(2, 0, 1) * 0.0, h.sliced(2, 1)], 2) for h in half]
    onward = [concat([h.sliced(2, 1), h.sliced(2, 0, 1) * 0.0], 2) for h in half]
    k = 2 * _count(params) - 1
    first = int((k < hop).sum())
    early = _sines(before, into, k[:first] + hop)
    late = _sines(middle, onward, k[first:] - hop)
    return _joined(concat([early, late], 3))


def _count(params: NsfSourceParams) -> torch.Tensor:
    return torch.arange(1, params.hop + 1, dtype=torch.float32, device="cpu")


_KINDS = {"sample": _by_sample, "frame_nearest": _by_frame, "frame_linear": _interpolated}
