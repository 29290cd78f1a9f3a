"""What a source install builds under each FASTVOC_BUILD, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from helpers import ROOT, compiler, need

sys.path.append(str(ROOT / "csrc"))
import native_build
import native_toolchain

TINY = """
#include <torch/headeronly/version.h>
extern "C" __attribute__((visibility("default"))) int answer() { return 42; }
"""
# pybind11's headers are there, but take seven seconds to compile.
TINY_CODER = """
#include <Python.h>
#if !__has_include(<pybind11/pybind11.h>)
#error
#endif
static PyObject* answer(PyObject*, PyObject*) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, nullptr}, {}};
static PyModuleDef module{PyModuleDef_HEAD_INIT, "_C_coder", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
PyMODINIT_FUNC PyInit__C_coder() { return PyModule_Create(&module); }
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
    (copy / "csrc").mkdir()
    for module in (ROOT / "csrc").glob("*.py"):
        shutil.copy(module, copy / "csrc")
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


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What finds compilers, in a build that leaves the choice to it."""
    monkeypatch.setattr(native_toolchain, "MODE", "auto")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    return native_toolchain


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


def test_a_wheel_for_another_machine(tree: Path) -> None:
    """Cross-compiled: the CPU library alone, tagged for that machine, which finds torch's libraries there."""
    cxx = "aarch64-linux-gnu-g++"
    need("arm", None if shutil.which(cxx) else f"{cxx} is not installed")
    name, files = wheel(tree, "cpu", CXX=cxx, FASTVOC_LABEL="1")
    assert name == "fastvoc-0.1.0+cpu-py3-none-linux_aarch64.whl"
    assert {file for file in files if "_C_" in file} == {"fastvoc/_C_cpu.so"}
    library = tree / "build" / "probe.so"
    with zipfile.ZipFile(tree / "dist" / name) as archive:
        library.write_bytes(archive.read("fastvoc/_C_cpu.so"))
        record = json.loads(archive.read("fastvoc/_build_info.json"))
    listing = subprocess.run(["readelf", "-h", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Machine: +AArch64", listing)
    assert {"libtorch_cpu.so", "libc10.so"} <= set(re.findall(r"NEEDED.*\[(.+)\]", listing))
    assert record["libraries"]["coder"]["left_out"] == "FASTVOC_BUILD=cpu for aarch64"


def test_without_the_coder_a_native_wheel_serves_every_python(tree: Path) -> None:
    compiler()
    shutil.rmtree(tree / "csrc/coder")
    name, files = wheel(tree, "auto")
    assert name.startswith("fastvoc-0.1.0-py3-none-linux_")
    assert CODER not in files


@pytest.mark.parametrize(("version", "archs"), [("12.6", "90"), ("12.8", "120"), ("13.0", "120"), ("13.2", "120")])
def test_targets_follow_from_the_toolkit(
    tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, archs: str
) -> None:
    nvcc = fake_nvcc(tmp_path, version)
    flags = tools.gencode(tools.archs_of(tools.toolkit(nvcc)))
    assert flags[:2] == ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90a,code=sm_90a"]
    assert f"compute_{archs}" in flags[-1].partition("code=")[2], "no PTX for later devices"
    assert not any(f"compute_{number}," in flag for flag in flags for number in ("50", "60", "70", "75"))
    monkeypatch.setenv("NVCC", nvcc)
    monkeypatch.setattr(tools, "MODE", "cuda")
    assert tools.label() == f"cu{version.replace('.', '')}"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert tools.archs_of(tools.toolkit(nvcc)) == "9.0"


def test_a_toolkit_that_wheels_do_not_know_has_no_label(
    tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVCC", fake_nvcc(tmp_path, "13.4"))
    monkeypatch.setattr(tools, "MODE", "cuda")
    with pytest.raises(SystemExit, match=r"not 13\.4"):
        tools.label()
    assert tools.archs_of((13, 4)) == tools.ARCHS[13, 2]
    with pytest.raises(tools.Unavailable, match=r"older than 12\.6"):
        tools.archs_of((12, 4))
    monkeypatch.setattr(tools, "MODE", "auto")
    with pytest.raises(SystemExit, match="FASTVOC_BUILD=cpu, or FASTVOC_BUILD=cuda"):
        tools.label()


def test_torch_is_found_without_importing_it(tools: ModuleType) -> None:
    assert tools.installed_torch() == (Path(torch.__file__).parent, torch.__version__, torch.version.cuda)
    command = tools.toolchain("cpu").compile
    given = [path for flag, path in pairwise(command) if flag == "-isystem"]
    assert given == include_paths()
    script = "import sys, native_toolchain as tools; tools.installed_torch(); assert 'torch' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "csrc"), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", script], env=env, check=True)


def test_auto_builds_for_cuda_only_where_it_can_be_used(
    tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler()
    monkeypatch.setenv("NVCC", fake_nvcc(tmp_path, "13.0"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    smi = tmp_path / "nvidia-smi"

    def driver_says(text: str, status: int = 0) -> None:
        smi.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
        smi.chmod(0o755)

    def torch_is_for(cuda: str | None) -> None:
        monkeypatch.setattr(tools, "installed_torch", lambda: (tmp_path, "2.11.0", cuda))

    def reason() -> str | None:
        try:
            tools.toolchain("cuda")
        except tools.Unavailable as error:
            return str(error)
        return None

    torch_is_for(None)
    for text, status in (("NVIDIA-SMI has failed", 9), ("No devices were found", 0)):
        driver_says(text, status)
        said = reason()
        assert said is not None
        assert "is no CUDA build and no GPU is visible (FASTVOC_BUILD=cuda builds it anyway)" in said
        assert "\n" not in said
    driver_says("GPU 0: NVIDIA H100 (UUID: GPU-0)")
    assert reason() is None
    driver_says("No devices were found")
    torch_is_for("13.0")
    assert reason() is None
    torch_is_for(None)
    monkeypatch.setattr(tools, "MODE", "cuda")
    assert reason() is None


def units_of(folder: Path, *flags: str, header: str | None = None) -> list[native_build.Unit]:
    """The units of two sources, of which the first includes shared.h; both begin with `header` where given."""
    units = []
    for name in ("a", "b"):
        source = folder / f"{name}.cpp"
        if not source.exists():
            source.write_text(('#include "shared.h"\n' if name == "a" else "") + f"int {name}() {{ return 2; }}\n")
        units.append(native_build.Unit("cpu", source, folder / f"{name}.o", [compiler(), *flags]))
    if header:
        first = native_build.Unit(
            "cpu", folder / header, folder / f"{header}.gch", [compiler(), *flags, "-x", "c++-header"]
        )
        for unit in units:
            unit.header = first
            unit.command += ["-include", str(folder / header)]
    return units


def test_ccache_keeps_what_begins_with_a_precompiled_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds of one tree, the second from ccache, header and unit; a third with another comment in the header."""
    cxx, ccache = compiler(), shutil.which("ccache")
    if ccache is None or "g++" not in Path(cxx).name:
        pytest.skip("ccache and g++ are not installed")
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("CCACHE_CONFIGPATH", os.devnull)
    monkeypatch.delenv("CCACHE_DISABLE", raising=False)
    root = tmp_path / "tree"
    (root / "csrc/cpu").mkdir(parents=True)
    (root / "csrc/cpu/glue.h").write_text("#pragma once\n#include <vector>\nstruct Glue {};  // one\n")
    (root / "csrc/cpu/unit.cpp").write_text('#include "glue.h"\nbool none(std::vector<int> x) { return x.empty(); }\n')
    monkeypatch.setattr(native_build, "ROOT", root)
    tools = native_toolchain.Toolchain([cxx, "-I", str(root / "csrc")], [], {"compiler": "g++"})
    monkeypatch.setattr(native_build, "toolchain", lambda name: tools)

    def hits() -> int:
        listing = subprocess.run([ccache, "--print-stats"], capture_output=True, text=True, check=True).stdout
        found = dict(line.split("\t") for line in listing.splitlines())
        return int(found["direct_cache_hit"]) + int(found["preprocessed_cache_hit"])

    for expected in (0, 2, 2):
        if hits():
            (root / "csrc/cpu/glue.h").write_text("#pragma once\n#include <vector>\nstruct Glue {};  // two\n")
        library = native_build.plan("cpu", tmp_path / "x.so", root / "objects")
        assert library.units[0].header is not None
        native_build.build([library])
        assert library.failure is None
        assert hits() == expected
        shutil.rmtree(root / "objects")


@pytest.mark.parametrize("header", [None, "all.h"])
def test_a_build_compiles_each_source_that_changed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str | None
) -> None:
    (tmp_path / "shared.h").write_text("inline int one() { return 1; }\n")
    (tmp_path / "deep.h").write_text("inline int deep() { return 1; }\n")
    (tmp_path / "all.h").write_text('#include "deep.h"\n')
    ran: list[str] = []
    real = native_build.run
    monkeypatch.setattr(native_build, "run", lambda command: (ran.append(Path(command[-3]).name), real(command)))
    monkeypatch.setenv("MAX_JOBS", "1")
    headers = [header] if header else []

    def build_all(*flags: str) -> list[str]:
        ran.clear()
        tools = native_toolchain.Toolchain([], [], {})
        library = native_build.Library(
            "cpu", tmp_path / "x.so", tmp_path, tools, units_of(tmp_path, *flags, header=header)
        )
        native_build.build([library])
        assert header not in ran[1:], "headers come first"
        assert library.failure is None
        return sorted(ran, key=lambda name: (name != header, name))  # which of the two took longer before is chance

    assert build_all() == [*headers, "a.cpp", "b.cpp"]
    assert build_all() == []
    later = max(path.stat().st_mtime for path in tmp_path.iterdir()) + 5
    os.utime(tmp_path / "shared.h", (later, later))
    assert build_all() == ["a.cpp"]
    os.utime(tmp_path / "shared.h", (0, 0))
    if header:
        os.utime(tmp_path / "deep.h", (later, later))
        assert build_all() == [header, "a.cpp", "b.cpp"]
        os.utime(tmp_path / "deep.h", (0, 0))
    assert build_all("-O1") == [*headers, "a.cpp", "b.cpp"]


def test_what_takes_longest_comes_first_whatever_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def compile_one(unit: native_build.Unit) -> float:
        ran.append(unit.source.name)
        if unit.source.name == "broken.cpp":
            raise native_toolchain.Unavailable("undeclared")
        return 1.5

    monkeypatch.setattr(native_build.Unit, "compile", compile_one)
    monkeypatch.setenv("MAX_JOBS", "1")
    tools = native_toolchain.Toolchain([], [], {})
    libraries = []
    for name, sources in (
        ("cpu", ["a.cpp", "isa_avx512_floats.cpp"]),
        ("coder", ["broken.cpp", "c.cpp"]),
        ("cuda", ["d.cu"]),
    ):
        units = [native_build.Unit(name, tmp_path / source, tmp_path / f"{source}.o", []) for source in sources]
        libraries.append(native_build.Library(name, tmp_path / name, tmp_path, tools, units))
    (tmp_path / "a.cpp.seconds").write_text("100.0")
    native_build.build(libraries)
    assert ran == ["a.cpp", "d.cu", "isa_avx512_floats.cpp", "broken.cpp"], (
        "what is left of a failed library is left alone"
    )
    assert [library.failure for library in libraries] == [None, "undeclared", None]
    assert "fastvoc: cpu/a.cpp: 1.5 s\n" in capsys.readouterr().out


def test_kernels_are_optimised_and_headers_are_compiled_once(
    tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler())
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = {"compiler": "g++ 12"}
    monkeypatch.setattr(native_build, "toolchain", lambda name: native_toolchain.Toolchain(["g++"], [], facts))

    def planned() -> dict[str, native_build.Unit]:
        library = native_build.plan("cpu", tmp_path / "x.so", tmp_path / "objects")
        return {unit.source.stem: unit for unit in library.units}

    monkeypatch.setattr(native_build, "target_machine", lambda: "aarch64")
    assert "-O3" in planned()["isa_portable_floats"].command
    monkeypatch.setattr(native_build, "target_machine", lambda: "x86_64")
    units = planned()
    assert "-O2" in units["isa_avx2_floats"].command
    ops = [unit for stem, unit in units.items() if not stem.startswith("isa_")]
    assert all("-O1" in unit.command for unit in ops)
    headers = {id(unit.header): unit.header for unit in units.values()}
    assert sorted(header.source.name for header in headers.values() if header) == ["glue.h", "std.h"]
    ccache = tmp_path / "ccache"
    ccache.write_text("")
    ccache.chmod(0o755)
    for unit in planned().values():
        assert unit.command[2:4] == [str(ccache), "g++"]
        assert unit.header is not None
    ccache.unlink()
    facts["compiler"] = "Debian clang version 14"
    assert all(unit.header is None for unit in planned().values())


def test_sources_of_ops_are_compiled_some_at_once(tmp_path: Path) -> None:
    sources = sorted((ROOT / "csrc/cpu").glob("*.cpp"))
    units = native_build.joined(sources, tmp_path)
    alone = [unit for unit in units if unit in sources]
    assert all(unit.stem.startswith("isa_") or unit.stem == "dispatch" for unit in alone)
    files = [unit for unit in units if unit not in sources]
    assert 0 < len(files) < 6
    included = [ROOT / "csrc" / name for file in files for name in re.findall(r'#include "(.+)"', file.read_text())]
    assert sorted([*alone, *included]) == sources
    assert native_build.joined(sources[:1], tmp_path) == sources[:1]
    before = files[0].stat().st_mtime_ns
    native_build.joined(sources, tmp_path)
    assert files[0].stat().st_mtime_ns == before, "an unchanged file is left alone"


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
    assert "left_out" not in libraries["coder"]
    assert "fastvoc: cpu/ops.cpp: failed" in done.stdout
    assert re.search(r"fastvoc: coder/module\.cpp: [\d.]+ s\n", done.stdout)
    assert (tree / "out" / CODER).exists()


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


def test_a_coder_for_another_python_leaves_the_one_in_python(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "fastvoc", tmp_path / "fastvoc", ignore=ignored)
    shutil.copytree(ROOT / "kernels", tmp_path / "fastvoc/kernels", ignore=ignored)
    (tmp_path / "fastvoc/_C_coder.cpython-39-x86_64-linux-gnu.so").write_text("")
    script = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in finder.__module__]
from fastvoc.ecdc import coder
from fastvoc.cli import main
print(coder.implementation().__name__)
main()
"""
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "300"}
    done = subprocess.run([sys.executable, "-P", "-c", script, "info"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fastvoc.ecdc.coder_python\n")
    said = "the coder is built for another Python (_C_coder.cpython-39-x86_64-linux-gnu.so)"
    assert f"{said}; .ecdc files are coded in Python" in done.stdout
