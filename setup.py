"""Builds the native libraries; everything else about the package is in pyproject.toml.

FASTVOC_BUILD=auto    build what this machine can, say why the rest is left out (default)
FASTVOC_BUILD=python  no native code
FASTVOC_BUILD=cpu     the C++ libraries, or fail
FASTVOC_BUILD=cuda    all libraries, or fail
FASTVOC_TARGET=X      the highest instruction set of x86 to build for: portable, avx2, avx512, avx512_bf16, or `here`,
                      the best of this machine; without it libraries beside their sources are for this machine, others
                      for all
FASTVOC_LABEL=1       put what was asked for into the version: +cpu, or +cu130 for the toolkit at CUDA_HOME

CXX, NVCC, CUDA_HOME, TORCH_CUDA_ARCH_LIST and MAX_JOBS count. The libraries of kernels use no Python and only torch's
stable ABI: they are the same files for every Python and every torch from 2.11 on. The coder of bit streams uses no
torch, but pybind11, so that a wheel with it is one for the Python of the build.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
sys.path.append(str(ROOT / "csrc"))
import native_build
from native_toolchain import MODE, WANTED, Unavailable, find_cxx, isas, label, run, target_machine, wanted


class BuildNative(Command):
    """Compiles the libraries beside the Python files and records what was built, and why the rest was not."""

    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("inplace", "i", "build beside the sources, as an editable install does"),
    ]
    boolean_options: ClassVar[list[str]] = ["inplace"]
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = self.build_temp = ""
        self.inplace = False

    def finalize_options(self) -> None:
        builder = self.get_finalized_command("build")
        self.build_lib, self.build_temp = builder.build_lib, builder.build_temp

    def run(self) -> None:
        beside = self.editable_mode or self.inplace
        package = (ROOT if beside else Path(self.build_lib)) / "fastvoc"
        # In an editable install the build's own folder is a new one every time.
        objects = ROOT / "build" / "inplace" if beside else Path(self.build_temp)
        record = package / "_build_info.json"
        before = json.loads(record.read_text())["libraries"] if record.exists() else {}
        libraries: dict[str, Any] = {}
        planned = []
        for name in native_build.SUFFIX:
            target = package / f"_C_{name}{sysconfig.get_config_var('EXT_SUFFIX') if name == 'coder' else '.so'}"
            try:
                if name not in wanted():
                    other = f" for {target_machine()}" if name in WANTED[MODE] else ""
                    raise Unavailable(f"FASTVOC_BUILD={MODE}{other}")
                planned.append(native_build.plan(name, target, objects / f"fastvoc_{name}", isas(beside)))
            except Unavailable as error:
                target.unlink(missing_ok=True)
                libraries[name] = {"left_out": str(error)}
        self.require(libraries)  # before minutes of compiling
        native_build.build(planned)
        libraries |= {library.name: library.finish(before.get(library.name, {})) for library in planned}
        for name in native_build.SUFFIX:
            print(f"fastvoc: {name} library: {libraries[name].get('left_out', 'built')}")
        if not any(package.glob("_C_*.so")):
            print("fastvoc: this is the pure-Python package: every operation runs in torch")
        libraries = {name: libraries[name] for name in native_build.SUFFIX}
        record.write_text(json.dumps({"mode": MODE, "git": git_revision(), "libraries": libraries}, indent=1))
        self.require(libraries)

    def require(self, libraries: dict[str, Any]) -> None:
        """Raises SystemExit where a library that was asked for by name is left out."""
        absent = [name for name in wanted() if MODE != "auto" and "left_out" in libraries.get(name, {})]
        if absent:
            why = "; ".join(f"no {name} library: {libraries[name]['left_out']}" for name in absent)
            raise SystemExit(f"FASTVOC_BUILD={MODE}: {why}")

    def get_source_files(self) -> list[str]:
        files = sorted((ROOT / "csrc").rglob("*.*"))
        return [str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts]

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
        python, abi, system = super().get_tag()
        system = system.replace(platform.machine(), target_machine())
        return (python, abi, system) if self._coder else ("py3", "none", system)


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
        package_data={
            "fastvoc": ["assets/*", "py.typed", "runtime/choices/*.json"],
            "fastvoc.kernels.tuned": ["*.json"],
        },
        setup_requires=["torch>=2.11", "numpy", "pybind11"] if WANTED[MODE] and find_cxx() else [],
        cmdclass={"build_native": BuildNative, "bdist_wheel": Wheel},
        distclass=Labelled,
    )
