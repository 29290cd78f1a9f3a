"""How often Triton would compile in the calls of a model: a new length or batch must not stop a call for seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from fastvoc.ops._triton import triton_problem
from helpers import ROOT, need

SHAPES = [[1, 1], [1, 10], [32, 10]]  # items x seconds, each by a call and from a graph
OTHERS = [[1, 0.93], [3, 0.5], [16, 0.7], [17, 0.2]]


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, Any]]:
    need("triton", triton_problem())
    path = filter(None, [str(ROOT / "tests"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    wanted = {
        "v1": ("v1", "*=triton", SHAPES),
        "v3": ("v3", "*=triton", SHAPES),
        "v3-more": ("v3", "*=triton", [*SHAPES[:2], *OTHERS]),
        "cosyvoice2": ("cosyvoice2", "*=triton", [[1, 1], [3, 0.77], [16, 0.5]]),
    }
    command = [sys.executable, str(ROOT / "tests" / "triton_keys.py"), json.dumps([*wanted.values()])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(wanted, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("model", "most"), [("v1", 30), ("v3", 16)])
def test_few_kernels_serve_all_shapes_by_calls_and_graphs(counted: dict[str, Any], model: str, most: int) -> None:
    found = counted[model]
    assert found["launches"] >= 6 * 10, "nothing was launched"
    assert 0 < found["keys"] <= most, found


@pytest.mark.parametrize("model", ["v1", "v3", "v3-more"])
def test_a_graph_needs_no_kernel_that_calls_do_not(counted: dict[str, Any], model: str) -> None:
    assert counted[model]["keys"] == counted[model]["calls"]


def test_a_length_or_batch_that_is_new_needs_no_new_kernel(counted: dict[str, Any]) -> None:
    assert counted["v3-more"]["keys"] == counted["v3"]["keys"]


@pytest.mark.parametrize("model", ["v1", "v3", "v3-more", "cosyvoice2"])
def test_compiling_ahead_tells_apart_what_triton_does(counted: dict[str, Any], model: str) -> None:
    assert counted[model]["specialized"] == counted[model]["keys"]
