"""The instruction sets that the CPU library is built for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT

sys.path.append(str(ROOT / "csrc"))
import native_build
import native_toolchain
from fastvoc.runtime import library

AVX2, AVX512 = "sse4_2 fma avx2", "avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "built"),
    [
        ("sse4_2", ["portable"]),
        (AVX2, ["portable", "avx2"]),
        ("avx512f avx512bw avx512dq avx512vl", ["portable"]),
        (f"{AVX2} {AVX512} avx512_vnni", ["portable", "avx2", "avx512"]),
        (f"{AVX2} {AVX512} avx512_vnni avx512_bf16", list(native_toolchain.ISAS)),
        (None, list(native_toolchain.ISAS)),
    ],
)
def test_beside_its_sources_a_library_is_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, built: list[str]
) -> None:
    tools = native_toolchain
    monkeypatch.setattr(tools, "target_machine", platform.machine)
    monkeypatch.setattr(tools, "BEST_ISA", None)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: x\n" + (f"flags\t\t: fpu {flags}\n" if flags else ""))
    every = list(tools.ISAS)
    assert tools.isas(True, cpuinfo) == built
    assert tools.isas(False, cpuinfo) == every
    monkeypatch.setattr(tools, "BEST_ISA", "here")
    assert tools.isas(False, cpuinfo) == built
    monkeypatch.setattr(tools, "BEST_ISA", "avx512")
    assert tools.isas(True, cpuinfo) == every[:3]
    monkeypatch.setattr(tools, "BEST_ISA", None)
    monkeypatch.setattr(tools, "target_machine", lambda: "aarch64x")
    assert tools.isas(True, cpuinfo) == every


def test_the_instruction_sets_of_files_are_known() -> None:
    units = [path.stem for path in (ROOT / "csrc/cpu").glob("isa_*.cpp")]
    assert {native_build.isa_of(stem) for stem in units} == set(native_toolchain.ISAS)
    assert native_build.isa_of("isa_avx512_bf16_short") == "avx512_bf16"
    assert native_build.isa_of("isa") is None
    assert list(native_toolchain.ISAS) == list(library.ISAS)


@pytest.mark.parametrize("best", native_toolchain.ISAS)
def test_a_build_for_some_instruction_sets_leaves_the_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: str
) -> None:
    """The library is told the best that it has, so that it does not run what a processor has beyond that."""
    facts: dict[str, Any] = {"compiler": "g++ 12"}
    monkeypatch.setattr(native_build, "toolchain", lambda name: native_toolchain.Toolchain(["g++"], [], facts))
    every = list(native_toolchain.ISAS)
    number = every.index(best)
    planned = native_build.plan("cpu", tmp_path / "x.so", tmp_path / "objects", every[: number + 1])
    stems = {unit.source.stem: unit for unit in planned.units}
    assert {native_build.isa_of(stem) for stem in stems} == {None, *every[: number + 1]}
    assert facts["isas"] == every[: number + 1]
    assert f"-DFASTVOC_BEST_ISA={number}" in stems["dispatch"].command
    others = [unit for stem, unit in stems.items() if stem != "dispatch"]
    assert not any("FASTVOC_BEST_ISA" in word for unit in others for word in unit.command)


def test_an_unknown_instruction_set_is_refused() -> None:
    env = {**os.environ, "FASTVOC_TARGET": "avx3"}
    done = subprocess.run([sys.executable, "setup.py", "--version"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "FASTVOC_TARGET='avx3' is not one of here, portable, avx2, avx512, avx512_bf16" in done.stderr
