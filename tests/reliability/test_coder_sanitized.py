"""The coder of bit streams under AddressSanitizer and UndefinedBehaviorSanitizer, fed with what damaged files hold."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from kept import kept

from helpers import ROOT, compiled, compiler

DRIVER = ROOT / "tests" / "reliability" / "coder_fuzz.cpp"
CODER = ROOT / "csrc" / "coder"
FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g", "-std=c++20"]
FLAGS += ["-Wall", "-Wextra", "-Werror"]


def build(target: Path, *sources: Path, flags: tuple[str, ...] = ()) -> Path:
    return compiled(target, *FLAGS, *flags, f"-I{ROOT / 'csrc'}", *sources)


@pytest.fixture(scope="module")
def driver() -> Path:
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    made_of = [version, *FLAGS, DRIVER, CODER]
    return kept("coder_fuzz", made_of, lambda path: build(path, DRIVER, CODER / "integer_lm.cpp"))


def attack(driver: Path, rounds: int, seed: int) -> None:
    done = subprocess.run([driver, str(rounds), str(seed)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]


def test_damaged_data(driver: Path) -> None:
    attack(driver, 20_000, 1)


@pytest.mark.slow
def test_ten_million_damaged_inputs(driver: Path) -> None:
    attack(driver, 10_000_000, 2)


@pytest.mark.slow
def test_the_compiled_module(tmp_path: Path) -> None:
    """The tests of the coder, of .ecdc streams and of the integer language model, on a build with the sanitizers."""
    import pybind11

    paths = [pybind11.get_include(), sysconfig.get_path("include")]
    package = tmp_path / "fastvoc"
    package.mkdir()
    for path in (ROOT / "fastvoc").iterdir():
        if not path.name.startswith("_C_coder"):
            (package / path.name).symlink_to(path)
    flags = ("-fPIC", "-shared", *(flag for path in paths for flag in ("-isystem", path)))
    sources = sorted(CODER.glob("*.cpp"))
    build(package / f"_C_coder{sysconfig.get_config_var('EXT_SUFFIX')}", *sources, flags=flags)
    libraries = [
        subprocess.run([compiler(), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    variables = {
        "ASAN_OPTIONS": "detect_leaks=0",
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": str(tmp_path),
        "FASTVOC_REQUIRE": "native",
    }
    tests = ("tests/test_coder.py", "tests/test_ecdc.py", "tests/models/test_integer_lm.py")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
