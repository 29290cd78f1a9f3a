"""Tuned values found by timing: every set of values that the tables have for a kernel, on the call that wants them.

Runs where FASTVOC_AUTOTUNE asks for it, once for each kernel, dtype and widths on a device, never while a CUDA graph is
captured. What was found holds for the process, and in the file that the variable may name.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from fastvoc.kernels import tuned
from fastvoc.kernels.ahead import specialize
from fastvoc.kernels.launch import Launch, interpreting, record
from fastvoc.kernels.tuned import Key
from fastvoc.runtime import env
from fastvoc.runtime.io import atomic_path

_PRODUCTS = ("conv1d", "mrf", "seanet_block", "lvc", "conv2d")
_REFUSALS = (OutOfResources, PTXASError, CompilationError)
_lock = threading.RLock()
_read: set[str] = set()


def run(kernel: Callable[..., Tensor], x: Tensor, packed: Any, args: list[Any]) -> Tensor:
    """`kernel(x, packed, *args)`, after the search for the values of whatever it launches that is not known yet."""
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return kernel(x, packed, *args)
    while (key := _missing(lambda: kernel(x, packed, *args), done := [])) is not None:
        with _lock:
            read()
            if key in tuned.measured:
                continue
            # The trials must not advance a state that the call advances.
            copies = [a.clone() if isinstance(a, Tensor) else a for a in args]
            tuned.measured[key] = best(key, lambda given=copies: kernel(x, packed, *given), x.device)
            write()
    return done[0]


def _missing(call: Callable[[], Tensor], done: list[Tensor]) -> Key | None:
    """What must be measured before the call can run; None when it has, then `done` holds its result."""
    try:
        with tuned.known_alone():
            done.append(call())
    except tuned.Unknown as unknown:
        return unknown.key
    return None


def best(key: Key, call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """The candidate with which `call` takes the least time; the tables' own where none runs."""
    tried = list(candidates(key))
    compile_all(key, tried, call, device)
    fastest, chosen = math.inf, None
    for values in tried:
        with tuned.trial(key, values), suppress(*_REFUSALS):
            if (taken := seconds(call, device)) < fastest:
                fastest, chosen = taken, values
    return chosen or tuned.nearest(key)


def compile_all(key: Key, tried: list[dict[str, Any]], call: Callable[[], Any], device: torch.device) -> None:
    """Compiles what `call` launches with each of these values, a kernel a thread, so that no trial waits for it."""
    if interpreting():
        return
    wanted: dict[Any, Launch] = {}
    for values in tried:
        with tuned.trial(key, values), record(dry=True) as recording, suppress(*_REFUSALS):
            call()
        wanted |= {specialize(each): each for each in recording.launches}

    def compiled(each: Launch) -> None:
        here = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        with here, suppress(*_REFUSALS):  # a trial meets it again
            each.kernel.warmup(grid=each.grid, **each.arguments, **each.options, enable_fp_fusion=True)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16), "fastvoc-compile") as threads:
        list(threads.map(compiled, wanted.values()))


def candidates(key: Key) -> Iterator[dict[str, Any]]:
    """What is tried, the tables' choice first: their values for the kernel and dtype, other warps, 3xTF32."""
    own = [name for name in tuned.tables() if name.startswith("sm_") == key.target.startswith("sm_")]
    rows = [row for name in own for row in tuned.tables()[name].get(key.kernel, [])]
    given = [row["values"] for row in rows if row.get("for", {}).get("bytes", key.itemsize) == key.itemsize]
    tried: list[dict[str, Any]] = []
    for values in [tuned.nearest(key), *given]:
        more = [values] + [{**values, "num_warps": warps} for warps in (4, 8)]
        if key.itemsize == 4 and key.kernel in _PRODUCTS:
            more += [{**each, "PRECISION": "tf32x3"} for each in more]
        for each in more:
            if each not in tried:
                tried.append(each)
                yield each


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """The time of a call, the median of a few; the first one, which compiles, does not count."""
    call()
    times = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(torch.cuda.current_stream(device))
        for _ in range(5):
            call()
        end.record(torch.cuda.current_stream(device))
        end.synchronize()
        times.append(begin.elapsed_time(end) / 5000)
    return median(times)


def _file() -> Path | None:
    text = env.AUTOTUNE.get()
    return Path(text) if text.endswith(".json") else None


def read() -> None:
    """Takes over what an earlier search left in the file, if it exists."""
    path = _file()
    if path is None or str(path) in _read or not path.exists():
        return
    _read.add(str(path))
    table = json.loads(path.read_text())
    for kernel, rows in table["kernels"].items():
        for row in rows:
            widths = {name: width for name, width in row["for"].items() if name != "bytes"}
            key = Key(kernel, table["target"], row["for"]["bytes"], tuple(sorted(widths.items())))
            tuned.measured.setdefault(key, row["values"])


def write() -> None:
    """Leaves what was found in the file, as a table like those of this folder, for one kind of device."""
    path = _file()
    if path is None or not tuned.measured:
        return
    target = next(reversed(tuned.measured)).target
    kernels: dict[str, list[dict[str, Any]]] = {}
    for key, values in tuned.measured.items():
        if key.target == target:
            kernels.setdefault(key.kernel, []).append(
                {"for": {"bytes": key.itemsize, **dict(key.widths)}, "values": values}
            )
    device = torch.cuda.get_device_name() if target.startswith("sm_") else target
    table = {"device": f"measured on {device}", "target": target, "kernels": kernels}
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(table, indent=1) + "\n")
