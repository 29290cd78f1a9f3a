"""The native libraries use torch's stable ABI, the C and C++ run times, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fastvoc
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
    path = Path(fastvoc.__file__).parent / f"_C_{request.param}.so"
    if request.param == "cuda" and not path.exists():
        pytest.skip("the CUDA library is not built")
    need("native", None if path.exists() else f"{path.name} is not built")
    return path


def test_needs_only_the_stable_abi(library: Path) -> None:
    foreign = [name for name in symbols(library, "--undefined-only") if not STABLE.fullmatch(name)]
    assert [name for name in foreign if not RUN_TIME.fullmatch(name)] == []


def test_the_cuda_library_finds_torchs_own() -> None:
    path = Path(fastvoc.__file__).parent / "_C_cuda.so"
    if not path.exists():
        pytest.skip("the CUDA library is not built")
    need("native", None if shutil.which("readelf") else "readelf is not installed")
    listing = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    assert "[libtorch_cuda.so]" in listing
    assert "libcudart" not in listing


def test_links_to_torch_and_the_run_times_alone(library: Path) -> None:
    need("native", None if shutil.which("readelf") else "readelf is not installed")
    listing = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.+)\]", listing))
    system = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}
    system |= {"libdl.so.2", "libpthread.so.0", "librt.so.1"}  # libraries of their own before glibc 2.34
    torchs = {"libtorch_cpu.so", "libc10.so"} | ({"libtorch_cuda.so"} if "cuda" in library.name else set())
    assert torchs <= needed <= torchs | system


def test_everything_it_calls_is_in_this_torch(library: Path) -> None:
    import torch

    folder = Path(torch.__file__).parent / "lib"
    if "cuda" in library.name and not (folder / "libtorch_cuda.so").exists():
        pytest.skip("this torch is a CPU build")
    offered = set()
    for name in ("libtorch_cpu.so", "libtorch_cuda.so", "libc10.so"):
        if (folder / name).exists():
            offered |= {symbol.partition("@")[0] for symbol in symbols(folder / name, "--defined-only")}
    wanted = {name for name in symbols(library, "--undefined-only") if STABLE.fullmatch(name)}
    assert wanted - offered == set()


def test_the_cuda_library_holds_code_for_its_targets() -> None:
    path = Path(fastvoc.__file__).parent / "_C_cuda.so"
    record = fastvoc.runtime.library.build_record()
    if not path.exists() or record is None:
        pytest.skip("the CUDA library is not built")
    tool = shutil.which("cuobjdump") or _tritons("cuobjdump")
    if tool is None:
        pytest.skip("cuobjdump is not installed")
    listing = [
        subprocess.run([tool, kind, str(path)], capture_output=True, text=True, check=True).stdout
        for kind in ("--list-elf", "--list-ptx")
    ]
    machine, portable = (set(re.findall(r"\.sm_(\w+)\.", text)) for text in listing)
    archs = record["libraries"]["cuda"]["archs"].split(";")
    numbers = {arch: arch.removesuffix("+PTX").removesuffix("-virtual").replace(".", "") for arch in archs}
    wanted = {number for arch, number in numbers.items() if not arch.endswith("-virtual")}
    assert machine in (wanted, {number.rstrip("a") for number in wanted})  # Triton 3.6's tool drops the letter
    assert portable == {number for arch, number in numbers.items() if arch.endswith(("+PTX", "-virtual"))}


def _tritons(tool: str) -> str | None:
    """A tool that Triton's package carries."""
    spec = importlib.util.find_spec("triton")
    path = Path(spec.origin).parent / "backends/nvidia/bin" / tool if spec and spec.origin else None
    return str(path) if path and path.exists() else None


def test_offers_no_python_module(library: Path) -> None:
    assert [name for name in symbols(library, "--defined-only") if "PyInit" in name or "fastvoc" in name] == []
