"""What a source install builds under each FASTVOC_BUILD, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers import ROOT, compiler

TINY = """
#include <torch/headeronly/core/ScalarType.h>
extern "C" __attribute__((visibility("default"))) int answer() { return 42; }
"""
TINY_CODER = """
#include <pybind11/pybind11.h>
PYBIND11_MODULE(_C_coder, m) { m.def("answer", [] { return 42; }); }
"""
CODER = f"fastvoc/_C_coder{sysconfig.get_config_var('EXT_SUFFIX')}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources with one small C++ file in place of each library's."""
    copy = tmp_path / "tree"
    built = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json")
    for name in ("fastvoc", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name, text in (("cpu/ops.cpp", TINY), ("coder/module.cpp", TINY_CODER)):
        (copy / "csrc" / name).parent.mkdir(parents=True)
        (copy / "csrc" / name).write_text(text)
    return copy


def build(tree: Path, mode: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Runs the build, without nvcc; returns how it went and what it recorded of each library."""
    env = {**os.environ, "FASTVOC_BUILD": mode, "NVCC": "absent-nvcc", **variables}
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", "out"]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    record = tree / "out/fastvoc/_build_info.json"
    return done, json.loads(record.read_text())["libraries"] if record.exists() else {}


def wheel(tree: Path, mode: str, **variables: str) -> tuple[str, set[str]]:
    """Name and file list of the wheel that pip makes."""
    env = {**os.environ, "FASTVOC_BUILD": mode, "NVCC": "absent-nvcc", **variables}
    options = ["--no-build-isolation", "--no-deps", "--no-index", "-q", "-w", "dist"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", ".", *options], cwd=tree, env=env, check=True)
    (path,) = (tree / "dist").iterdir()
    with zipfile.ZipFile(path) as archive:
        return path.name, set(archive.namelist())


def test_pure_wheel_holds_every_module_and_nothing_else(tree: Path) -> None:
    name, files = wheel(tree, "python")
    assert name.endswith("-py3-none-any.whl")
    kept = {str(path.relative_to(tree)) for path in (tree / "fastvoc").rglob("*") if path.is_file()}
    kept |= {
        f"fastvoc/{path.relative_to(tree)}" for path in (tree / "kernels").rglob("*") if path.suffix in (".py", ".json")
    }
    assert {file for file in files if ".dist-info/" not in file} == kept | {"fastvoc/_build_info.json"}
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files)


def fake_nvcc(folder: Path, version: str) -> str:
    """A program that tells nvcc's version and does nothing else."""
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def setup_py() -> ModuleType:
    """setup.py as a module, which builds nothing."""
    spec = importlib.util.spec_from_file_location("fastvoc_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_native_wheel_is_for_the_python_of_the_coder(tree: Path) -> None:
    compiler()
    name, files = wheel(tree, "cpu", FASTVOC_LABEL="1")
    tag = sys.implementation.cache_tag.replace("cpython-", "cp")
    assert name.startswith(f"fastvoc-0.1.0+cpu-{tag}-{tag}-linux_")
    assert {"fastvoc/_C_cpu.so", CODER} <= files
    library = tree / "build" / "probe.so"
    with zipfile.ZipFile(tree / "dist" / name) as archive:
        library.write_bytes(archive.read("fastvoc/_C_cpu.so"))
    code = f"import ctypes, torch; print(ctypes.CDLL({str(library)!r}).answer())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "42\n"


def test_without_the_coder_a_native_wheel_serves_every_python(tree: Path) -> None:
    compiler()
    shutil.rmtree(tree / "csrc/coder")
    name, files = wheel(tree, "auto")
    assert name.startswith("fastvoc-0.1.0-py3-none-linux_")
    assert CODER not in files


@pytest.mark.parametrize(("version", "archs"), [("12.6", "90"), ("12.8", "120"), ("13.0", "120")])
def test_targets_follow_from_the_toolkit(
    setup_py: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, archs: str
) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    nvcc = fake_nvcc(tmp_path, version)
    flags = setup_py.gencode(setup_py.archs_of(setup_py.toolkit(nvcc)))
    assert flags[:2] == ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90a,code=sm_90a"]
    assert f"compute_{archs}" in flags[-1].partition("code=")[2], "no PTX for later devices"
    assert not any(f"compute_{number}," in flag for flag in flags for number in ("50", "60", "70", "75"))
    monkeypatch.setenv("NVCC", nvcc)
    monkeypatch.setattr(setup_py, "MODE", "cuda")
    assert setup_py.label() == f"cu{version.replace('.', '')}"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert setup_py.archs_of(setup_py.toolkit(nvcc)) == "9.0"


def test_a_toolkit_that_wheels_do_not_know_has_no_label(
    setup_py: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setenv("NVCC", fake_nvcc(tmp_path, "13.4"))
    monkeypatch.setattr(setup_py, "MODE", "cuda")
    with pytest.raises(SystemExit, match=r"not 13\.4"):
        setup_py.label()
    assert setup_py.archs_of((13, 4)) == setup_py.ARCHS[13, 0]
    with pytest.raises(setup_py.Unavailable, match=r"older than 12\.6"):
        setup_py.archs_of((12, 4))
    monkeypatch.setattr(setup_py, "MODE", "auto")
    with pytest.raises(SystemExit, match="FASTVOC_BUILD=cpu, or FASTVOC_BUILD=cuda"):
        setup_py.label()


def test_a_build_compiles_each_source_that_changed_alone(
    setup_py: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    (tmp_path / "shared.h").write_text("inline int one() { return 1; }\n")
    for name in ("a", "b"):
        include = '#include "shared.h"\n' if name == "a" else ""
        (tmp_path / f"{name}.cpp").write_text(f"{include}int {name}() {{ return 2; }}\n")
    real = setup_py.run
    monkeypatch.setattr(setup_py, "run", lambda command: (ran.append(command[-3]), real(command)))

    def build_all(*flags: str) -> list[str]:
        ran.clear()
        for name in ("a", "b"):
            setup_py.compile_object([compiler(), *flags], tmp_path / f"{name}.cpp", tmp_path / f"{name}.o")
        return [Path(source).name for source in ran]

    assert build_all() == ["a.cpp", "b.cpp"]
    assert build_all() == []
    later = (tmp_path / "a.o").stat().st_mtime + 5
    os.utime(tmp_path / "shared.h", (later, later))
    assert build_all() == ["a.cpp"]
    os.utime(tmp_path / "shared.h", (0, 0))
    assert build_all("-O1") == ["a.cpp", "b.cpp"]


def test_no_compiler_means_the_pure_package_and_a_word_about_it(tree: Path) -> None:
    done, libraries = build(tree, "auto", CXX="absent-compiler")
    assert done.returncode == 0
    assert "cpu library: no C++ compiler found (absent-compiler)" in done.stdout
    assert "pure-Python package" in done.stdout
    assert "absent-compiler" in libraries["cpu"]["left_out"]
    assert not list((tree / "out").rglob("*.so"))


@pytest.mark.parametrize(("mode", "library"), [("cpu", "cpu"), ("cuda", "cuda")])
def test_a_library_that_was_asked_for_must_build(tree: Path, mode: str, library: str) -> None:
    compiler()
    absent = {"CXX": "absent-compiler"} if mode == "cpu" else {}
    (tree / "csrc/cuda").mkdir()
    (tree / "csrc/cuda/ops.cu").write_text("")
    done, _ = build(tree, mode, **absent)
    assert done.returncode != 0
    assert f"FASTVOC_BUILD={mode}: no {library} library:" in done.stderr


def test_a_source_that_does_not_compile_is_left_out_with_the_compilers_words(tree: Path) -> None:
    compiler()
    (tree / "out/fastvoc").mkdir(parents=True)
    stale = tree / "out/fastvoc/_C_cpu.so"
    stale.write_text("of an earlier build")
    (tree / "csrc/cpu/ops.cpp").write_text("int unused_value = undeclared;\n")
    done, libraries = build(tree, "auto")
    assert done.returncode == 0
    assert "undeclared" in libraries["cpu"]["left_out"]
    assert not stale.exists()


def test_a_second_build_compiles_only_what_changed(tree: Path) -> None:
    compiler()
    library = tree / "out/fastvoc/_C_cpu.so"
    build(tree, "cpu")
    first = library.stat().st_mtime_ns
    build(tree, "cpu")
    assert library.stat().st_mtime_ns == first
    (tree / "csrc/cpu/ops.cpp").write_text(TINY + "// changed\n")
    build(tree, "cpu")
    assert library.stat().st_mtime_ns > first


def test_the_coder_needs_no_torch_but_pybind11(tree: Path) -> None:
    compiler()
    hide = "import sys; sys.modules[{!r}] = None; sys.argv = ['setup.py', '-q', 'build', '--build-lib', 'out']; "
    run = (
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {{'__name__': '__main__', '__file__': 'setup.py'}})"
    )
    env = {**os.environ, "FASTVOC_BUILD": "auto", "NVCC": "absent-nvcc"}
    for absent, missing in (("torch", "cpu"), ("pybind11", "coder")):
        command = [sys.executable, "-c", (hide + run).format(absent)]
        subprocess.run(command, cwd=tree, env=env, capture_output=True, check=True)
        libraries = json.loads((tree / "out/fastvoc/_build_info.json").read_text())["libraries"]
        assert {name for name in ("cpu", "coder") if "left_out" in libraries[name]} == {missing}
        assert f"{absent} is not installed" in libraries[missing]["left_out"]
        code = "import _C_coder; print(_C_coder.answer())"
        if missing == "cpu":
            env_with_path = {**os.environ, "PYTHONPATH": str(tree / "out/fastvoc")}
            done = subprocess.run([sys.executable, "-c", code], env=env_with_path, capture_output=True, text=True)
            assert done.stdout == "42\n", done.stderr


def test_unknown_mode_is_refused(tree: Path) -> None:
    done, _ = build(tree, "gpu")
    assert done.returncode != 0
    assert "FASTVOC_BUILD='gpu' is not one of auto, python, cpu, cuda" in done.stderr
