"""Which implementation of an op is the fastest on a CUDA device: tables of times by layer and size of a call.

`choices/sm_<capability>.json` has rows for layers of published models at some sizes, each with the microseconds that
every implementation takes and where they are from: "estimated" (`benchmarks/estimate.py`) or "measured"
(`benchmarks/choices.py`, on a device). A layer goes by the row nearest to it, in the table of the device's own
capability or of the nearest older one. An estimate must promise more than it may err to change the order. Calls of what
`fastvoc.load` gives go by it; streams, `use_exact` and bare models do not, so that all sizes have the same bits there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).parent / "choices"
MARGIN = 1.35  # by which an estimate may err


class Size(NamedTuple):
    """Of a call: items, and seconds of audio of each."""

    items: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.items} x {self.seconds:g} s"


class Layer(NamedTuple):
    """What times are for: the op, bytes of a value of its first input, and the shape of its first weight."""

    op: str
    itemsize: int
    weight: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Microseconds of a layer at a size by implementation, `measured` or estimated; infinite where one failed."""

    layer: Layer
    size: Size
    times: Mapping[str, float]
    measured: bool

    @property
    def source(self) -> str:
        """Where the times are from."""
        return "measured" if self.measured else "estimated"

    def said(self, name: str) -> str:
        """The time of an implementation."""
        time = self.times.get(name)
        return "no time known" if time is None else f"{time:g} us {self.source}" if time < math.inf else "failed there"

    def order(self, names: Sequence[str]) -> list[str]:
        """Names of implementations, best first; they come in the order that counts where nothing is known.

        torch comes behind all that run: most references read lengths on the host, for which no graph can wait, and take
        a ragged batch item by item, which their times do not tell.
        """
        if not names or names[0] not in self.times:
            return list(names)
        handicap = 1.0 if self.measured else MARGIN
        known = [name for name in names if name in self.times]
        times = {name: self.times[name] * (1.0 if name == names[0] else handicap) for name in known}
        known.sort(key=lambda name: (times[name] == math.inf, name == "torch", times[name]))
        return known + [name for name in names if name not in self.times]


@dataclass(frozen=True)
class Table:
    """The rows of devices of a capability, by which one of `asked` goes."""

    capability: int
    asked: int
    rows: tuple[Row, ...]

    @property
    def sizes(self) -> list[Size]:
        """The sizes for which there are rows, smallest first."""
        return sorted({row.size for row in self.rows}, key=_work)

    @property
    def note(self) -> str:
        """What the table rests on, and whose it is where that is another device's."""
        measured = sum(row.measured for row in self.rows)
        text = f"sm_{self.capability}: {len(self.rows) - measured} rows estimated, {measured} measured"
        if self.asked == self.capability:
            return text
        nearest = "older" if self.capability < self.asked else "newer"
        return f"{text}; sm_{self.asked} has none of its own, this is the nearest {nearest} one"

    def nearest(self, items: int, seconds: float) -> Size:
        """The size of the table that is nearest to that of a call."""
        return min(self.sizes, key=lambda size: (abs(math.log(_work(size) / (items * seconds))), -size.items))

    def row(self, layer: Layer, size: Size) -> Row | None:
        """The row of the layer most like this one at the size nearest to this one, None where its op has none."""
        rows = [(far, row) for row in self.rows if (far := _distance(layer, row.layer)) is not None]
        if not rows:
            return None
        return min(rows, key=lambda pair: (pair[0], abs(math.log(_work(pair[1].size) / _work(size)))))[1]


def _work(size: Size) -> float:
    return size.items * size.seconds


def _distance(one: Layer, other: Layer) -> float | None:
    if one.op != other.op or len(one.weight) != len(other.weight):
        return None
    far = sum(abs(math.log2(a / b)) for a, b in zip(one.weight, other.weight, strict=True))
    return far + 100.0 * (one.itemsize != other.itemsize)


def read(path: Path) -> list[Row]:
    """The rows of a table's file."""
    return [
        Row(
            Layer(row["op"], row["bytes"], tuple(row["weight"])),
            Size(row["items"], row["seconds"]),
            {name: math.inf if time is None else time for name, time in row["us"].items()},
            {"measured": True, "estimated": False}[row["from"]],
        )
        for row in json.loads(path.read_text())["rows"]
    ]


def known() -> dict[int, Path]:
    """The files of tables by capability, times ten."""
    return {int(path.stem.removeprefix("sm_")): path for path in sorted(HERE.glob("sm_*.json"))}


def serving(capability: int, tables: Collection[int]) -> int:
    """Of tables by capability, times ten, a device's own, else the nearest older one, else the oldest."""
    return max((number for number in tables if number <= capability), default=min(tables))


@cache
def table(capability: int) -> Table | None:
    """The table that serves a capability, times ten; None without any."""
    files = known()
    if not files:
        return None
    found = serving(capability, files)
    return Table(found, capability, tuple(read(files[found])))


def capability(device: torch.device) -> int | None:
    """Of a CUDA device, times ten; None of any other."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def of(device: torch.device) -> Table | None:
    """The table by which a device goes, None where there is none."""
    number = capability(device)
    return None if number is None else table(number)


_size: ContextVar[Size | None] = ContextVar("fastvoc_size", default=None)


def size() -> Size | None:
    """The size of a table that is nearest to the call that runs, None where nobody has told."""
    return _size.get()


def sized(device: torch.device, items: int, seconds: float) -> AbstractContextManager[None]:
    """A context around a call of this size, all of whose layers go by the same size of the device's table."""
    found = of(device)
    return nullcontext() if found is None else _within(found.nearest(items, seconds))


@contextmanager
def _within(wanted: Size) -> Iterator[None]:
    token = _size.set(wanted)
    try:
        yield
    finally:
        _size.reset(token)
