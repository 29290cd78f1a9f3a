"""Estimated times of models on a GPU: of recorded launches, as tables' rows, corrected by measured ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastvoc.ops._triton import triton_problem
from fastvoc.runtime import choice
from helpers import ROOT, need


def run(*arguments: str) -> str:
    """What the program prints, which reads on import whether Triton interprets."""
    need("triton", triton_problem())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, str(ROOT / "benchmarks/estimate.py"), "--shapes", "1x0.2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def rows(folder: Path) -> dict[tuple[str, tuple[int, ...]], choice.Row]:
    return {(row.layer.op, row.layer.weight): row for row in choice.read(folder / "sm_90.json")}


def test_estimates_become_rows_and_measurements_correct_them(tmp_path: Path) -> None:
    constants, lines = tmp_path / "devices.json", tmp_path / "lines.jsonl"
    shutil.copy(ROOT / "benchmarks/devices.json", constants)
    written = "--models", "v3", "vocos", "--write", "--into", str(tmp_path), "--constants", str(constants)
    said = run(*written, "--layers").splitlines()
    model = next(line.split() for line in said if line.startswith("vocos") and "1x0.2" in line and len(line) > 30)
    assert all(float(figure) > 0 for figure in model[3:])
    first = rows(tmp_path)
    stage = first["mrf", (128, 128, 3)]
    assert set(stage.times) == {"torch", "triton", "cuda"}
    assert stage.size == choice.Size(1, 0.2)
    assert not stage.measured

    def measured(layer: str, factor: float) -> dict[str, Any]:
        row = {"model": "v3", "layer": f"v3.{layer}", "op": "mrf", "impl": "triton", "dtype": "bf16", "shape": "1x0.2"}
        return row | {"seconds": factor * 1e-6 * stage.times["triton"]}

    lines.write_text("\n".join(map(json.dumps, [{"machine": {}}, measured("mrf.0", 3.0)])))
    run(*written, "--correct", str(lines))
    factors = json.loads(constants.read_text())["sm_90"]["factors"]
    assert list(factors) == ["triton/mrf"]
    assert abs(factors["triton/mrf"] - 3) < 0.1
    again = rows(tmp_path)
    for key, row in first.items():
        for impl, time in row.times.items():
            expected = factors["triton/mrf"] if (key[0], impl) == ("mrf", "triton") else 1.0
            assert abs(again[key].times[impl] / time - expected) < 0.02 * expected
