"""Another sample rate for whole signals and for chunks of them, with the same bits.

Samples and filter are whole numbers of units (2^-24 both), and float64 holds every sum of their products exactly.
So no order of summation, and with it no chunking, batch, device or matrix library, changes a bit.

The filter is a sinc under a Kaiser window (Kaiser 1974), flat up to 0.9 of the lower rate's Nyquist frequency and
106 dB down from Nyquist on. Output n of a signal lies at input n * from / to: the delay is made up for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError, StreamError

LOWEST_HZ, HIGHEST_HZ = 1000, 384000
LIMIT = 8.0  # samples beyond are taken for it: 18 dB over full scale

_WAV_UNIT, _TAP_UNIT = 2.0**-24, 2.0**-24  # 27 bits of samples, 24 of taps, 2 for the sum of absolute taps
_BETA = 0.1102 * (106.0 - 8.7)  # of the window, for 106 dB
_CUTOFF = 0.95  # of the lower Nyquist frequency: the middle of the band where the filter falls
_REACH = 69  # periods of the lower rate on either side: the filter falls within 0.1 of that Nyquist frequency
_MOST_MATRIX = 1 << 22  # values; rates that share too little for it go tap by tap
_PIECE = 1 << 15  # input samples that run together
_FEW = 16  # blocks whose outputs are one product: fewer of them would cost more to start than they save
_ROWS = 1 << 21  # values of gathered windows that run together


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """round(samples * to_rate / from_rate), halves upwards."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)


def check_rate(rate: int) -> None:
    """Raises ArgumentError for what is no rate that one may ask for."""
    if isinstance(rate, bool) or not hasattr(rate, "__index__") or not LOWEST_HZ <= rate <= HIGHEST_HZ:
        raise ArgumentError(f"rate: expected a whole number in {LOWEST_HZ}..{HIGHEST_HZ} Hz, got {rate!r}")


@dataclass(frozen=True)
class Place:
    """Where a signal stands: inputs that came, outputs that were made, and the inputs [R, t] that later ones need."""

    given: int
    made: int
    tail: Tensor


class Converter:
    """From one rate to another: what a signal's chunks make. It holds no state of a signal; a `Place` does.

    Raises ArgumentError for rates outside 1000..384000 Hz.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        check_rate(from_rate)
        check_rate(to_rate)
        self.from_rate, self.to_rate = from_rate, to_rate
        ratio = Fraction(to_rate, from_rate)
        self._up, self._down = ratio.numerator, ratio.denominator
        self.reach = math.ceil(_REACH * max(Fraction(1), 1 / ratio))  # inputs on either side of an output

    def begin(self, rows: int, device: torch.device) -> Place:
        """The beginning of so many signals: silence before them."""
        return Place(0, 0, torch.zeros((rows, self.reach - 1), dtype=torch.float32, device=device))

    def alike(self, place: Place) -> tuple[int, int]:
        """Equal for places whose signals may go on together, as the rows of one, until they end."""
        return place.made % self._up, place.tail.shape[1]

    @torch.inference_mode()
    def step(self, place: Place, x: Tensor, *, final: bool) -> tuple[Tensor, Place]:
        """Chunks [R, n >= 0] of float32 -> the samples [R, m] that they complete, and the new place."""
        given = place.given + x.shape[1]
        if final:
            x = torch.nn.functional.pad(x, (0, self.reach))
            end = resampled_length(given, self.from_rate, self.to_rate)
        else:
            end = max(-(-(given - self.reach) * self._up // self._down), 0)
        held = torch.cat([place.tail, x], 1)
        done = min(self._base(end) - self._base(place.made), held.shape[1])
        tail = held[:, done:]
        if done > 4 * tail.shape[1]:  # whose memory it would keep
            tail = tail.clone()
        y = self._convolved(held, place.made % self._up, end - place.made)
        return y, Place(given, end, tail)

    def whole(self, wav: Tensor) -> Tensor:
        """Signals [R, n] -> [R, round(n * to / from)], float32, in pieces."""
        place = self.begin(len(wav), wav.device)
        pieces = wav.split(_PIECE, 1) if wav.shape[1] else (wav,)
        made = []
        for i, piece in enumerate(pieces):
            y, place = self.step(place, piece, final=i == len(pieces) - 1)
            made.append(y)
        return torch.cat(made, 1) if len(made) > 1 else made[0]

    def _base(self, made: int) -> int:
        """The whole part of output `made`'s position among the inputs."""
        return made * self._down // self._up

    def _convolved(self, held: Tensor, phase: int, count: int) -> Tensor:
        """`count` outputs [R, count], the first of this phase, whose first tap lies on held[:, 0]."""
        if not count or not len(held):
            return held.new_empty((len(held), count))
        units = (held * (1 / _WAV_UNIT)).round_().clamp_(-LIMIT / _WAV_UNIT, LIMIT / _WAV_UNIT).double()
        filters = _filters(self._up, self._down, self.reach, held.device)
        if filters.matrix is None:
            return self._by_taps(units, filters.taps, phase, count)
        return self._by_blocks(units, filters.matrix, filters.block, filters.group, phase, count)

    def _by_blocks(self, units: Tensor, matrix: Tensor, block: int, group: int, phase: int, count: int) -> Tensor:
        """Matrix products: what a block of outputs reads is a row, every group of its outputs some columns."""
        step, rows, blocks = block * self._down // self._up, len(units), -(-count // block)
        columns = min(count, block)
        start, end = self._base(phase), self._base(phase + columns - 1) + 2 * self.reach
        lacking = (blocks - 1) * step + end - start - units.shape[1]
        if lacking > 0:  # of outputs that are not asked for
            units = torch.nn.functional.pad(units, (0, lacking))
        if rows * blocks <= _FEW:
            group = columns
        made = []
        for left in range(0, columns, group):
            right = min(left + group, columns)
            low, high = self._base(phase + left), self._base(phase + right - 1) + 2 * self.reach
            size = high - low
            if rows == 1:
                x = units.as_strided((blocks, size), (step, 1), low - start)
            else:
                x = units.as_strided((rows, blocks, size), (units.stride(0), step, 1), low - start).flatten(0, 1)
            made.append(torch.mm(x, matrix[low:high, phase + left : phase + right]))
        y = made[0] if len(made) == 1 else torch.cat(made, 1)
        return y.view(rows, blocks * columns)[:, :count].float()

    def _by_taps(self, units: Tensor, taps: Tensor, phase: int, count: int) -> Tensor:
        """Every output with its own taps, gathered: for rates that share little."""
        windows = units.unfold(1, 2 * self.reach, 1)
        size = max(1, _ROWS // (len(units) * 2 * self.reach))
        y = torch.empty((len(units), count), dtype=torch.float32, device=units.device)
        for first in range(0, count, size):
            n = torch.arange(first, min(first + size, count), device=units.device) + phase
            starts = n * self._down // self._up - self._base(phase)
            chosen = taps[n * self._down % self._up].double()
            y[:, first : first + len(n)] = (windows[:, starts] * chosen).sum(-1)
        return y


class Resampler:
    """Signals of one rate in chunks, given in another: push and flush give the samples of `resampled`, bit for bit.

    Chunks are [..., n], all with the same leading axes; n outputs lie `latency` inputs behind. The length of all is
    round(n * to / from), halves upwards.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Raises ArgumentError for rates outside 1000..384000 Hz."""
        self.converter = Converter(from_rate, to_rate)
        self.place: Place | None = None
        self._ended = False

    @property
    def latency(self) -> int:
        """Inputs after a sample's position that it depends on."""
        return self.converter.reach

    def push(self, x: Tensor, *, final: bool = False) -> Tensor:
        """[..., n >= 0] of floating-point samples -> [..., m], float32. `final` ends the signals, which `reset` undoes.

        Raises ShapeError for other leading axes than before, DtypeError for other than floating-point samples,
        StreamError after the end.
        """
        if self._ended:
            raise StreamError("wav: the signals have ended; reset() begins new ones")
        rows = _rows(x)
        place = self.place or self.converter.begin(len(rows), rows.device)
        if len(rows) != len(place.tail):
            raise ShapeError(f"wav: expected {len(place.tail)} signals as before, got {list(x.shape)}")
        y, self.place = self.converter.step(place, rows, final=final)
        self._ended = final
        return y.view(*x.shape[:-1], y.shape[1])

    def flush(self) -> Tensor:
        """The rest [R, m] of the signals."""
        rows = 1 if self.place is None else len(self.place.tail)
        return self.push(torch.zeros((rows, 0), dtype=torch.float32, device=self._device), final=True)

    def reset(self) -> None:
        """Begins anew."""
        self.place, self._ended = None, False

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.place is None else self.place.tail.device


def resampled(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Whole signals [..., n] at another rate: [..., round(n * to / from)], halves upwards, float32.

    Raises ArgumentError for rates outside 1000..384000 Hz, DtypeError for other than floating-point samples.
    """
    if from_rate == to_rate:
        check_rate(from_rate)
        _check_samples(wav)
        return wav
    y = Converter(from_rate, to_rate).whole(_rows(wav))
    return y.view(*wav.shape[:-1], y.shape[1])


def joined(places: list[Place]) -> Place:
    """Places that are `alike` as the rows of one, in which `given` and `made` are those of the first."""
    return replace(places[0], tail=torch.cat([place.tail for place in places]))


def parted(places: list[Place], before: Place, after: Place) -> list[Place]:
    """The new places of what `joined` put together."""
    given, made = after.given - before.given, after.made - before.made
    counts = [len(place.tail) for place in places]
    tails = after.tail.split(counts)
    return [Place(p.given + given, p.made + made, tail) for p, tail in zip(places, tails, strict=True)]


def _check_samples(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise DtypeError(f"wav: expected a floating-point tensor, got {got}")
    if not x.dim():
        raise ShapeError("wav: expected [..., n], got a number")


def _rows(x: Tensor) -> Tensor:
    _check_samples(x)
    return x.detach().reshape(math.prod(x.shape[:-1]), x.shape[-1]).float()


@dataclass(frozen=True)
class _Filters:
    """Taps [up, 2 reach] of every phase, float32, or the band matrix [inputs, outputs] of a block of outputs, float64.

    The matrix has columns for blocks that begin at any phase; `group` of them run together.
    """

    taps: Tensor
    matrix: Tensor | None
    block: int
    group: int


@lru_cache(maxsize=16)
def _filters(up: int, down: int, reach: int, device: torch.device) -> _Filters:
    with torch.inference_mode():
        taps = _taps(up, down, reach)
        wanted = max(1, _REACH * max(up, down) // down)  # outputs whose windows are no more than half other taps' room
        block = up * -(-wanted // up)
        group = -(-block // max(1, round(block / wanted)))
        columns, height = up + block, (up + block) * down // up + 2 * reach
        if columns * height > _MOST_MATRIX:
            return _Filters(taps.to(device), None, block, group)
        matrix = torch.zeros((height, columns), dtype=torch.float64, device="cpu")
        index = torch.arange(columns, device="cpu")
        inputs = (index * down // up)[:, None] + torch.arange(2 * reach, device="cpu")
        matrix[inputs, index[:, None]] = taps[index * down % up].double()
        return _Filters(taps.to(device), matrix.to(device), block, group)


def _taps(up: int, down: int, reach: int) -> Tensor:
    """[up, 2 reach] float32 multiples of a unit, times the unit of samples; each phase's sum is one exactly."""
    unit = _TAP_UNIT
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
