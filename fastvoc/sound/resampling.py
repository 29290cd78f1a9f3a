"""Another sample rate for whole signals and for chunks of them, with the same bits (`fastvoc/ops/resample.py`).

Output n of a signal lies at input n * from / to: the delay is made up for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError, StreamError
from fastvoc.ops.resample import Due, Ratio, prepare, resample

LOWEST_HZ, HIGHEST_HZ = 1000, 384000


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """round(samples * to_rate / from_rate), halves upwards."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)


def check_rate(rate: int) -> None:
    """Raises ArgumentError for what is no rate that one may ask for."""
    if isinstance(rate, bool) or not hasattr(rate, "__index__") or not LOWEST_HZ <= rate <= HIGHEST_HZ:
        raise ArgumentError(f"rate: expected a whole number in {LOWEST_HZ}..{HIGHEST_HZ} Hz, got {rate!r}")


class Place(NamedTuple):
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
        common = math.gcd(from_rate, to_rate)
        self.ratio = Ratio(to_rate // common, from_rate // common)
        self.reach = self.ratio.reach  # inputs on either side of an output

    def prepare(self, device: torch.device) -> None:
        """Makes the filter beforehand."""
        prepare(self.ratio, device)

    def begin(self, rows: int, device: torch.device) -> Place:
        """The beginning of so many signals: silence before them."""
        return Place(0, 0, torch.zeros((rows, self.reach - 1), dtype=torch.float32, device=device))

    def alike(self, place: Place) -> tuple[int, int]:
        """Equal for places whose signals may go on together, as the rows of one, until they end."""
        return place.made % self.ratio.up, place.tail.shape[1]

    def stands(self, place: Place, rows: int) -> bool:
        """Whether so many signals may have come to this place, between two chunks."""
        (up, down), (given, made, tail) = self.ratio, place
        kept = self.reach - 1 + given - made * down // up
        return (
            made == max(-(-(given - self.reach) * up // down), 0)
            and tail.shape == (rows, kept)
            and tail.dtype is torch.float32
        )

    @torch.inference_mode()
    def step(self, place: Place, x: Tensor, *, final: bool) -> tuple[Tensor, Place]:
        """Chunks [R, n >= 0] of float32 -> the samples [R, m] that they complete, and the new place."""
        y, place, _ = self.advance(place, x, final=final)
        return y, place

    def advance(self, place: Place, x: Tensor, *, final: bool, s16: bool = False) -> tuple[Tensor, Place, Tensor]:
        """The same, as `s16` if so, and how many of these each row clips, [R] int64."""
        ratio, (given, made, tail), n = self.ratio, place, x.shape[1]
        up, down = ratio
        given += n
        if final:
            after, end = self.reach, resampled_length(given, self.from_rate, self.to_rate)
        else:
            after, end = 0, max(-(-(given - self.reach) * up // down), 0)
        keep = min(end * down // up - made * down // up, tail.shape[1] + n + after)
        y, tail, clipped = resample(ratio, x, tail, Due(after, made % up, end - made, keep, s16))
        return y, Place(given, end, tail), clipped

    @torch.inference_mode()
    def whole(self, wav: Tensor, *, s16: bool = False) -> tuple[Tensor, Tensor]:
        """Signals [R, n] of float32 -> [R, round(n * to / from)], float32 or s16, and how many each row clips."""
        y, _, clipped = self.advance(self.begin(len(wav), wav.device), wav, final=True, s16=s16)
        return y, clipped


class Resampler:
    """Signals of one rate in chunks, given in another: push and flush give the samples of `resampled`, bit for bit.

    Chunks are [..., n], all with the same leading axes; n outputs lie `latency` inputs behind. The length of all is
    round(n * to / from), halves upwards.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Raises ArgumentError for rates outside 1000..384000 Hz."""
        self.converter = Converter(from_rate, to_rate)
        self._same = from_rate == to_rate
        self.place: Place | None = None
        self._axes = torch.Size()
        self._ended = False

    @property
    def latency(self) -> int:
        """Inputs after a sample's position that it depends on."""
        return 0 if self._same else self.converter.reach

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
        y, self.place = (rows, place) if self._same else self.converter.step(place, rows, final=final)
        self._axes, self._ended = x.shape[:-1], final
        return y.view(*self._axes, y.shape[1])

    def flush(self) -> Tensor:
        """The rest [..., m] of the signals."""
        return self.push(torch.zeros((*self._axes, 0), dtype=torch.float32, device=self._device), final=True)

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
    y, _ = Converter(from_rate, to_rate).whole(_rows(wav))
    return y.view(*wav.shape[:-1], y.shape[1])


def joined(places: list[Place]) -> Place:
    """Places that are `alike` as the rows of one, in which `given` and `made` are those of the first."""
    return places[0]._replace(tail=torch.cat([place.tail for place in places]))


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
