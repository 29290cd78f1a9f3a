"""How often Triton would compile in the calls of a model: a new length or batch must not stop a call for seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastvoc.ops._triton import triton_problem
from helpers import ROOT, need

SHAPES = [[1, 1], [1, 10], [32, 10]]  # items x seconds, each by a call and from a graph
OTHERS = [[1, 0.93], [3, 0.5], [16, 0.7], [17, 0.2]]


def run(program: str, *arguments: str, **variables: str) -> str:
    """What a program prints that reads on import whether Triton interprets."""
    need("triton", triton_problem())
    path = filter(None, [str(ROOT / "tests"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
    command = [sys.executable, str(ROOT / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def said_by(program: str, *arguments: str) -> Any:
    return json.loads(run(f"tests/{program}", *arguments))


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, Any]]:
    wanted = {
        "v1": ("v1", "*=triton", SHAPES),
        "v3": ("v3", "*=triton", SHAPES),
        "v3-more": ("v3", "*=triton", [*SHAPES[:2], *OTHERS]),
        "cosyvoice2": ("cosyvoice2", "*=triton", [[1, 1], [3, 0.77], [16, 0.5]]),
    }
    return dict(zip(wanted, said_by("triton_keys.py", json.dumps([*wanted.values()])), strict=True))


def test_a_search_compiles_its_candidates_side_by_side_before_the_first_trial() -> None:
    found = said_by("search_keys.py")
    assert found["tried"] >= 10, found
    assert found["before"] == found["after"] >= 10, found
    assert found["threads"] >= 2, found


@pytest.mark.parametrize(("model", "most"), [("v1", 30), ("v3", 16)])
def test_few_kernels_serve_all_shapes_by_calls_and_graphs(counted: dict[str, Any], model: str, most: int) -> None:
    found = counted[model]
    assert found["launches"] >= 6 * 10, "nothing was launched"
    assert 0 < found["keys"] <= most, found


@pytest.mark.parametrize("model", ["v1", "v3", "v3-more"])
def test_a_graph_needs_no_kernel_that_calls_do_not(counted: dict[str, Any], model: str) -> None:
    assert counted[model]["keys"] == counted[model]["calls"]


@pytest.mark.parametrize("model", ["v1", "v3", "v3-more", "cosyvoice2"])
def test_a_graph_runs_the_machine_code_of_a_call(counted: dict[str, Any], model: str) -> None:
    """The same sums in the same order, and so the same bits."""
    assert counted[model]["alike"]


def test_a_length_or_batch_that_is_new_needs_no_new_kernel(counted: dict[str, Any]) -> None:
    assert counted["v3-more"]["keys"] == counted["v3"]["keys"]


@pytest.mark.parametrize("model", ["v1", "v3", "v3-more", "cosyvoice2"])
def test_compiling_ahead_tells_apart_what_triton_does(counted: dict[str, Any], model: str) -> None:
    assert counted[model]["specialized"] == counted[model]["keys"]


MOST = {"v1": 45, "cosyvoice2": 90, "vocos": 40}  # nodes of a chunk of 25 frames


@pytest.fixture(scope="module")
def chunks() -> dict[str, dict[str, Any]]:
    wanted = [(model, "*=triton", 25) for model in MOST]
    return dict(zip(MOST, said_by("stream_nodes.py", json.dumps(wanted)), strict=True))


@pytest.mark.parametrize(("model", "most"), MOST.items())
def test_a_chunk_of_a_stream_has_few_nodes_most_of_them_ours(chunks: dict[str, Any], model: str, most: int) -> None:
    found = chunks[model]
    own, torchs = sum(found["own"].values()), sum(found["torch"].values())
    assert found["captures"] == 1, found
    assert found["replays"] > 1, found
    assert own > 0, found
    assert torchs < own, found
    assert own + torchs <= most, found


def test_kernels_compiled_ahead_are_found_by_the_next_process(tmp_path: Path) -> None:
    """As a machine with a GPU would find what `make gpu-kit` left: nothing is compiled again."""

    def left() -> dict[str, int]:
        return {str(path.relative_to(tmp_path)): path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")}

    arguments = "--models", "vocos", "--shapes", "1x0.1"
    said = run("benchmarks/warm.py", *arguments, TRITON_CACHE_DIR=str(tmp_path))
    first, count = left(), int(said.split()[0])
    assert len(first) == count >= 10, said
    assert any("stream_rows_kernel" in name for name in first), "a stream's kernels are among them"
    assert run("benchmarks/warm.py", *arguments, TRITON_CACHE_DIR=str(tmp_path)).startswith(
        f"{count} kernels for sm_90"
    )
    assert left() == first
