"""Triton kernels compiled ahead of time: they fit every target's shared memory and spill nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from kept import kept

from fastvoc.ops._triton import triton_problem
from helpers import ROOT, need

LIMITS = {"80": 163 * 1024, "90": 227 * 1024, "100": 227 * 1024, "120": 99 * 1024}


def _rows(target: str, models: str, *options: str) -> list[dict[str, Any]]:
    need("triton", triton_problem())
    import triton

    code = [path for folder in ("fastvoc", "kernels", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    made_of = [sys.version, torch.__version__, triton.__version__, target, models, *options, *code]
    made_of += sorted((ROOT / "kernels").rglob("*.json"))
    found = kept("ahead.json", made_of, lambda path: path.write_text(_compiled(target, models, *options)))
    rows: list[dict[str, Any]] = json.loads(found.read_text())["kernels"]
    return rows


def _compiled(target: str, models: str, *options: str) -> str:
    script = [sys.executable, str(ROOT / "benchmarks" / "kernels.py"), "--target", target, "--models", models]
    path = filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([*script, "--json", *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize(
    ("target", "models", "options"),
    [
        pytest.param("90", "sample", ("--each", "2"), id="sm_90"),
        pytest.param("120", "sample", ("--each", "1"), id="sm_120"),
        *(pytest.param(target, "all", (), id=f"sm_{target}-all", marks=pytest.mark.slow) for target in LIMITS),
    ],
)
def test_kernels_fit(target: str, models: str, options: tuple[str, ...]) -> None:
    rows = _rows(target, models, *options)
    assert rows
    for row in rows:
        assert row["shared"] <= LIMITS[target], row
        assert row["spills"] == 0, row
        assert row["stack"] == 0, row
    assert any(row["matrix_share"] > 0 for row in rows)


@pytest.mark.parametrize("target", ["90", *(pytest.param(t, marks=pytest.mark.slow) for t in LIMITS if t != "90")])
def test_kernels_between_the_layers_of_a_stream_fit(target: str) -> None:
    need("triton", triton_problem())
    path = filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    script = [sys.executable, str(ROOT / "tests" / "stream_kernels.py"), target]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads(done.stdout)
    assert len(rows) == 4
    for row in rows:
        assert row["shared"] <= LIMITS[target], row
        assert (row["spills"], row["stack"]) == (0, 0), row


@pytest.mark.slow
@pytest.mark.parametrize("target", ["80", "90"])
def test_float32_fits_on_tensor_cores_too(target: str) -> None:
    """In three products of TF32, which tuned values may ask for."""
    values = {name: {"PRECISION": "tf32x3"} for name in ("conv1d", "mrf", "lvc")}
    rows = _rows(target, "v2,univnet", "--dtype", "float32", "--values", json.dumps(values))
    products = [row for row in rows if row["kernel"] in ("conv1d_kernel", "mrf_pair_kernel", "lvc_kernel")]
    assert products
    for row in products:
        assert row["matrix_share"] > 0, row
        assert row["shared"] <= LIMITS[target], row
        assert row["spills"] <= 8, row  # the tiles were chosen for IEEE
