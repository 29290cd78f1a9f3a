"""Threads that share out pieces of work: each once, whoever holds them up, and never waiting awake for long."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from kept import kept

from helpers import ROOT, compiled, compiler, need_native

SOURCES = [ROOT / "tests" / "reliability" / "fork_join.cpp", ROOT / "csrc" / "cpu" / "fork_join.cpp"]
INCLUDES = [ROOT / "tests" / "arm" / "include", ROOT / "csrc"]
FLAGS = ["-O1", "-g", "-std=c++20", "-pthread", "-Wall", "-Wextra", "-Werror"]


# A child of a fork is beyond the thread sanitizer.
@pytest.mark.parametrize(
    ("sanitizer", "arguments"), [("address,undefined", ["forks"]), ("thread", [])], ids=["address", "thread"]
)
def test_under_a_sanitizer(sanitizer: str, arguments: list[str]) -> None:
    flags = [*FLAGS, f"-fsanitize={sanitizer}"]
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    made_of = [version, *flags, *SOURCES, ROOT / "csrc" / "cpu" / "fork_join.h", INCLUDES[0]]
    words = [*(f"-I{path}" for path in INCLUDES), *SOURCES]
    program = kept(f"fork_join_{sanitizer[:6]}", made_of, lambda path: compiled(path, *flags, *words))
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr[-3000:]


_ONE_PROCESSOR = """
import os, statistics, time, torch
from fastvoc.models.hifigan import HifiGan, HifiGanConfig

torch.manual_seed(1)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
model = HifiGan(HifiGanConfig(upsample_initial_channel=32)).requires_grad_(False)
mel = torch.randn(1, 80, 100)
medians, sounds = [], []
for threads in (1, 2):
    torch.set_num_threads(threads)
    model(mel, backend="cpp")
    times = []
    for _ in range(30):
        start = time.perf_counter()
        sounds.append(model(mel, backend="cpp"))
        times.append(time.perf_counter() - start)
    medians.append(statistics.median(times))
assert all(torch.equal(sound, sounds[0]) for sound in sounds)
print(medians[1] / medians[0])
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors are not assigned here")
def test_two_threads_on_one_processor_do_not_wait_awake() -> None:
    """They take little longer than one; waiting for each other at every fork they took six times as long."""
    need_native()
    done = subprocess.run([sys.executable, "-P", "-c", _ONE_PROCESSOR], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.5
