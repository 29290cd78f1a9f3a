"""Tuned values as data: block sizes, warps and pipeline stages by device, kernel, dtype and channels.

A file `sm_<capability>.json` lists, for each kernel, entries with the widths that they were chosen for. A layer takes
the entry nearest to it, in the file of the device's own capability or of the nearest one below. The choice depends on
nothing but the layer: length and batch never change how a sum is ordered. Values for float32 may hold `PRECISION`:
`tf32x3` takes three products of TF32 on tensor cores for each one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastvoc.kernels.launch import interpreting
from fastvoc.runtime.choice import capability, serving

_HERE = Path(__file__).parent
_override: ContextVar[dict[str, dict[str, Any]] | None] = ContextVar("fastvoc_tuned", default=None)


class Key(NamedTuple):
    """What values are for: kernel, table, bytes of an activation, and the widths by name."""

    kernel: str
    target: str
    itemsize: int
    widths: tuple[tuple[str, int], ...]


class Unknown(Exception):
    """Values were asked for that `measured` does not hold, where only those count."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key}")
        self.key = key


measured: dict[Key, dict[str, Any]] = {}  # by `search`, before those of the tables
_known_alone: ContextVar[bool] = ContextVar("fastvoc_tuned_known_alone", default=False)
_trial: ContextVar[tuple[Key, dict[str, Any]] | None] = ContextVar("fastvoc_tuned_trial", default=None)


@contextmanager
def override(**kernels: dict[str, Any]) -> Iterator[None]:
    """Inside a `with` block, these values take the place of the tuned ones, kernel by kernel."""
    token = _override.set({**(_override.get() or {}), **kernels})
    try:
        yield
    finally:
        _override.reset(token)


@contextmanager
def known_alone() -> Iterator[None]:
    """Inside a `with` block, values that `measured` does not hold raise `Unknown`."""
    token = _known_alone.set(True)
    try:
        yield
    finally:
        _known_alone.reset(token)


@contextmanager
def trial(key: Key, values: dict[str, Any]) -> Iterator[None]:
    """Inside a `with` block, `key` has these values, and the others what they would have without a search."""
    tokens = _trial.set((key, values)), _known_alone.set(False)
    try:
        yield
    finally:
        _trial.reset(tokens[0])
        _known_alone.reset(tokens[1])


def tuned(kernel: str, device: torch.device, dtype: torch.dtype, **widths: int) -> dict[str, Any]:
    """The values for a kernel of these widths (channels and the like) on a device."""
    key = Key(kernel, target(device), dtype.itemsize, tuple(sorted(widths.items())))
    trying = _trial.get()
    if trying is not None and trying[0] == key:
        found = trying[1]
    elif key in measured:
        found = measured[key]
    elif _known_alone.get():
        raise Unknown(key)
    else:
        found = nearest(key)
    return {**found, **(_override.get() or {}).get(kernel, {})}


def target(device: torch.device) -> str:
    """The name of the table for a device: `sm_90`, or `interpreter`."""
    if device.type != "cuda":
        return _ahead.get() or ("interpreter" if interpreting() else "sm_90")
    if interpreting():
        return "interpreter"
    return f"sm_{capability(device)}"


_ahead: ContextVar[str | None] = ContextVar("fastvoc_target", default=None)


@contextmanager
def compile_for(name: str) -> Iterator[None]:
    """Inside a `with` block, tensors that are on no GPU get the values of this table."""
    token = _ahead.set(name)
    try:
        yield
    finally:
        _ahead.reset(token)


@cache
def tables() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The tables of this folder by name, each with the rows of every kernel."""
    return {path.stem: json.loads(path.read_text())["kernels"] for path in sorted(_HERE.glob("*.json"))}


def _table(name: str) -> dict[str, list[dict[str, Any]]]:
    if name in tables():
        return tables()[name]
    known = [int(other.removeprefix("sm_")) for other in tables() if other.startswith("sm_")]
    return tables()[f"sm_{serving(int(name.removeprefix('sm_')), known)}"]


@cache
def nearest(key: Key) -> dict[str, Any]:
    """What the tables have for it."""
    kernel, name, itemsize, widths = key
    rows = _table(name)[kernel]

    def distance(row: dict[str, Any]) -> float:
        there = row.get("for", {})
        far = 100.0 * (there.get("bytes", itemsize) != itemsize)
        return far + sum(abs(math.log2(width) - math.log2(there[key])) for key, width in widths if key in there)

    best: dict[str, Any] = min(rows, key=distance)["values"]
    return best
