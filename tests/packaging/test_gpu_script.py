"""benchmarks/gpu.sh without a GPU: what it says, which commands it runs, and that it goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT, need_native

# Answers for python3: the capability of a device that is not there, and a result file for every driver.
STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
  "-") cat > /dev/null; echo 9.0 ;;
  "- "*) cat > /dev/null ;;
  "-c import torch"*) echo nvidia-h200 ;;
  "-c import xdist") exit "${NO_XDIST:-0}" ;;
  *models-v3*) exit 1 ;;
  *report.py*) exec "$REAL" "$@" ;;
  *--write*) for last; do :; done; cp "$RESULT" "$OUT/$last.json" ;;
esac
"""
NO_DEVICE = """
from types import SimpleNamespace
__version__, version, cuda = "2.11", SimpleNamespace(cuda="13.0"), SimpleNamespace(is_available=lambda: False)
"""
PATHS = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT), *filter(None, sys.path)])
RESULT: dict[str, Any] = {
    "machine": {"device": "NVIDIA H200"},
    "rows": [
        {
            "model": "v1",
            "seconds": 1.0,
            "batch": 1,
            "best": "graph",
            "over_best": 2.5,
            "layer": "v1.conv_pre",
            "op": "conv1d",
            "impls": {"graph": {"median_s": 3e-4, "real_time": 3333.0, "speedup": 2.5, "ceiling": 0.5}},
        }
    ],
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    copy = tmp_path / "tree"
    shutil.copytree(ROOT / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("results", "__pycache__"))
    for name in ("csrc", "fastvoc", "kernels", "tests/gpu"):
        (copy / name).mkdir(parents=True)
    (copy / "setup.py").write_text("")
    (copy / "tests/gpu/test_one.py").write_text("@pytest.mark.gpu\n")
    library = copy / "build/gpu/lib/fastvoc/_C_cuda.so"
    library.parent.mkdir(parents=True)
    library.write_text("")
    return copy


def run(tree: Path, *part: str, **variables: str) -> tuple[int, str, list[str]]:
    """Exit status, output, and the commands given to Python."""
    stub, calls, result = tree / "stub", tree / "calls", tree / "result"
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls.write_text("")
    result.write_text(json.dumps(RESULT))
    env = {**os.environ, "PYTHON": str(stub), "CALLS": str(calls), "RESULT": str(result), "REAL": sys.executable}
    env.pop("PYTHONPATH", None)
    env |= {"OUT": str(tree / "out"), **variables}
    done = subprocess.run(
        [str(tree / "benchmarks/gpu.sh"), *part], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout, [line for line in calls.read_text().splitlines() if line]


@pytest.mark.parametrize("part", ["first", "build", "test", "ops", "models", "rivals", "sanitize", "all"])
def test_without_a_device_every_part_says_so(part: str, tmp_path: Path) -> None:
    """The first one as the torch that is installed finds none, the others by its answers alone."""
    env = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    if part != "first":
        (tmp_path / "torch.py").write_text(NO_DEVICE)
        env["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run([str(ROOT / "benchmarks/gpu.sh"), part], env=env, capture_output=True, text=True)
    assert done.returncode == 3
    assert "no GPU is visible: torch" in done.stderr


@pytest.mark.parametrize("driver", ["ops.py", "models.py"])
def test_without_a_device_the_drivers_say_so(driver: str) -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": PATHS}
    command = [sys.executable, str(ROOT / "benchmarks" / driver), "--device", "cuda"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("no GPU is visible: torch")


def test_a_part_writes_its_results_and_ends_with_a_table(tree: Path) -> None:
    status, said, calls = run(tree, "rivals", "v1")
    assert status == 0, said
    assert any("models.py --device cuda --models v1 --dtype bf16 --rivals" in call for call in calls)
    assert "0.300" in said.splitlines()[-1]
    assert "2.50" in said.splitlines()[-1]
    assert json.loads((tree / "out/rivals.json").read_text())["machine"]["device"] == "NVIDIA H200"
    assert run(tree, "ops")[0] == 0
    assert (tree / "out/ops.json").exists()


def test_what_is_done_is_not_done_again_until_the_sources_change(tree: Path) -> None:
    run(tree, "models", "v1")
    status, said, calls = run(tree, "models", "v1", "v2")
    assert status == 0
    assert "models-v1-1-torch: done before" in said
    assert [call.partition("--models ")[2].split()[0] for call in calls if "--models" in call] == ["v2"] * 6
    assert sum("models.py" in call for call in run(tree, "models", "v1", AGAIN="1")[2]) == 6
    (tree / "fastvoc/new.py").write_text("1\n")
    assert sum("models.py" in call for call in run(tree, "models", "v1")[2]) == 6


def test_every_implementation_has_a_process_of_its_own(tree: Path) -> None:
    calls = [call for call in run(tree, "models", "v1")[2] if "models.py" in call]
    assert [call.partition("--impl ")[2].split(" --")[0] for call in calls] == [
        "torch",
        "triton",
        "cuda",
        "graph",
        "triton+graph",
        "cuda+graph",
    ]


def test_tests_run_side_by_side_where_they_can_and_only_those_that_there_are(tree: Path) -> None:
    (tree / "tests/packaging").mkdir()
    (tree / "tests/packaging/test_script.py").write_text('TEXT = "pytest.mark.gpu"\n')
    calls = [call for call in run(tree, "test")[2] if "-m pytest" in call]
    assert [call.split()[-1] for call in calls] == ["tests/gpu/test_one.py"]
    assert " -n 8 --dist load " in calls[0]
    (alone,) = [call for call in run(tree, "test", AGAIN="1", NO_XDIST="1")[2] if "-m pytest" in call]
    assert " -n " not in alone


def test_sanitizers_see_our_cuda_kernels_alone(tree: Path) -> None:
    tool = tree / "bin/compute-sanitizer"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\n')
    tool.chmod(0o755)
    calls = run(tree, "sanitize", PATH=f"{tool.parent}{os.pathsep}{os.environ['PATH']}")[2]
    runs = [call for call in calls if "-m pytest" in call]
    assert [call.split()[1] for call in runs] == ["memcheck", "racecheck"]
    assert all("-k cuda and not triton" in call for call in runs)


def test_logs_and_results_come_back_with_the_table(tree: Path) -> None:
    run(tree, "models", "v3", "v1")
    with tarfile.open(tree / "out/logs.tar.gz") as file:
        names = file.getnames()
    assert "logs/models-v3-1-torch.log" in names
    assert "results/models-v1-1-torch.json" in names


def test_the_table_says_why_rows_are_missing_and_reads_what_did_not_end(tree: Path) -> None:
    results = tree / "build/gpu/results"
    results.mkdir(parents=True)
    whole = {name: value for name, value in RESULT["rows"][0].items() if name not in ("layer", "op")}
    row: dict[str, Any] = {**whole, "failed": {"cuda": "AcceleratorError: an illegal memory access"}}
    later = {**row, "impls": {"triton": {**row["impls"]["graph"], "median_s": 6e-4}}, "failed": {}}
    stopped = "\n".join([json.dumps({"machine": RESULT["machine"]}), json.dumps(later), '{"model": "v'])
    (results / "models-v1-1-graph.json").write_text(json.dumps({**RESULT, "rows": [row]}))
    (results / "models-v1-2-triton.jsonl").write_text(stopped)
    script = [sys.executable, str(ROOT / "benchmarks/report.py"), str(results), "models", str(tree / "out")]
    env = {**os.environ, "PYTHONPATH": PATHS}
    said = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout
    assert "failed: v1 1 x 1 s cuda: AcceleratorError: an illegal memory access" in said
    (joined,) = json.loads((tree / "out/models.json").read_text())["rows"]
    assert list(joined["impls"]) == ["graph", "triton"]
    assert joined["impls"]["triton"]["speedup"] == 0.5


def test_results_are_written_without_git_and_rows_before_the_end(tmp_path: Path) -> None:
    script = (
        "import harness\n"
        "lines = harness.Lines('ops', 'cpu')\n"
        "lines.add({'row': 1})\n"
        "assert lines._path.suffix == '.jsonl' and lines._path.read_text().count('\\n') == 2\n"
        "print(harness.write('ops', 'cpu', [{'row': 1}]))\n"
    )
    env = {**os.environ, "OUT": str(tmp_path), "PATH": str(tmp_path), "PYTHONPATH": PATHS}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "ops.json").read_text())["machine"]["revision"] == "unknown"
    assert not (tmp_path / "ops.jsonl").exists()


def test_what_has_no_time_left_is_named(tree: Path) -> None:
    status, said, calls = run(tree, "models", LIMIT="20")
    assert status == 0
    assert not any("--models" in call for call in calls)
    assert "left for the next run: models-v1-1-torch models-v1-2-triton" in said


def test_a_piece_that_fails_fails_the_part_after_the_others(tree: Path) -> None:
    status, said, calls = run(tree, "models", "v3", "v1")
    assert status == 1
    assert said.splitlines()[-1].startswith("failed: models-v3-1-torch models-v3-2-triton")
    assert sum("--models" in call for call in calls) == 12


def test_results_lie_with_the_device_where_no_place_is_named(tree: Path) -> None:
    assert run(tree, "models", "v1", OUT="")[0] == 0
    assert (tree / "benchmarks/results/nvidia-h200/models.json").exists()


# What a device would be asked for, by the drivers themselves on the CPU: C++ in the place of a GPU's kernels, a small
# model; one implementation is wrong and another's device is lost. Models and tests answer as above.
REHEARSAL = r"""#!/bin/sh
echo "$@" >> "$CALLS"
export PYTHONPATH="$PATHS"
case "$*" in
  "-") cat > /dev/null; echo 9.0 ;;
  "-c import torch"*) echo nvidia-h200 ;;
  *contact.py*--impl\ cuda*fp32*) echo "CUDA error: an illegal memory access"; exit 3 ;;
  *contact.py*first-layers-fp32*|*contact.py*first-times-32*|*contact.py*first-t*-torch*|*contact.py*-cuda*) ;;
  *contact.py*--impl\ torch*) exec "$REAL" "$@" --device cpu --models v3 --shape 1x0.02 --dtype fp32 ;;
  *contact.py*) exec "$REAL" "$@" --device cpu --models v3 --shape 1x0.02 --dtype fp32 --impl cpp ;;
  *report.py*) exec "$REAL" "$@" ;;
  *--write*) for last; do :; done; cp "$RESULT" "$OUT/$last.json" ;;
esac
"""


@pytest.mark.native
def test_a_first_visit_rehearsed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_native()
    monkeypatch.setattr(sys.modules[__name__], "STUB", REHEARSAL)
    compiled = tree / "build/gpu/triton"
    compiled.mkdir()
    slowly = {"PATHS": PATHS, "REAL": sys.executable, "PATIENCE": "60", "LIMIT": "7200"}
    status, said, calls = run(tree, "first", **slowly)
    assert status == 1
    assert said.splitlines()[-1] == "failed: first-layers-fp32", said
    assert not any("setup.py" in call for call in calls), "a first visit builds nothing"
    asked = [call for call in calls if "contact.py" in call]
    assert {call.split("--impl ")[1].split()[0] for call in asked} == {"torch", "triton", "cuda"}
    assert any("--timed" in call and "--shape 32x10" in call for call in asked)
    order = [next((word for word in ("-m pytest", "contact", "models.py") if word in call), "") for call in calls]
    assert order.index("contact") < order.index("models.py") < order.index("-m pytest")
    assert any("--rivals --only eager+graph" in call for call in calls)
    assert "cpp: 8 layers as near to float64 as torch's" in said
    result = json.loads((tree / "out/first.json").read_text())
    layers = result["results"]["first-layers-bf16-triton"]["rows"]
    assert len(layers) == 8
    assert all(row["error"] < 1e-5 for row in layers)
    assert all(row["seconds"] > 0 for row in result["results"]["first-times-1x1-triton"]["rows"])
    assert result["results"]["first-models-v1-graph"]["rows"][0]["impls"]["graph"]["median_s"] == 3e-4
    with tarfile.open(tree / "out/logs.tar.gz") as file:
        assert "logs/first-layers-fp32.log" in file.getnames()
    again = run(tree, "first", **slowly)[2]
    assert {call.split("--name ")[1].split("-")[2] for call in again if "contact.py" in call} == {"fp32"}


def test_what_is_wrong_is_told_by_layer(tree: Path) -> None:
    results = tree / "build/gpu/results"
    results.mkdir(parents=True)
    row = {"model": "v1", "layer": "v1.mrf.0", "op": "mrf", "dtype": "bf16", "shape": "1x0.2", "x": [1, 2, 3]}
    for impl, found in {"torch": {"error": 1e-3}, "triton": {"error": 1e-2}, "cuda": {"failed": "lost"}}.items():
        lines = [{"machine": RESULT["machine"]}, {**row, "impl": impl, **found}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (results / f"first-layers-bf16-{impl}.jsonl").write_text(text)
    script = [sys.executable, str(ROOT / "benchmarks/report.py"), str(results), "first", str(tree / "out")]
    env = {**os.environ, "PYTHONPATH": PATHS}
    said = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout
    assert "WRONG: v1.mrf.0 bf16 1x0.2 triton: 1.00e-02 from float64, torch 1.00e-03" in said
    assert "failed: v1.mrf.0 bf16 1x0.2 cuda: lost" in said
    assert "torch: 1 layers as near" in said


def test_an_unknown_part_shows_the_usage(tree: Path) -> None:
    status, said, _ = run(tree, "everything")
    assert status == 2
    assert "benchmarks/gpu.sh first|build|test|ops|models" in said
