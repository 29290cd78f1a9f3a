"""How the C++ engine shares out the multiply-adds of a call among threads, counted: no clock is asked.

The glue of convolutions, upsampling and residual stages is built with threads that take their parts one after the other
and with kernels that only count what their ranges ask for.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import native_calls as calls
import pytest
import torch
from kept import kept

from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan
from helpers import ROOT, compiled

HERE, ARM, CPU = ROOT / "tests" / "ops" / "splits", ROOT / "tests" / "arm", ROOT / "csrc" / "cpu"
MODELS = {"V1": HIFIGAN_V1, "V2": HIFIGAN_V2, "V3": HIFIGAN_V3}
FRAMES = 86  # a second
FEW = 9  # a tenth of it
MOST_IDLE = 0.1
FLAGS = ("-O1", "-std=c++20")

pytestmark = pytest.mark.native


@cache
def program() -> Path:
    sources = [CPU / f"{op}.cpp" for op in ("conv1d", "upsample", "mrf")]
    sources += [HERE / "engine.cpp", ARM / "run_calls.cpp"]
    includes = [f"-I{path}" for path in (HERE, ARM / "include", ROOT / "csrc")]

    made_of = [*FLAGS, *sources, HERE, ARM / "include", CPU, ROOT / "csrc/common"]
    return kept("splits", made_of, lambda path: compiled(path, *FLAGS, *includes, *sources))


@cache
def recorded(name: str, frames: int, folder: Path) -> tuple[list[str], Path]:
    """The layers of a model and the file of their calls."""
    model = HifiGan(MODELS[name]).requires_grad_(False).eval()
    model.prepare("cpp")
    with torch.inference_mode(), calls.Recorder() as recorder:
        model(torch.zeros(1, 80, frames), backend="cpp")
    path = folder / f"{name}-{frames}"
    calls.write(recorder.calls, path)
    return list(model.layers()), path


def counted(path: Path, threads: int) -> list[tuple[float, float]]:
    """Of every call: the multiply-adds of all threads, and of those that the others wait for."""
    command = [program(), path, os.devnull]
    done = subprocess.run(command, env={**os.environ, "SPLIT_THREADS": str(threads)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(float(busy), float(wall)) for busy, wall in (line.split() for line in done.stdout.splitlines())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splits")


@pytest.mark.parametrize(("frames", "threads"), [(FRAMES, 2), (FRAMES, 4), (FRAMES, 8), (FEW, 2)])
@pytest.mark.parametrize("name", MODELS)
def test_no_thread_waits_long(name: str, frames: int, threads: int, folder: Path) -> None:
    layers, path = recorded(name, frames, folder)
    alone, shared = counted(path, 1), counted(path, threads)
    assert len(alone) == len(shared) == len(layers)
    assert all(busy == wall for busy, wall in alone)
    busy, wall = (sum(column) for column in zip(*shared, strict=True))
    idle, speedup = 1 - busy / (threads * wall), sum(w for _, w in alone) / wall
    print(f"\n{name}, {frames} frames, {threads} threads: {100 * idle:.1f} % idle, {speedup:.2f} times one thread")
    for layer, (one, _), (all_of_it, longest) in zip(layers, alone, shared, strict=True):
        waiting = 1 - all_of_it / (threads * longest)
        print(f"  {layer:9} {one / 1e6:8.1f}M, {100 * waiting:4.1f} % idle, {100 * (all_of_it / one - 1):4.1f} % twice")
    assert idle <= MOST_IDLE
    assert speedup >= 0.8 * threads  # what ranges compute twice counts as work
