"""What nvcc makes of the CUDA sources: no warnings, no spills, tensor cores where they belong. Needs no device."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import ROOT, compiler

sys.path.insert(0, str(ROOT / "benchmarks"))
from cuda_kernels import ARCHS, KEPT, KERNELS, Report, measure

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
# Only devices with more shared memory run these.
LARGE = {80: {"mrf-256", "mrf-256-snake"}, 120: {k.name for k in KERNELS if k.name.startswith(("mrf-128", "mrf-256"))}}
LARGE[120] -= {"mrf-128-small"}


def _check(report: Report) -> None:
    assert report.spilled == 0
    reduces_large_angles = report.kernel == "istft-frames" and report.arch <= 90
    assert report.stack == (32 if reduces_large_angles else 0)
    if report.kernel not in LARGE.get(report.arch, set()):
        assert report.shared <= SHARED_LIMIT[report.arch]
    assert (report.tensor > 0) == report.kernel.startswith(("mrf", "conv-tile"))


def test_hot_kernel_compiles_without_spills(nvcc: str) -> None:
    _check(measure(next(k for k in KERNELS if k.name == "mrf-32"), 90, KEPT))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arch"), [(k.name, arch) for k in KERNELS for arch in k.archs])
def test_kernels_compile_without_spills(nvcc: str, name: str, arch: int) -> None:
    _check(measure(next(k for k in KERNELS if k.name == name), arch, KEPT))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", sorted((ROOT / "csrc/cuda").glob("*.cu")), ids=lambda path: path.stem)
def test_library_compiles_without_warnings_and_spills(nvcc: str, tmp_path: Path, source: Path, arch: int) -> None:
    torch_headers = Path(torch.__file__).parent / "include"
    command = [
        nvcc,
        "-ccbin",
        compiler(),
        "-O3",
        "-std=c++20",
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        "-DUSE_CUDA",
    ]
    command += ["--expt-relaxed-constexpr", "-Werror=all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror"]
    target = "90a" if arch == 90 else arch
    command += [f"-gencode=arch=compute_{target},code=sm_{target}", "-Xptxas", "-v", "-isystem", str(torch_headers)]
    command += ["-I", str(ROOT / "csrc"), "-c", str(source), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"\d+ bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert spills
    assert set(spills) == {("0", "0")}
