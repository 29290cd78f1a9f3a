"""What holds for every file of the project: length, wording, documented variables, one version."""

from __future__ import annotations

import re

import pytest

from fastvoc.runtime import env
from helpers import ROOT, source_files

CODE = (".py", ".h", ".cpp", ".inc", ".cu", ".cuh")
TEXT = (*CODE, ".md", ".toml", ".yaml", ".yml", ".json", ".txt", "Makefile", "run")
LONGEST = 500


@pytest.mark.parametrize("suffix", CODE)
def test_files_stay_short(suffix: str) -> None:
    long = {
        str(path.relative_to(ROOT)): n for path in source_files(suffix) if (n := _lines(path.read_text())) > LONGEST
    }
    assert not long


def _lines(text: str) -> int:
    return text.count("\n")


def test_no_path_of_a_machine() -> None:
    machine = re.compile(r"(?<![\w.])/(work|root|home|tmp|Users)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files(*TEXT)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if machine.search(line) and path.name != "_build_info.json"
    ]
    assert not found


def test_every_variable_is_declared() -> None:
    declared = {variable.name for variable in env.VARIABLES}
    named = re.compile(r"\bFASTVOC_[A-Z]+\b(?!_)")
    used = {name for path in source_files(".py", ".md", "run", "Makefile") for name in named.findall(path.read_text())}
    assert used == {name for name in declared if name.startswith("FASTVOC_")}


def test_one_version() -> None:
    import fastvoc

    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert stated is not None
    assert fastvoc.__version__ == stated[1]
    assert f"[{stated[1]}]" in (ROOT / "CHANGELOG.md").read_text()
