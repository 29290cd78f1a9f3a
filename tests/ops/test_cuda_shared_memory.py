"""Kernels that need more shared memory than every device grants: threads do not take it from each other."""

from __future__ import annotations

import subprocess
from pathlib import Path

from helpers import ROOT

RACES = ROOT / "tests" / "ops" / "emulation" / "races"


def test_threads_do_not_lower_what_another_launch_needs(compiler: str, tmp_path: Path) -> None:
    program = tmp_path / "races"
    command = [compiler, "-std=c++20", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", f"-I{RACES}"]
    command += [f"-I{ROOT / 'csrc'}", str(RACES / "shared_memory.cpp"), "-o", str(program)]
    subprocess.run(command, check=True)
    refused, settings = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert int(refused) == 0
    assert int(settings) == 2, "once for each device"


def test_nothing_else_sets_what_a_kernel_may_have() -> None:
    files = [path for path in (ROOT / "csrc" / "cuda").iterdir() if "cudaFuncSetAttribute" in path.read_text()]
    assert [path.name for path in files] == ["shared_memory.cuh"]
    launches = (ROOT / "csrc" / "cuda" / "platform.cuh").read_text()
    assert launches.count("allow_shared(kernel, shared);") == 2
