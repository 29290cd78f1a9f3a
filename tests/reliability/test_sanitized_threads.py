"""The CPU kernels under ThreadSanitizer: calls of every op, recorded here, run again by a program of its own.

It shares work out among threads of C++'s own, which the sanitizer knows, where torch's OpenMP would be reported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import native_calls as calls
import pytest
import torch
from kept import kept

from helpers import ROOT, compiler

sys.path.append(str(ROOT / "tests" / "arm"))
import test_arm as recorded

CPU, ARM = ROOT / "csrc" / "cpu", ROOT / "tests" / "arm"
FLAGS = ("-fsanitize=thread", "-O1", "-g1", "-std=c++20", "-ffp-contract=fast", "-DFASTVOC_BEST_ISA=0")


def program() -> Path:
    glue = [source for source in sorted(CPU.glob("*.cpp")) if not source.stem.startswith("isa_")]
    units = [[*glue, ARM / "run_calls.cpp"], *([path] for path in sorted(CPU.glob("isa_portable*.cpp")))]
    includes = [f"-I{path}" for path in (ARM / "include", ROOT / "csrc")]

    def build(target: Path) -> None:
        def compiled(unit: list[Path]) -> Path:
            made = target.with_name(f"{unit[-1].stem}.o")
            first = [word for path in unit[:-1] for word in ("-include", str(path))]
            recorded.run(compiler(), *FLAGS, *includes, *first, "-c", unit[-1], "-o", made)
            return made

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, units))
        recorded.run(compiler(), "-fsanitize=thread", *objects, "-o", target)
        for made in objects:
            made.unlink()

    return kept("run_calls_tsan", [*FLAGS, ARM / "run_calls.cpp", ARM / "include", CPU, ROOT / "csrc/common"], build)


@pytest.mark.slow
@pytest.mark.native
def test_no_race(tmp_path: Path) -> None:
    with torch.inference_mode(), calls.Recorder() as recorder:
        recorded.convolutions()
        recorded.vocoders()
        recorded.codecs()
        recorded.rates()
    assert {call.name for call in recorder.calls} == recorded.native_ops()
    given = tmp_path / "given"
    calls.write(recorder.calls, given)
    options = {**os.environ, "TSAN_OPTIONS": "halt_on_error=0 exitcode=66"}
    done = subprocess.run([program(), given, os.devnull], env=options, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
