"""What the benchmark drivers share: interleaved timing, a description of the machine, result files.

Needs nothing but torch and numpy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(
    runs: dict[str, Callable[[], Any]],
    seconds: float,
    least: int = 5,
    device: str = "cpu",
    *,
    warm: bool = False,
    rested: dict[str, list[float]] | None = None,
) -> dict[str, list[float]]:
    """Times the runs in turn, A B A B ..., after one unmeasured round unless they are `warm`; seconds per call.

    On the CPU wall time, in every turn of the second of two calls: the first one comes after a rest, which lets the
    threads of the run before go to sleep, and pays for caches and processors that were given away meanwhile. `rested`
    gets the times of the first calls. On CUDA the time between two events around a call on an idle device, so that what
    the host takes to launch counts. Machines drift, so only ratios within one call of this function mean anything. Ends
    after about `seconds`, but not before `least` rounds.
    """
    timed = _by_events if device == "cuda" else by_clock
    for run in () if warm else runs.values():
        timed(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    first: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while len(times[next(iter(runs))]) < least or time.perf_counter() - start < seconds:
        for name, run in runs.items():
            cold, usual = timed(run)
            first[name].append(cold)
            times[name].append(usual)
    if rested is not None:
        rested |= first
    return times


_REST = 0.02  # seconds; the threads of some libraries go on spinning that long after a call, beside the next one's
_LONG = 0.2  # seconds; of a longer call a rest changes nothing


def by_clock(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a call after a rest, and of the one after it; of the same one where it is long."""
    time.sleep(_REST)
    times = []
    while len(times) < 2 and sum(times) < _LONG:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times[0], times[-1]


def _by_events(run: Callable[[], Any]) -> tuple[float, float]:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    end.synchronize()
    seconds = 1e-3 * begin.elapsed_time(end)
    return seconds, seconds


def repeated(run: Callable[[], Any], calls: int) -> Callable[[], Any]:
    """A CUDA graph of so many calls: its replay is the device's work alone. Raises what capturing raises."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(calls):
            run()
    return graph.replay


@dataclass(frozen=True)
class Ceilings:
    """What the device was measured to do: operations and bytes, read plus written, per second."""

    flops: float
    bytes: float

    def seconds(self, flops: float, moved: float) -> float:
        """No kernel that does so much is faster."""
        return max(flops / self.flops, moved / self.bytes)


def ceilings(dtype: torch.dtype, device: str = "cuda") -> Ceilings:
    """A large matrix product in this dtype (float32 without TF32) and a large copy.

    On the CPU the faster of torch's product of matrices that fit into the caches and, where there is one for the
    dtype, this library's convolution of 128 channels.
    """
    if device == "cpu":
        return _cpu_ceilings(dtype)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    times = interleaved({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, 1.0, device="cuda")
    product, copy = (statistics.median(times[name]) for name in ("product", "copy"))
    return Ceilings(2 * 8192**3 / product, 2 * source.numel() * source.element_size() / copy)


def _cpu_ceilings(dtype: torch.dtype) -> Ceilings:
    from fastvoc.ops.conv1d import OP, Conv1dParams
    from fastvoc.runtime.registry import Spec

    params = Conv1dParams(torch.randn(128, 128, 7, dtype=dtype), None)
    x = torch.randn(1, 16384, 128, dtype=dtype).transpose(1, 2)
    source = torch.randn(2**26)
    target = torch.empty_like(source)
    a, b = (torch.randn(1024, 1024, dtype=dtype) for _ in range(2))
    runs: dict[str, Callable[[], Any]] = {"copy": lambda: target.copy_(source), "product": lambda: a @ b}
    products = {"product": 2 * 1024**3}
    impl = OP.impls["cpp"]
    if impl.supports(Spec("cpu", dtype, params)) is None:
        packed = impl.pack(params)
        runs["conv"] = lambda: impl.run(x, packed)
        products["conv"] = 2 * OP.cost(x, params).multiply_adds
    with torch.inference_mode():
        times = interleaved(runs, 2.0)
    flops = max(count / min(times[name]) for name, count in products.items())
    return Ceilings(flops, 2 * source.numel() * source.element_size() / min(times["copy"]))


def add_arguments(parser: argparse.ArgumentParser, budget: float) -> None:
    """The options that every driver has; `budget` is the default time for one measurement, in seconds."""
    parser.add_argument("--impl", nargs="+", default=["torch", "cpp"], help="the first is the baseline")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=budget, help="seconds for one measurement")
    parser.add_argument("--write", nargs="?", const="", metavar="NAME", help="write the result file, under this name")


def check_device(device: str) -> None:
    """Ends the program with a word about it when the device is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        raise SystemExit(f"no GPU is visible: torch {torch.__version__}, {built}, sees no CUDA device")


def summary(times: dict[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Median and best seconds of each run, and how many times faster than the baseline it is, round by round."""
    rows = {}
    for name, values in times.items():
        ratios = [b / v for b, v in zip(times[baseline], values, strict=True)]
        rows[name] = {
            "median_s": statistics.median(values),
            "best_s": min(values),
            "speedup": statistics.median(ratios),
            "speedup_low": sorted(ratios)[len(ratios) // 4],
            "speedup_high": sorted(ratios)[3 * len(ratios) // 4],
            "rounds": len(values),
        }
    return rows


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times as long they take, by the median over rounds."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def machine(device: str) -> dict[str, Any]:
    """What the numbers depend on: processor, threads, versions, revision, date."""
    from fastvoc import __version__
    from fastvoc.runtime import library as _library

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "isa": _library.cpu_isa(),
        "cuda": _cuda() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rivals": {name: _installed(name) for name in ("onnxruntime", "openvino", "triton")},
        "fastvoc": __version__,
        "revision": _revision(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _cuda() -> dict[str, Any]:
    from fastvoc.runtime import library as _library

    properties = torch.cuda.get_device_properties(0)
    return {
        "arch": f"sm_{properties.major}{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30),
        "toolkit": torch.version.cuda,
        "library": _library.cuda_problem() or "loaded",
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _revision() -> str:
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"


def write(name: str, device: str, rows: list[dict[str, Any]]) -> Path:
    """Writes the rows with the machine's description: into $OUT if set, else benchmarks/results/<device>/."""
    facts = machine(device)
    path = _path(name, device, facts)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    partial.replace(path)
    path.with_suffix(".jsonl").unlink(missing_ok=True)
    return path


class Lines:
    """Rows that are safe as soon as they are known: one a line of a file, after the machine's, until `write`."""

    def __init__(self, name: str, device: str) -> None:
        facts = machine(device)
        self._path = _path(name, device, facts).with_suffix(".jsonl")
        self._path.write_text(json.dumps({"machine": facts}) + "\n")

    def add(self, row: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _path(name: str, device: str, facts: dict[str, Any]) -> Path:
    slug = "-".join("".join(c if c.isalnum() else " " for c in facts["device"].lower()).split())
    slug = slug if device == "cuda" else f"{slug}-{facts['cores']}core"
    folder = Path(os.environ.get("OUT") or RESULTS / slug)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def read(name: str, device: str) -> list[dict[str, Any]]:
    """The rows that are already in a result file; none where there is no file."""
    path = _path(name, device, machine(device))
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def merge(
    name: str,
    device: str,
    rows: list[dict[str, Any]],
    by: tuple[str, ...] = ("model", "dtype", "batch", "seconds"),
) -> Path:
    """Writes rows in place of those with the same values of `by`, each with its revision and date."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in by)

    facts = machine(device)
    stamp = {"revision": facts["revision"], "date": facts["date"]}
    table = {key(row): row for row in read(name, device)} | {key(row): row | stamp for row in rows}
    return write(name, device, [table[at] for at in sorted(table)])
