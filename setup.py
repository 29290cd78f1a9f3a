"""Builds the native libraries; everything else about the package is in pyproject.toml.

FASTVOC_BUILD=auto    build what this machine can, say why the rest is left out (default)
FASTVOC_BUILD=python  no native code
FASTVOC_BUILD=cpu     the C++ libraries, or fail
FASTVOC_BUILD=cuda    all libraries, or fail
FASTVOC_LABEL=1       put what was asked for into the version: +cpu, or +cu130 for the toolkit at CUDA_HOME

CXX, NVCC, CUDA_HOME, TORCH_CUDA_ARCH_LIST and MAX_JOBS count. The libraries of kernels use no Python and only torch's
stable ABI: they are the same files for every Python and every torch from 2.11 on. The coder of bit streams uses no
torch, but pybind11, so that a wheel with it is one for the Python of the build.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
WANTED = {
    "auto": ["cpu", "coder", "cuda"],
    "python": [],
    "cpu": ["cpu", "coder"],
    "cuda": ["cpu", "coder", "cuda"],
}
MODE = os.environ.get("FASTVOC_BUILD") or "auto"
if MODE not in WANTED:
    raise SystemExit(f"FASTVOC_BUILD={MODE!r} is not one of {', '.join(WANTED)}")

SUFFIX = {"cpu": ".cpp", "coder": ".cpp", "cuda": ".cu"}
DIALECT = ["-O3", "-std=c++20"]
TORCH = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]
HOST = ["-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror"]
NVCC = ["--expt-relaxed-constexpr", "-Werror=all-warnings", "-DUSE_CUDA", "-cudart=static"]
# What wheels hold, by toolkit: devices of 8.x run the code for 8.0, those newer than the last translate its PTX.
# 9.0a is Hopper with its own instructions, whose PTX no later device takes.
ARCHS = {
    (12, 6): "8.0;9.0a;9.0-virtual",
    (12, 8): "8.0;9.0a;10.0;12.0+PTX",
    (13, 0): "8.0;9.0a;10.0;12.0+PTX",
}


class Unavailable(Exception):
    """A library cannot be built here; the message says why."""


def run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Unavailable(f"`{shlex.join(command)}` failed:\n{done.stdout[-4000:]}")
    return done.stdout.strip()


def find_cxx() -> str | None:
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else shutil.which("g++") or shutil.which("clang++")


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


def toolchain(name: str) -> tuple[list[str], list[str], dict[str, Any]]:
    """The compiler command, the linker's flags and the facts to record for library `name`."""
    cxx = find_cxx()
    if cxx is None:
        raise Unavailable(f"no C++ compiler found ({os.environ.get('CXX', 'g++, clang++')})")
    command, flags = [cxx], DIALECT + HOST
    facts: dict[str, Any] = {"compiler": run([cxx, "--version"]).splitlines()[0]}
    if name == "coder":
        if importlib.util.find_spec("pybind11") is None:
            raise Unavailable("pybind11 is not installed where the build runs (use pip's --no-build-isolation)")
        import pybind11

        facts |= {"python": sys.implementation.cache_tag, "pybind11": pybind11.__version__, "flags": flags}
        paths = [pybind11.get_include(), sysconfig.get_path("include")]
        return [*command, *flags, *(flag for path in paths for flag in ("-isystem", path))], [], facts
    flags = [*flags, *TORCH]
    if name == "cuda":
        nvcc = find_nvcc()
        if nvcc is None:
            raise Unavailable("nvcc not found (set CUDA_HOME or NVCC)")
        command = [nvcc, "-ccbin", cxx]
        version = toolkit(nvcc)
        archs = archs_of(version)
        flags = [*DIALECT, *TORCH, *NVCC, f"-Xcompiler={','.join(HOST)}", *gencode(archs)]
        facts |= {"nvcc": run([nvcc, "--version"]).splitlines()[-2], "archs": archs}
        facts |= {"cuda": ".".join(map(str, version))}
    if importlib.util.find_spec("torch") is None:
        raise Unavailable("torch is not installed where the build runs (use pip's --no-build-isolation)")
    import torch
    from torch.utils.cpp_extension import include_paths

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        raise Unavailable(f"torch {torch.__version__} is older than 2.11")
    includes = [flag for path in include_paths() for flag in ("-isystem", path)]
    link = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10"]
    facts |= {"torch": torch.__version__, "flags": flags}
    return [*command, *flags, *includes, "-I", str(ROOT / "csrc")], link, facts


def compile_object(command: list[str], source: Path, output: Path) -> None:
    """Compiles one source unless its object is newer than all that it was made of, by the same command."""
    made_of, said = output.with_suffix(".d"), output.with_suffix(".command")
    command = [*command, "-MMD", "-MF", str(made_of), "-c", str(source), "-o", str(output)]
    if output.exists() and made_of.exists() and said.exists() and said.read_text() == shlex.join(command):
        files = made_of.read_text().replace("\\\n", " ").partition(":")[2].split()
        if all(Path(file).exists() and Path(file).stat().st_mtime < output.stat().st_mtime for file in files):
            return
    said.unlink(missing_ok=True)  # what an interrupted compiler leaves is not taken for an object
    run(command)
    said.write_text(shlex.join(command))


def compile_library(name: str, target: Path, objects: Path, before: dict[str, Any]) -> dict[str, Any]:
    """Builds `target` unless it is newer than every source and `before` has the same facts; returns them."""
    sources = sorted((ROOT / "csrc" / name).glob(f"*{SUFFIX[name]}"))
    if not sources:
        raise Unavailable(f"csrc/{name} holds no {SUFFIX[name]} file")
    command, link, facts = toolchain(name)
    newest = max(path.stat().st_mtime for path in [Path(__file__), *(ROOT / "csrc").rglob("*.*")])
    if facts == before and target.exists() and target.stat().st_mtime > newest:
        return facts
    objects.mkdir(parents=True, exist_ok=True)
    outputs = [objects / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        list(pool.map(compile_object, [command] * len(sources), sources, outputs))
    if name == "cuda":  # a stand-in for the library of CUDA torch, which must be named as a dependency
        stub = ["-xc", os.devnull, "-o", str(objects / "libtorch_cuda.so")]
        run([str(find_cxx()), "-shared", "-Wl,-soname,libtorch_cuda.so", *stub])
        link = ["-Xlinker", "--no-as-needed", f"-L{objects}", "-ltorch_cuda", *link]
    run([*command, "-shared", *map(str, outputs), "-o", f"{target}.partial", *link])
    os.replace(f"{target}.partial", target)
    return facts


class BuildNative(Command):
    """Compiles the libraries beside the Python files and records what was built, and why the rest was not."""

    user_options: ClassVar[list[tuple[str, str, str]]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = self.build_temp = ""

    def finalize_options(self) -> None:
        builder = self.get_finalized_command("build")
        self.build_lib, self.build_temp = builder.build_lib, builder.build_temp

    def run(self) -> None:
        package = (ROOT if self.editable_mode else Path(self.build_lib)) / "fastvoc"
        record = package / "_build_info.json"
        before = json.loads(record.read_text())["libraries"] if record.exists() else {}
        libraries: dict[str, Any] = {}
        for name in SUFFIX:
            target = package / f"_C_{name}{sysconfig.get_config_var('EXT_SUFFIX') if name == 'coder' else '.so'}"
            try:
                if name not in WANTED[MODE]:
                    raise Unavailable(f"FASTVOC_BUILD={MODE}")
                objects = Path(self.build_temp, f"fastvoc_{name}")
                libraries[name] = compile_library(name, target, objects, before.get(name, {}))
            except Unavailable as error:
                target.unlink(missing_ok=True)
                if MODE != "auto" and name in WANTED[MODE]:
                    raise SystemExit(f"FASTVOC_BUILD={MODE}: no {name} library: {error}") from None
                libraries[name] = {"left_out": str(error)}
            print(f"fastvoc: {name} library: {libraries[name].get('left_out', 'built')}")
        if not any(package.glob("_C_*.so")):
            print("fastvoc: this is the pure-Python package: every operation runs in torch")
        record.write_text(json.dumps({"mode": MODE, "git": git_revision(), "libraries": libraries}, indent=1))

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.*"))]

    def get_outputs(self) -> list[str]:
        return [str(path) for path in Path(self.build_lib, "fastvoc").glob("_[Cb]*.[sj]*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def git_revision() -> str | None:
    with suppress(Unavailable, FileNotFoundError):
        return run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"])
    return None


class Wheel(bdist_wheel):
    """Tags a wheel by what it holds: `py3-none-any` without libraries, `cpXY-cpXY-<platform>` with the coder's."""

    def run(self) -> None:
        self.run_command("build")
        package = Path(self.get_finalized_command("build").build_lib, "fastvoc")
        native, self._coder = any(package.glob("_C_*.so")), any(package.glob("_C_coder*.so"))
        self.distribution.has_ext_modules = lambda: native
        self.root_is_pure = not native
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        if self.root_is_pure:
            return ("py3", "none", "any")
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self._coder else ("py3", "none", platform)


class Labelled(Distribution):
    """The distribution of pyproject.toml, with the label in its version where FASTVOC_LABEL asks for it."""

    def parse_config_files(self, *args: Any, **kwargs: Any) -> None:
        super().parse_config_files(*args, **kwargs)
        if os.environ.get("FASTVOC_LABEL"):
            self.metadata.version = f"{self.metadata.version}+{label()}"


if __name__ == "__main__":
    build.sub_commands.append(("build_native", None))
    setup(
        packages=[*find_packages(include=["fastvoc", "fastvoc.*"]), "fastvoc.kernels"]
        + [f"fastvoc.kernels.{name}" for name in find_packages("kernels")],
        package_dir={"fastvoc.kernels": "kernels"},
        package_data={"fastvoc": ["assets/*", "py.typed"], "fastvoc.kernels.tuned": ["*.json"]},
        setup_requires=["torch>=2.11", "numpy", "pybind11"] if WANTED[MODE] and find_cxx() else [],
        cmdclass={"build_native": BuildNative, "bdist_wheel": Wheel},
        distclass=Labelled,
    )
