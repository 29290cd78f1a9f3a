"""The native libraries use torch's stable ABI, the C and C++ run times, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fastvoc._library
from helpers import need

STABLE = re.compile(r"(aoti_torch_|torch_)\w+")
RUN_TIME = re.compile(r".*@(GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+|std::.*|_ITM_\w+|__gmon_start__|__cxa_finalize.*")


def symbols(library: Path, kind: str) -> list[str]:
    """Demangled names of a library's dynamic symbols; `kind` is an option of nm."""
    need("native", None if shutil.which("nm") else "nm is not installed")
    listing = subprocess.run(["nm", "-DC", kind, str(library)], capture_output=True, text=True, check=True).stdout
    return [line.split(maxsplit=1 if line[0] == " " else 2)[-1] for line in listing.splitlines()]


@pytest.fixture(params=["cpu", "cuda"])
def library(request: pytest.FixtureRequest) -> Path:
    path = Path(fastvoc._library.__file__).parent / f"_C_{request.param}.so"
    if request.param == "cuda" and not path.exists():
        pytest.skip("the CUDA library is not built")
    need("native", None if path.exists() else f"{path.name} is not built")
    return path


def test_needs_only_the_stable_abi(library: Path) -> None:
    foreign = [name for name in symbols(library, "--undefined-only") if not STABLE.fullmatch(name)]
    assert [name for name in foreign if not RUN_TIME.fullmatch(name)] == []


def test_the_cuda_library_finds_torchs_own() -> None:
    path = Path(fastvoc._library.__file__).parent / "_C_cuda.so"
    if not path.exists():
        pytest.skip("the CUDA library is not built")
    need("native", None if shutil.which("readelf") else "readelf is not installed")
    listing = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    assert "[libtorch_cuda.so]" in listing
    assert "libcudart" not in listing


def test_offers_no_python_module(library: Path) -> None:
    assert [name for name in symbols(library, "--defined-only") if "PyInit" in name or "fastvoc" in name] == []
