"""What the tests share: golden data, capabilities, implementations of an op, measured errors."""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_interpreter import quicken
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
CAPABILITIES = ("golden", "native", "cuda", "triton", "arm", "ray")


def required() -> set[str]:
    """The capabilities that FASTVOC_REQUIRE names: a test that lacks one fails instead of being skipped."""
    names = {name for name in os.environ.get("FASTVOC_REQUIRE", "").split(",") if name}
    if unknown := names - set(CAPABILITIES):
        raise pytest.UsageError(f"FASTVOC_REQUIRE: unknown {sorted(unknown)}, expected {CAPABILITIES}")
    return names


def need(capability: str, problem: str | None) -> None:
    """Skips the test for a problem, or fails it when FASTVOC_REQUIRE has the capability; None lets it run."""
    if problem is None:
        return
    if capability in required():
        pytest.fail(f"FASTVOC_REQUIRE names {capability}, but {problem}", pytrace=False)
    pytest.skip(problem)


def need_native() -> None:
    """Wants the C++ CPU library."""
    from fastvoc.runtime import library as _library

    need("native", _library.cpu_problem())


def need_triton() -> None:
    """Wants Triton's interpreter."""
    from fastvoc.ops._triton import triton_problem

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    need("triton", triton_problem() or (None if interpreted else "Triton runs on a GPU, not in its interpreter"))
    if interpreted:
        quicken()


def need_ray() -> None:
    """Wants Ray with its parts for data and serving."""
    there = (
        importlib.util.find_spec("ray") and importlib.util.find_spec("pyarrow") and importlib.util.find_spec("fastapi")
    )
    need("ray", None if there else "ray[data,serve] is not installed")


def need_isa(isa: str) -> None:
    """Wants a machine that has an instruction set."""
    need_native()
    from fastvoc.runtime import library as _library

    best = str(_library.cpu_isa())
    if _library.ISAS.index(isa) > _library.ISAS.index(best):
        pytest.skip(f"kernels for {isa} do not run here: the best is {best}")


def run_under(isa: str, script: str) -> str:
    """What a script prints in a fresh process that has no instruction set above `isa`; it can import tests."""
    need_isa(isa)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        status = _server(isa).ask({"script": script, "out": str(out), "err": str(err)})
        assert status == 0, err.read_text()
        return out.read_text()


# Imports once, then runs every script in a child of its own, seeded alike, which knows nothing of the others.
_SERVER = """
import json, os, sys, traceback
import torch, op_cases
from fastvoc.runtime import library
assert library.cpu_isa() == os.environ["FASTVOC_ISA"], library.cpu_isa()
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(("out", "err"), 1):
            os.dup2(os.open(asked[stream], os.O_CREAT | os.O_WRONLY), number)
        status = 0
        torch.manual_seed(0)
        try:
            exec(compile(asked["script"], "script", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class _Server:
    """A process under an instruction set that runs scripts."""

    def __init__(self, isa: str) -> None:
        paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "ops"), *sys.path])
        environment = {**os.environ, "FASTVOC_ISA": isa, "PYTHONPATH": paths}
        pipe = subprocess.PIPE
        command = [sys.executable, "-P", "-c", _SERVER]
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        atexit.register(self.process.communicate)

    def ask(self, request: dict[str, str]) -> int:
        """The exit status of the child that ran a script."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@cache
def _server(isa: str) -> _Server:
    return _Server(isa)


def compiler() -> str:
    """The C++ compiler, or a skip."""
    cxx = shutil.which(os.environ.get("CXX", "g++"))
    need("native", None if cxx else "no C++ compiler is installed")
    return str(cxx)


def compiled(target: Path, *words: str | Path) -> Path:
    """What the C++ compiler makes of flags and sources; fails with what it said."""
    done = subprocess.run([compiler(), *words, "-o", target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


@dataclass(frozen=True)
class GoldenCase:
    """One folder of golden data: inputs, and what a published implementation computed from them.

    `inputs`, `outputs` and `middle` are keyed by the tensors' names without their prefix (in., out., mid.).
    """

    dir: Path
    case: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    middle: dict[str, Tensor]

    def tolerance(self, name: str) -> float:
        """Allowed max |ours - golden| / rms(golden) of an output (`wav`) or a full name (`mid.x`)."""
        full = name if name in self.case["tensors"] else f"out.{name}"
        return float(self.case["tensors"][full]["tolerance_max_abs_error_over_rms"])


def golden_folder() -> Path:
    """Where the golden data lie: FASTVOC_GOLDEN, else ../shared/golden beside the repository."""
    return Path(os.environ.get("FASTVOC_GOLDEN") or ROOT.parent / "shared" / "golden")


def golden(name: str) -> GoldenCase:
    """A golden case by name; without the data the test is skipped, or fails under FASTVOC_REQUIRE=golden."""
    folder = golden_folder() / name
    need("golden", None if (folder / "case.json").exists() else f"no golden data in {folder}")
    return _read_case(folder)


@cache
def _read_case(folder: Path) -> GoldenCase:
    tensors = load_file(folder / "io.safetensors")

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    case = json.loads((folder / "case.json").read_text())
    return GoldenCase(folder, case, part("in."), part("out."), part("mid."))


def assert_golden(ours: Tensor, case: GoldenCase, name: str) -> None:
    """Floats must agree within the case's tolerance, integers exactly; `name` as for `tolerance`."""
    theirs = case.middle[name.removeprefix("mid.")] if name.startswith("mid.") else case.outputs[name]
    assert ours.shape == theirs.shape, f"{name}: shape {list(ours.shape)}, golden {list(theirs.shape)}"
    if not theirs.is_floating_point():
        assert torch.equal(ours.cpu(), theirs), f"{name}: integers differ"
        return
    assert ours.isfinite().all(), f"{name}: not finite"
    wide = theirs.double()
    error = ((ours.detach().cpu().double() - wide).abs().max() / wide.square().mean().sqrt()).item()
    assert error <= case.tolerance(name), f"{name}: error {error:.3g} exceeds {case.tolerance(name):.3g}"


def relative_l2(ours: Tensor, reference: Tensor) -> float:
    """||ours - reference|| / ||reference||, in float64."""
    wide = reference.double()
    return ((ours.detach().cpu().double() - wide).norm() / wide.norm()).item()


def cpu_seconds(call: Callable[[], object]) -> float:
    """The smaller processor time of two calls, in which no collector walks what other tests left in memory."""
    gc.disable()
    try:
        seconds = []
        for _ in range(2):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
    finally:
        gc.enable()
    return min(seconds)


def implementations(op: str, device: str = "cpu") -> list[Any]:
    """Names of an op's registered implementations for `device`, as pytest parameters.

    Those that need a native library carry the mark `native`: where it is missing they are skipped, or fail.
    """
    import fastvoc.ops

    for module in pkgutil.iter_modules(fastvoc.ops.__path__, "fastvoc.ops."):
        importlib.import_module(module.name)
    from fastvoc.runtime.registry import OPS

    # Triton's interpreter is slow: its tests choose their own cases.
    skipped = ("triton",) if device == "cpu" else ()
    names = [impl.name for impl in OPS[op].impls.values() if device in impl.devices and impl.name not in skipped]
    return [pytest.param(name, marks=pytest.mark.native if name == "cpp" else ()) for name in names]


# Threads, items of a batch, and the place of the one that is looked at.
PLACES = ((1, 1, 0), (3, 1, 0), (4, 3, 1), (2, 8, 7))


def batches_with(
    x: Tensor,
    places: Iterable[tuple[int, int, int]] = PLACES,
    others: Callable[[int], Tensor] | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """x [1, ...] among other items, random ones unless `others(count)` makes them: each batch, and where x is in it.

    Every batch comes with another number of threads; nothing of this may change a bit of what is made of x.
    """
    before = torch.get_num_threads()
    try:
        for threads, count, place in places:
            torch.set_num_threads(threads)
            batch = torch.randn(count, *x.shape[1:]).to(x.dtype) if others is None else others(count)
            batch[place] = x[0]
            yield batch, place
    finally:
        torch.set_num_threads(before)


def source_files(*suffixes: str) -> list[Path]:
    """The project's own text files with these suffixes, build products left out."""
    tops = [ROOT / name for name in ("fastvoc", "kernels", "csrc", "tests", "benchmarks", "docs", ".ci")]
    files = [path for top in tops for path in top.rglob("*")] + list(ROOT.iterdir())
    return sorted(path for path in files if path.is_file() and {path.suffix, path.name} & set(suffixes))
