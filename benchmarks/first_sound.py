"""From a torch that is there to the first sound: python benchmarks/first_sound.py dist/fastvoc-*+cpu-*.whl [--write].

Two ways, each in a virtual environment of its own in which torch was installed before: the wheel installed by pip and
one `fastvoc vocode`, and `make demo` in a copy of the working tree where no compiler is found. Counted are seconds on
the clock and CPU seconds of all processes; what pip fetches should be in its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from builds import NOW, ROOT, copy, cpu_seconds

TORCH = "torch==2.13.0"


def environment(folder: Path) -> Path:
    """A virtual environment with torch; its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/pip"), "install", "-q", TORCH], check=True)
    return folder / "bin"


def timed(what: str, *commands: list[str], **where: Any) -> dict[str, Any]:
    began, before = time.monotonic(), cpu_seconds()
    for command in commands:
        subprocess.run(command, check=True, **where)
    seconds, used = time.monotonic() - began, cpu_seconds() - before
    row = {"what": what, "seconds": round(seconds, 1), "cpu_seconds": round(used, 1)}
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measures, prints, and writes with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the results under benchmarks/results")
    options = parser.parse_args()
    rows = []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = environment(folder / "wheel")
        install = [str(programs / "pip"), "install", "-q", str(options.wheel.resolve())]
        sound = ["vocode", str(ROOT / "fastvoc/assets/demo.flac"), "out.wav"]
        rows.append(timed("wheel", install, [str(programs / "fastvoc"), *sound], cwd=folder, env=clean))
        environment(folder / "demo")
        (folder / "tree").mkdir()
        copy(NOW, folder / "tree")
        make = ["make", "demo", f"VENV={folder / 'demo'}"]
        rows.append(timed("make demo", make, cwd=folder / "tree", env={**clean, "CXX": "absent-compiler"}))
    if options.write:
        harness.write("first_sound", "cpu", rows)


if __name__ == "__main__":
    main()
