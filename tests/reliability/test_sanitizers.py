"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the op tests run again on such a build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastvoc.runtime import library as _library
from helpers import ROOT

SANITIZE = "-fsanitize=address,undefined"


def _runtime(compiler: str, name: str) -> str:
    return subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose CPU library is built with the sanitizers."""
    import torch
    from torch.utils.cpp_extension import include_paths

    folder = tmp_path_factory.mktemp("sanitized")
    for name in ("fastvoc", "tests", "kernels"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    flags = [SANITIZE, "-fno-sanitize-recover=undefined", "-O1", "-g", "-std=c++20", "-fPIC", "-shared"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-ffp-contract=fast", "-I", str(ROOT / "csrc")]
    flags += [part for path in include_paths() for part in ("-isystem", path)]
    sources = [str(path) for path in sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]
    libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10"]
    target = folder / "fastvoc" / "_C_cpu.so"
    subprocess.run(["g++", *flags, *sources, "-o", str(target), *libraries], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("isa", _library.ISAS)
def test_no_report(build: Path, isa: str, compiler: str) -> None:
    variables = {
        "FASTVOC_ISA": isa,
        "ASAN_OPTIONS": "detect_leaks=0",
        "LD_PRELOAD": f"{_runtime(compiler, 'libasan.so')} {_runtime(compiler, 'libubsan.so')}",
        "PYTHONPATH": str(build),
    }
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(
            f"tests/ops/test_{name}.py"
            for name in ("ops", "op_streams", "toom_cook", "conv2d", "conv1d_wide", "paired", "mrf_cuts")
        ),
        "-k",
        "cpp or toom_cook or wide or paired or mrf_cuts",
    ]
    done = subprocess.run(command, cwd=build, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
