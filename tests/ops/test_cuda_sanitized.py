"""The emulated CUDA kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cuda_emulation import SANITIZERS

from helpers import ROOT, compiler

FILES = {
    "blocks": ["tests/ops/test_cuda_blocks.py", "-k", "ragged or short or large_means"],
    "convolutions": ["tests/ops/test_cuda_emulated.py", "-k", "ragged or one_step or tiles_for or smaller"],
    "filters": ["tests/ops/test_cuda_filters.py", "-k", "float32 or reaches or number"],
    "stages": ["tests/ops/test_cuda_stage.py", "-k", "device and (32-odd or 64-snake or 128-causal or 256)"],
    "sources": ["tests/ops/test_cuda_sources.py", "-k", "ragged or rvq or narrow or pieces"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_report(name: str) -> None:
    found = [compiler(), "-print-file-name=libasan.so"]
    runtime = subprocess.run(found, capture_output=True, text=True, check=True).stdout.strip()
    env = {**os.environ, SANITIZERS: "address,undefined", "LD_PRELOAD": runtime, "PYTHONPATH": str(ROOT)}
    env |= {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES[name]]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
