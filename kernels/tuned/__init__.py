"""Tuned values as data: block sizes, warps and pipeline stages by device, kernel, dtype and channels.

A file `sm_<capability>.json` lists, for each kernel, entries with the widths that they were chosen for. A layer takes
the entry nearest to it, in the file of the device's own capability or of the nearest one below. The choice depends on
nothing but the layer: length and batch never change how a sum is ordered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastvoc.kernels.launch import interpreting

_HERE = Path(__file__).parent
_override: ContextVar[dict[str, dict[str, int]] | None] = ContextVar("fastvoc_tuned", default=None)


@contextmanager
def override(**kernels: dict[str, int]) -> Iterator[None]:
    """Inside a `with` block, these values take the place of the tuned ones, kernel by kernel."""
    token = _override.set({**(_override.get() or {}), **kernels})
    try:
        yield
    finally:
        _override.reset(token)


def tuned(kernel: str, device: torch.device, dtype: torch.dtype, **widths: int) -> dict[str, int]:
    """The values for a kernel of these widths (channels and the like) on a device."""
    found = dict(_nearest(kernel, target(device), dtype.itemsize, tuple(sorted(widths.items()))))
    return {**found, **(_override.get() or {}).get(kernel, {})}


def target(device: torch.device) -> str:
    """The name of the table for a device: `sm_90`, or `interpreter`."""
    if device.type != "cuda":
        return _ahead.get() or ("interpreter" if interpreting() else "sm_90")
    if interpreting():
        return "interpreter"
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


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
def _tables() -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {path.stem: json.loads(path.read_text())["kernels"] for path in sorted(_HERE.glob("*.json"))}


def _table(name: str) -> dict[str, list[dict[str, Any]]]:
    tables = _tables()
    if name in tables:
        return tables[name]
    known = {int(other.removeprefix("sm_")): other for other in tables if other.startswith("sm_")}
    wanted = int(name.removeprefix("sm_"))
    below = [number for number in known if number <= wanted]
    return tables[known[max(below) if below else min(known)]]


@cache
def _nearest(kernel: str, name: str, itemsize: int, widths: tuple[tuple[str, int], ...]) -> dict[str, int]:
    rows = _table(name)[kernel]

    def distance(row: dict[str, Any]) -> float:
        there = row.get("for", {})
        far = 100.0 * (there.get("bytes", itemsize) != itemsize)
        return far + sum(abs(math.log2(width) - math.log2(there[key])) for key, width in widths if key in there)

    best: dict[str, int] = min(rows, key=distance)["values"]
    return best
