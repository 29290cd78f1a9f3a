"""Triton kernels compiled ahead of time: they fit every target's shared memory and spill nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fastvoc.ops._triton import triton_problem
from helpers import ROOT, need

LIMITS = {"80": 163 * 1024, "90": 227 * 1024, "100": 227 * 1024, "120": 99 * 1024}


@pytest.mark.parametrize(
    ("target", "models"),
    [
        pytest.param("90", "sample", id="sm_90"),
        pytest.param("120", "sample", id="sm_120"),
        *(pytest.param(target, "all", id=f"sm_{target}-all", marks=pytest.mark.slow) for target in LIMITS),
    ],
)
def test_kernels_fit(target: str, models: str) -> None:
    need("triton", triton_problem())
    script = [sys.executable, str(ROOT / "benchmarks" / "kernels.py"), "--target", target, "--models", models]
    path = filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([*script, "--json"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads(done.stdout)["kernels"]
    assert rows
    for row in rows:
        assert row["shared"] <= LIMITS[target], row
        assert row["spills"] == 0, row
        assert row["stack"] == 0, row
    assert any(row["matrix_share"] > 0 for row in rows)
