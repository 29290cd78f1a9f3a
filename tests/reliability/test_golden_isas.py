"""The golden cases of every model under the instruction sets that other machines have."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from fastvoc.runtime import library as _library
from helpers import ROOT, golden_folder, need, need_isa

pytestmark = pytest.mark.native


@pytest.mark.golden
@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_golden_cases(isa: str) -> None:
    need_isa(isa)
    if isa == _library.cpu_isa():
        pytest.skip(f"the golden cases of this very run are those of {isa}")
    need("golden", None if golden_folder().is_dir() else f"no golden data in {golden_folder()}")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "golden and not slow"]
    done = subprocess.run(
        [*command, "-k", "cpp", "tests/models", "tests/test_codec.py"],
        cwd=ROOT,
        env={**os.environ, "FASTVOC_ISA": isa, "FASTVOC_GOLDEN": str(golden_folder())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 40
