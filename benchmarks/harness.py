"""What the benchmark drivers share: interleaved timing, a description of the machine, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(runs: dict[str, Callable[[], Any]], seconds: float, least: int = 5) -> dict[str, list[float]]:
    """Times the runs in turn, A B A B ..., after one unmeasured round; wall seconds per call.

    Machines drift, so only ratios within one call of this function mean anything. Ends after about `seconds`, but not
    before `least` rounds.
    """
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while len(times[next(iter(runs))]) < least or time.perf_counter() - start < seconds:
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return times


def add_arguments(parser: argparse.ArgumentParser, budget: float) -> None:
    """The options that every driver has; `budget` is the default time for one measurement, in seconds."""
    parser.add_argument("--impl", nargs="+", default=["torch", "cpp"], help="the first is the baseline")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=budget, help="seconds for one measurement")
    parser.add_argument("--write", action="store_true", help="write the result file")


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
    from fastvoc import __version__, _library

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "isa": _library.cpu_isa(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rivals": {name: _installed(name) for name in ("onnxruntime", "openvino")},
        "fastvoc": __version__,
        "revision": _revision(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
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
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write(name: str, device: str, rows: list[dict[str, Any]]) -> Path:
    """Writes the rows with the machine's description: into $OUT if set, else benchmarks/results/<device>/."""
    facts = machine(device)
    slug = "-".join("".join(c if c.isalnum() else " " for c in facts["device"].lower()).split())
    folder = Path(os.environ.get("OUT") or RESULTS / f"{slug}-{facts['cores']}core")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    partial.replace(path)
    return path
