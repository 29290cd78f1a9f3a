"""What a build costs, from nothing: python benchmarks/builds.py [REVISION ...] [--jobs N] [--write].

Each revision of this repository (`now` is the working tree) is copied to a folder of its own and its CPU libraries are
compiled there by this Python, without ccache. Counted: seconds on the clock, CPU seconds of all processes, the most
memory that they had at once, the sizes of the libraries. The machine should do nothing else; CPU seconds bear more of
that than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import harness

ROOT = Path(__file__).resolve().parents[1]
NOW = "now"
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Cost:
    """Of one build. `units`: seconds on the clock by source, where the build tells them; sizes are in MB."""

    revision: str
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    size_mb: dict[str, float]
    units: dict[str, float]


def copy(revision: str, folder: Path) -> str:
    """Writes the files of a revision into a folder; its full name."""
    tree = revision
    if revision == NOW:  # what is in the working tree, as an object that no branch names
        made = subprocess.run(["git", "stash", "create"], cwd=ROOT, capture_output=True, text=True, check=True)
        tree = made.stdout.strip() or "HEAD"
    archive = subprocess.run(["git", "archive", tree], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    named = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return named.stdout.strip() if revision == NOW else revision


class Memory(threading.Thread):
    """Watches what a process and those that it started have in memory together, twice a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.peak = max(self.peak, sum(map(resident_mb, family(self.pid))))


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):  # it ended meanwhile
            threads = list(Path(f"/proc/{parent}/task").iterdir())
            found += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return found


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB
    except OSError:  # it ended meanwhile
        return 0.0


def cpu_seconds() -> float:
    """Of the processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(revision: str, jobs: int) -> Cost:
    """Builds the libraries of a revision."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full = copy(revision, folder)
        environment = {**os.environ, "FASTVOC_BUILD": "cpu", "CCACHE_DISABLE": "1", "MAX_JOBS": str(jobs)}
        command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build", "--build-lib", "built"]
        began, before = time.monotonic(), cpu_seconds()
        build = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        memory = Memory(build.pid)
        memory.start()
        said, _ = build.communicate()
        seconds, used = time.monotonic() - began, cpu_seconds() - before
        memory.ended.set()
        memory.join()
        if build.returncode:
            raise SystemExit(f"{revision}: the build failed:\n{said}")
        libraries = sorted((folder / "built/fastvoc").glob("_C_*.so"))
        sizes = {library.name.partition(".")[0]: round(library.stat().st_size / 2**20, 2) for library in libraries}
    units = {unit: float(took) for unit, took in re.findall(r"^fastvoc: (\S+): ([\d.]+) s$", said, re.MULTILINE)}
    return Cost(full, round(seconds, 1), round(used, 1), round(memory.peak), sizes, units)


def main() -> None:
    """Measures, prints, and writes with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", default=[NOW], help="such as 6526543, or `now`")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="keep the results under benchmarks/results")
    options = parser.parse_args()
    costs = {}
    for revision in options.revisions:
        costs[revision] = measure(revision, options.jobs)
        print(json.dumps({revision: asdict(costs[revision])}, indent=1), flush=True)
    if options.write:
        rows = [{"build": name, "jobs": options.jobs, **asdict(cost)} for name, cost in costs.items()]
        harness.write("builds", "cpu", rows)


if __name__ == "__main__":
    main()
