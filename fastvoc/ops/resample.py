"""resample: signals through a filter that has other taps for every output, in sums that are exact.

Samples and taps are whole numbers of units (2^-24 both), and float64 holds every sum of their products exactly. So no
order of summation, and with it no chunking, batch, device or matrix library, changes a bit.

The filter is a sinc under a Kaiser window (Kaiser 1974), flat up to 0.9 of the lower rate's Nyquist frequency and
106 dB down from Nyquist on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.runtime import library as _library
from fastvoc.runtime.native import Native
from fastvoc.sound.formats import to_format

LIMIT = 8.0  # samples beyond are taken for it: 18 dB over full scale

_WAV_UNIT, _TAP_UNIT = 2.0**-24, 2.0**-24  # 27 bits of samples, 24 of taps, 2 for the sum of absolute taps
_BETA = 0.1102 * (106.0 - 8.7)  # of the window, for 106 dB
_CUTOFF = 0.95  # of the lower Nyquist frequency: the middle of the band where the filter falls
_REACH = 69  # periods of the lower rate on either side: the filter falls within 0.1 of that Nyquist frequency
_TOGETHER, _PANEL = 4, 16  # outputs in a row, and floats behind a row of taps (csrc/cpu/resample_args.h)
_MOST_MATRIX = 1 << 22  # values; rates that share too little for it go tap by tap
_PIECE = 1 << 15  # outputs that run together
_FEW = 16  # blocks whose outputs are one product: fewer of them would cost more to start than they save
_ROWS = 1 << 21  # values of gathered windows that run together


class Ratio(NamedTuple):
    """Between `up` outputs lie `down` inputs, without a common divisor: output n lies at input n * down / up."""

    up: int
    down: int

    @property
    def reach(self) -> int:
        """Inputs on either side that an output reads."""
        return -(-_REACH * max(self.up, self.down) // self.up)

    def base(self, n: int) -> int:
        """The whole part of output n's position among the inputs."""
        return n * self.down // self.up


class Due(NamedTuple):
    """What is wanted of the signals: so many outputs, the first of this phase, whose taps begin on the first input.

    `after` zeros follow the chunk, the inputs from `keep` on are kept, and outputs are `s16` instead of float32.
    """

    after: int
    phase: int
    outputs: int
    keep: int
    s16: bool = False


def resample(ratio: Ratio, x: Tensor, tail: Tensor, due: Due) -> tuple[Tensor, Tensor, Tensor]:
    """Chunks [R, n] behind what was kept of their signals [R, k], float32 -> outputs [R, m], what is kept now.

    And of s16 how many samples of each row were clipped, [R] int64. NaN reaches the outputs that read it.
    """
    if not _is_native(x.device):
        return resample_ref(ratio, x, tail, due)
    made: tuple[Tensor, Tensor, Tensor] = _native(ratio)(_dense(x), _dense(tail), *due)
    return made


def _is_native(device: torch.device) -> bool:
    return device.type == "cpu" and _library.cpu_problem() is None


def prepare(ratio: Ratio, device: torch.device) -> None:
    """Makes the filter for signals there before the first one comes: it takes seconds where rates share little."""
    if _is_native(device):
        _native(ratio)
    elif _bands(ratio, device) is None:
        _taps(ratio, device)


def resample_ref(ratio: Ratio, x: Tensor, tail: Tensor, due: Due) -> tuple[Tensor, Tensor, Tensor]:
    """The meaning of `resample`, in torch, bit for bit; on a GPU NaN also reaches other outputs near it."""
    held = torch.cat([tail, F.pad(x, (0, due.after)) if due.after else x], 1)
    made = []
    for first in range(0, due.outputs, _PIECE) if len(x) else ():
        count = min(_PIECE, due.outputs - first)
        begin = ratio.base(due.phase + first) - ratio.base(due.phase)
        end = ratio.base(due.phase + first + count - 1) - ratio.base(due.phase) + 2 * ratio.reach
        made.append(_convolved(ratio, held[:, begin:end], (due.phase + first) % ratio.up, count))
    y = torch.cat(made, 1) if made else held.new_empty((len(held), due.outputs))
    kept = held[:, due.keep :].clone()  # a view would keep the rest in memory
    if due.s16:
        return to_format(y, "s16")[0], kept, (y.abs() <= 1.0).logical_not_().sum(1)
    return y, kept, torch.zeros(len(y), dtype=torch.int64, device=y.device)


def taps(ratio: Ratio) -> Tensor:
    """[up, 2 reach] float32 multiples of a unit, times the unit of samples; each phase's sum is one exactly.

    Row p is for outputs that lie p / up behind an input.
    """
    (up, down), reach, unit = ratio, ratio.reach, _TAP_UNIT
    size = 4096
    parts = []
    for first in range(0, up, size):
        phase = torch.arange(first, min(first + size, up), dtype=torch.float64, device="cpu")[:, None] / up
        t = torch.arange(1 - reach, reach + 1, dtype=torch.float64, device="cpu") - phase
        band = _CUTOFF * min(1.0, up / down)
        inside = (1 - (t / reach).square()).clamp_(min=0.0).sqrt_()
        h = torch.sinc(band * t) * torch.special.i0(_BETA * inside)
        units = (h / h.sum(1, keepdim=True) / unit).round_()
        middle = reach - 1
        units[:, middle] += 1 / unit - units.sum(1)  # a few units: constants keep their level
        parts.append((units * (unit * _WAV_UNIT)).float())
    return torch.cat(parts)


def _convolved(ratio: Ratio, held: Tensor, phase: int, count: int) -> Tensor:
    """`count` outputs [R, count], the first of this phase, whose first tap lies on held[:, 0]."""
    units = (held * (1 / _WAV_UNIT)).round_().clamp_(-LIMIT / _WAV_UNIT, LIMIT / _WAV_UNIT).double()
    bands = _bands(ratio, held.device)
    if bands is None or (held.device.type == "cpu" and bool(units.sum().isnan())):
        return _by_taps(ratio, units, phase, count)
    return _by_blocks(ratio, units, bands, phase, count)


def _by_blocks(ratio: Ratio, units: Tensor, bands: _Bands, phase: int, count: int) -> Tensor:
    """Matrix products: what a block of outputs reads is a row, every group of its outputs some columns."""
    matrix, block, group = bands
    step, rows, blocks = ratio.base(block), len(units), -(-count // block)
    columns, width = min(count, block), 2 * ratio.reach
    start, end = ratio.base(phase), ratio.base(phase + columns - 1) + width
    lacking = (blocks - 1) * step + end - start - units.shape[1]
    if lacking > 0:  # of outputs that are not asked for
        units = F.pad(units, (0, lacking))
    if rows * blocks <= _FEW:
        group = columns
    made = []
    for left in range(0, columns, group):
        right = min(left + group, columns)
        low, high = ratio.base(phase + left), ratio.base(phase + right - 1) + width
        size = high - low
        if rows == 1:
            x = units.as_strided((blocks, size), (step, 1), low - start)
        else:
            x = units.as_strided((rows, blocks, size), (units.stride(0), step, 1), low - start).flatten(0, 1)
        made.append(torch.mm(x, matrix[low:high, phase + left : phase + right]))
    y = made[0] if len(made) == 1 else torch.cat(made, 1)
    return y.view(rows, blocks * columns)[:, :count].float()


def _by_taps(ratio: Ratio, units: Tensor, phase: int, count: int) -> Tensor:
    """Every output with its own taps, gathered: for rates that share little."""
    (up, down), width = ratio, 2 * ratio.reach
    own = _taps(ratio, units.device)
    windows = units.unfold(1, width, 1)
    size = max(1, _ROWS // (len(units) * width))
    y = torch.empty((len(units), count), dtype=torch.float32, device=units.device)
    for first in range(0, count, size):
        n = torch.arange(first, min(first + size, count), device=units.device) + phase
        starts = n * down // up - ratio.base(phase)
        y[:, first : first + len(n)] = (windows[:, starts] * own[n * down % up].double()).sum(-1)
    return y


class _Bands(NamedTuple):
    """The band matrix [inputs, outputs] of a block of outputs, float64, with columns for any phase that it begins at.

    `group` of the columns run together.
    """

    matrix: Tensor
    block: int
    group: int


@lru_cache(maxsize=16)
def _bands(ratio: Ratio, device: torch.device) -> _Bands | None:
    """None where the matrix were too large."""
    (up, down), width = ratio, 2 * ratio.reach
    wanted = max(1, _REACH * max(up, down) // down)  # outputs whose windows are no more than half other taps' room
    block = up * -(-wanted // up)
    group = -(-block // max(1, round(block / wanted)))
    columns, height = up + block, ratio.base(up + block) + width
    if columns * height > _MOST_MATRIX:
        return None
    with torch.inference_mode():
        matrix = torch.zeros((height, columns), dtype=torch.float64, device="cpu")
        index = torch.arange(columns, device="cpu")
        inputs = (index * down // up)[:, None] + torch.arange(width, device="cpu")
        matrix[inputs, index[:, None]] = taps(ratio)[index * down % up].double()
        return _Bands(matrix.to(device), block, group)


@lru_cache(maxsize=16)
def _taps(ratio: Ratio, device: torch.device) -> Tensor:
    with torch.inference_mode():
        return taps(ratio).to(device)


class _Packed(NamedTuple):
    taps: Tensor
    up: int
    down: int
    reach: int


def _fake(
    p: _Packed, x: Tensor, tail: Tensor, after: int, phase: int, count: int, keep: int, s16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y = x.new_empty((len(x), count), dtype=torch.int16 if s16 else torch.float32)
    kept = x.new_empty((len(x), tail.shape[1] + x.shape[1] + after - keep))
    return y, kept, x.new_empty((len(x),), dtype=torch.int64)


NATIVE = Native("resample", _Packed, _fake)


@lru_cache(maxsize=16)
def _native(ratio: Ratio) -> Callable[..., Any]:
    """The native op with the taps as csrc/cpu/resample_args.h has them, for samples that are no multiples of a unit."""
    up, down = ratio
    lead = -(-(_TOGETHER - 1) * down // up)
    with torch.inference_mode():
        order = torch.arange(up, device="cpu") * down % up
        rows = F.pad(taps(ratio)[order] / _WAV_UNIT, (lead, lead + _PANEL))
    return NATIVE.bound(_Packed(rows, up, down, ratio.reach))


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() or x.stride(1) == 1 else x.contiguous()
