"""Samples as a transport wants them: its rate, its format, what was clipped counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import StreamError
from fastvoc.ops.noise import triangular_noise
from fastvoc.sound.formats import DTYPES, check_format, coded, to_format
from fastvoc.sound.resampling import Converter, Place, check_rate, joined, parted, resampled_length


@dataclass(frozen=True)
class Delivery:
    """What becomes of a model's samples: their rate and the wanted one in Hz, a format, the seed of dither or None.

    Raises ArgumentError for a rate outside 1000..384000 Hz, an unknown format, and dither of another one than s16.
    """

    from_rate: int
    rate: int
    format: str = "f32"
    dither: int | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate)
        check_format(self.format, self.dither)

    @classmethod
    def of(cls, from_rate: int, rate: int | None, kind: str, dither: int | None) -> Delivery | None:
        """None where nothing is to be done. Raises ArgumentError as the constructor."""
        if rate is None and kind == "f32" and dither is None:
            return None
        rate = from_rate if rate is None else rate
        check_rate(rate)
        found = cls(from_rate, index(rate), kind, dither)
        return None if found == cls(from_rate, from_rate) else found

    @cached_property
    def converter(self) -> Converter | None:
        """None where the rates are equal."""
        return None if self.rate == self.from_rate else Converter(self.from_rate, self.rate)

    def prepare(self, device: torch.device) -> None:
        """Makes beforehand what signals there need."""
        if self.converter is not None:
            self.converter.prepare(device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of what comes out."""
        return DTYPES[self.format]

    @property
    def reach(self) -> int:
        """Samples of the model after a sample's position that it depends on."""
        return 0 if self.converter is None else self.converter.reach

    def length(self, samples: int) -> int:
        """Samples out for so many of the model: round(n * rate / from_rate), halves upwards."""
        return resampled_length(samples, self.from_rate, self.rate)

    @cached_property
    def rounds(self) -> bool:
        """Whether the change of the rate also makes whole numbers."""
        return self.converter is not None and self.format != "f32" and self.dither is None

    def whole(self, wav: Tensor, counts: Sequence[int] | None = None) -> tuple[Tensor, int | Tensor | None]:
        """Signals [B, ..., n], of which item i has counts[i] samples -> the same in the rate and format.

        And how many were clipped. Beyond an item's own samples there is silence.
        """
        y = rows = _rows(wav)
        if self.converter is not None:
            s16 = self.rounds and counts is None
            y, clips = self.converter.whole(rows, s16=s16)
        y = y.view(*wav.shape[:-1], y.shape[-1])
        if y.dtype == torch.int16:
            return coded(y, self.format), _total(clips)
        if counts is not None:
            y = y.clone() if self.converter is None else y  # the caller's own
            for item, count in zip(y, counts, strict=True):
                item[..., self.length(count) :] = 0.0
        out, clipped = to_format(y, self.format, self.noise(y, 0))
        if counts is not None and self.dither is not None:
            for item, count in zip(out, counts, strict=True):
                item[..., self.length(count) :] = 0
        return out, counted(clipped)

    def noise(self, y: Tensor, start: int) -> Tensor | None:
        """The dither of samples [..., m] from position `start` on: by seed, position and row alone."""
        if self.dither is None:
            return None
        rows = y.shape[:-1].numel()
        seeds = self.dither + torch.arange(rows, dtype=torch.int64, device=y.device)
        return triangular_noise(seeds, y.shape[-1], start).view(y.shape)


def counted(clipped: Tensor | None) -> int | Tensor | None:
    """A count as a number; on a GPU, where reading it means waiting, as it is."""
    return int(clipped) if clipped is not None and clipped.device.type == "cpu" else clipped


def _total(clips: Tensor) -> int | Tensor | None:
    """What all rows [R] clip, as `counted`; None where that is known to be nothing."""
    return (sum(clips.tolist()) or None) if clips.is_cpu else clips.sum()


@dataclass
class _Step:
    """What a chunk made, and where its signal then stands."""

    made: Tensor
    count: int
    place: Place | None
    clipped: int | Tensor | None


class Deliverer:
    """A `Delivery` of one signal, or a batch of them, in chunks; the same samples as `Delivery.whole`.

    `ready` computes and changes nothing, `done` takes its result for the state.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self._place: Place | None = None
        self._count = 0

    def ready(self, y: Tensor, *, final: bool) -> _Step:
        """The samples [..., m] that a model's [..., n] complete."""
        delivery, converter = self.delivery, self.delivery.converter
        if converter is None:
            return self.formatted(y, None)
        rows = _rows(y)
        made, place, clips = converter.advance(self.place_for(rows), rows, final=final, s16=delivery.rounds)
        made = made[0] if y.dim() == 1 else made.view(*y.shape[:-1], made.shape[1])
        return self.formatted(made, place, clips)

    def done(self, step: _Step) -> Tensor:
        """The samples of a step, after which the signal stands there."""
        self._count, self._place = step.count, step.place
        return step.made

    def state(self) -> tuple[dict[str, Tensor], list[int]]:
        """Everything that goes on from here."""
        if self._place is None:
            return {}, [self._count]
        return {"delivery/tail": self._place.tail}, [self._count, self._place.given, self._place.made]

    def restored(self, tensors: dict[str, Tensor], counters: object, nothing: Tensor) -> Deliverer:
        """One that goes on from such a `state`, of signals whose samples are like `nothing` [..., 0].

        Raises StreamError where it is not the state of one.
        """
        made, converter = Deliverer(self.delivery), self.delivery.converter
        numbers = counters if isinstance(counters, tuple) else ()
        names = {"delivery/tail"} if len(numbers) == 3 else set()
        fits = len(numbers) in (1, 3) and all(type(n) is int and n >= 0 for n in numbers) and tensors.keys() == names
        if fits:
            made._count = numbers[0]
        if fits and names:
            made._place = Place(numbers[1], numbers[2], tensors["delivery/tail"])
            fits = converter is not None and converter.stands(made._place, len(_rows(nothing)))
        if not fits:
            raise StreamError("state: its samples of another rate are not those of such a stream")
        return made

    def group(self, y: Tensor) -> tuple[object, object]:
        """Equal for chunks that may be converted together."""
        converter = self.delivery.converter
        return y.shape, None if converter is None or self._place is None else converter.alike(self._place)

    def place_for(self, rows: Tensor) -> Place:
        """Where the signals of a chunk [R, n] stand."""
        converter = self.delivery.converter
        assert converter is not None
        return self._place or converter.begin(len(rows), rows.device)

    def formatted(self, y: Tensor, place: Place | None, clips: Tensor | None = None) -> _Step:
        """The step that ends in samples [..., m] of the wanted rate, or s16 of which each row had clipped so many."""
        delivery, count = self.delivery, self._count + y.shape[-1]
        if clips is not None and y.dtype == torch.int16:
            return _Step(coded(y, delivery.format), count, place, _total(clips))
        out, clipped = to_format(y, delivery.format, delivery.noise(y, self._count))
        return _Step(out, count, place, counted(clipped))


def ready(deliverers: Sequence[Deliverer], ys: Sequence[Tensor], *, final: bool) -> list[_Step]:
    """`Deliverer.ready` for many signals of one delivery: those at the same point run together."""
    delivery = deliverers[0].delivery if deliverers else None
    converter = None if delivery is None else delivery.converter
    if delivery is None or converter is None:
        return [d.formatted(y, None) for d, y in zip(deliverers, ys, strict=True)]
    together: dict[Any, list[int]] = {}
    for i, (deliverer, y) in enumerate(zip(deliverers, ys, strict=True)):
        together.setdefault(i if final else deliverer.group(y), []).append(i)
    steps: dict[int, _Step] = {}
    for group in together.values():
        rows = [_rows(ys[i]) for i in group]
        places = [deliverers[i].place_for(row) for i, row in zip(group, rows, strict=True)]
        before, x = (places[0], rows[0]) if len(group) == 1 else (joined(places), torch.cat(rows))
        made, after, clips = converter.advance(before, x, final=final, s16=delivery.rounds)
        counts = [len(row) for row in rows]
        parts = zip(group, made.split(counts), clips.split(counts), parted(places, before, after), strict=True)
        for i, part, clip, place in parts:
            steps[i] = deliverers[i].formatted(part.view(*ys[i].shape[:-1], part.shape[-1]), place, clip)
    return [steps[i] for i in range(len(ys))]


def _rows(y: Tensor) -> Tensor:
    """[..., n] as [R, n]."""
    return y[None] if y.dim() == 1 else y.reshape(y.shape[:-1].numel(), y.shape[-1])
