"""The compilers that a build finds, their flags, and the facts that it records of them."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WANTED = {
    "auto": ["cpu", "coder", "cuda"],
    "python": [],
    "cpu": ["cpu", "coder"],
    "cuda": ["cpu", "coder", "cuda"],
}
MODE = os.environ.get("FASTVOC_BUILD") or "auto"
if MODE not in WANTED:
    raise SystemExit(f"FASTVOC_BUILD={MODE!r} is not one of {', '.join(WANTED)}")

# Sets of x86 in rising order, by the names that files and Python have for them, and what /proc/cpuinfo says of one.
ISAS: dict[str, set[str]] = {
    "portable": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_bf16": {"avx512_bf16", "avx512_vnni"},
}
BEST_ISA = os.environ.get("FASTVOC_TARGET")
if BEST_ISA not in (None, "", "here", *ISAS):
    raise SystemExit(f"FASTVOC_TARGET={BEST_ISA!r} is not one of here, {', '.join(ISAS)}")

DIALECT = ["-std=c++20"]
TORCH = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]
HOST = ["-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror"]
NVCC = ["--expt-relaxed-constexpr", "-Werror=all-warnings", "-DUSE_CUDA", "-cudart=static"]
# What wheels hold, by toolkit: devices of 8.x run the code for 8.0, those newer than the last translate its PTX.
# 9.0a is Hopper with its own instructions, whose PTX no later device takes.
ARCHS = {
    (12, 6): "8.0;9.0a;9.0-virtual",
    (12, 8): "8.0;9.0a;10.0;12.0+PTX",
    (13, 0): "8.0;9.0a;10.0;12.0+PTX",
    (13, 2): "8.0;9.0a;10.0;12.0+PTX",
}


class Unavailable(Exception):
    """A library cannot be built here; the message says why."""


@dataclass(frozen=True)
class Toolchain:
    """How to compile and to link a library, and the facts to record of it.

    `stand_ins`: libraries to link to that are not here, but will be where the library is loaded.
    """

    compile: list[str]
    link: list[str]
    facts: dict[str, Any]
    stand_ins: tuple[str, ...] = ()


def run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Unavailable(f"`{shlex.join(command)}` failed:\n{done.stdout[-4000:]}")
    return done.stdout.strip()


def find_cxx() -> str | None:
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else shutil.which("g++") or shutil.which("clang++")


def target_machine() -> str:
    """The machine that the compiler makes code for; this one without a compiler."""
    cxx = find_cxx()
    return run([cxx, "-dumpmachine"]).partition("-")[0] if cxx else platform.machine()


def isas(beside: bool, cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The instruction sets to compile the CPU library for: up to FASTVOC_TARGET, `here` is the best of this machine.

    By default a library that is built beside its sources is for this machine, any other for all.
    """
    if BEST_ISA in ISAS:
        return list(ISAS)[: list(ISAS).index(BEST_ISA) + 1]
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    foreign = target_machine() != platform.machine()
    if foreign or flags is None or not (beside or BEST_ISA == "here"):
        return list(ISAS)
    return list(takewhile(lambda isa: ISAS[isa] <= flags, ISAS))


def wanted() -> list[str]:
    """The libraries that were asked for. For another machine only that of the CPU can be built."""
    crossing = target_machine() != platform.machine()
    return [name for name in WANTED[MODE] if name == "cpu" or not crossing]


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return shutil.which(os.environ.get("NVCC") or (f"{home}/bin/nvcc" if home else "nvcc"))


def toolkit(nvcc: str) -> tuple[int, int]:
    """Version of the CUDA toolkit that nvcc belongs to."""
    found = re.search(r"release (\d+)\.(\d+)", run([nvcc, "--version"]))
    if found is None:
        raise Unavailable(f"{nvcc} does not tell its version")
    return int(found[1]), int(found[2])


def archs_of(version: tuple[int, int]) -> str:
    """The targets of a build: TORCH_CUDA_ARCH_LIST, else those of the newest known toolkit up to this one."""
    known = [v for v in ARCHS if v <= version]
    if not known:
        oldest = ".".join(map(str, min(ARCHS)))
        raise Unavailable(f"CUDA {version[0]}.{version[1]} is older than {oldest}")
    return os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHS[max(known)]


def gencode(archs: str) -> list[str]:
    """nvcc's flags for a list like `8.0;9.0a;12.0+PTX`.

    +PTX adds code that later devices translate, -virtual is that alone.
    """
    flags = []
    for arch in archs.replace(",", ";").replace(" ", ";").strip(";").split(";"):
        number = arch.removesuffix("+PTX").removesuffix("-virtual").replace(".", "")
        kinds = f"[sm_{number},compute_{number}]" if arch.endswith("+PTX") else f"sm_{number}"
        kinds = f"compute_{number}" if arch.endswith("-virtual") else kinds
        flags.append(f"-gencode=arch=compute_{number},code={kinds}")
    return flags


def label() -> str:
    """What a wheel's version says of its libraries. Raises SystemExit where they do not have a name."""
    if MODE == "cpu":
        return "cpu"
    nvcc = find_nvcc()
    if MODE != "cuda" or nvcc is None:
        raise SystemExit("FASTVOC_LABEL wants FASTVOC_BUILD=cpu, or FASTVOC_BUILD=cuda and nvcc (set CUDA_HOME)")
    version = toolkit(nvcc)
    if version not in ARCHS:
        known = ", ".join(f"{major}.{minor}" for major, minor in ARCHS)
        raise SystemExit(f"FASTVOC_LABEL: wheels are built with CUDA {known}, not {version[0]}.{version[1]}")
    return f"cu{version[0]}{version[1]}"


def visible_gpu() -> bool:
    """Whether NVIDIA's driver lists a device."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return False
    listing = subprocess.run([smi, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return listing.returncode == 0 and listing.stdout.startswith("GPU ")


def installed_torch() -> tuple[Path, str, str | None]:
    """Folder, version and CUDA version of torch, which is not imported: that takes longer than a small build.

    Raises Unavailable without torch.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise Unavailable("torch is not installed where the build runs (use pip's --no-build-isolation)")
    folder = Path(found.origin).parent
    said = runpy.run_path(str(folder / "version.py"))
    return folder, said["__version__"], said["cuda"]


def toolchain(name: str) -> Toolchain:
    """What builds library `name`. Raises Unavailable where something is missing, or where `auto` has no use for it."""
    cxx = find_cxx()
    if cxx is None:
        raise Unavailable(f"no C++ compiler found ({os.environ.get('CXX', 'g++, clang++')})")
    flags = DIALECT + HOST
    facts: dict[str, Any] = {"compiler": run([cxx, "--version"]).splitlines()[0]}
    if name == "coder":
        if importlib.util.find_spec("pybind11") is None:
            raise Unavailable("pybind11 is not installed where the build runs (use pip's --no-build-isolation)")
        import pybind11

        facts |= {"python": sys.implementation.cache_tag, "pybind11": pybind11.__version__, "flags": flags}
        paths = [pybind11.get_include(), sysconfig.get_path("include")]
        return Toolchain([cxx, *flags, *(flag for path in paths for flag in ("-isystem", path))], [], facts)
    torch, version, its_cuda = installed_torch()
    if tuple(int(part) for part in version.split(".")[:2]) < (2, 11):
        raise Unavailable(f"torch {version} is older than 2.11")
    command, flags = [cxx], [*flags, *TORCH]
    if name == "cuda":
        if MODE == "auto" and its_cuda is None and not visible_gpu():
            use = "no GPU is visible (FASTVOC_BUILD=cuda builds it anyway)"
            raise Unavailable(f"torch {version} is no CUDA build and {use}")
        nvcc = find_nvcc()
        if nvcc is None:
            raise Unavailable("nvcc not found (set CUDA_HOME or NVCC)")
        command = [nvcc, "-ccbin", cxx]
        release = toolkit(nvcc)
        archs = archs_of(release)
        flags = [*DIALECT, *TORCH, *NVCC, f"-Xcompiler={','.join(HOST)}", *gencode(archs)]
        said = next(line for line in run([nvcc, "--version"]).splitlines() if "release" in line)
        facts |= {"nvcc": said, "archs": archs}
        facts |= {"cuda": ".".join(map(str, release))}
    machine = target_machine()
    crossing = machine != platform.machine()
    paths = [str(torch / "include"), str(torch / "include/torch/csrc/api/include")]
    includes = [flag for path in paths for flag in ("-isystem", path)]
    link = [] if crossing else [f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
    stand_ins = ("torch_cpu", "c10") if crossing else ("torch_cuda",) if name == "cuda" else ()
    facts |= {"torch": version, "machine": machine, "flags": flags}
    return Toolchain([*command, *flags, *includes, "-I", str(ROOT / "csrc")], link, facts, stand_ins)
