"""The command as a whole: help, versions, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from command_line import Run

import fastvoc
from fastvoc import loading
from fastvoc.errors import LoadError
from fastvoc.runtime import env
from fastvoc.runtime import library as _library
from helpers import ROOT

COMMANDS = ("vocode", "speak", "encode", "decode", "info", "models", "convert", "export", "train")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"Example: fastvoc {command}" in result.out


def test_help_names_the_commands(run: Run) -> None:
    for arguments in ((), ("--help",)):
        result = run(*arguments)
        assert result.code == 0
        assert all(f"\n  {command} " in result.out for command in COMMANDS)


def test_version(run: Run) -> None:
    assert run("--version").out == f"fastvoc {fastvoc.__version__}\n"


def test_help_needs_no_torch() -> None:
    code = "import sys, fastvoc.cli; print({'torch', 'numpy', 'soundfile', 'rich.table'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_unknown_command(run: Run) -> None:
    result = run("sing")
    assert result.code == 2
    assert result.err.startswith("error: No such command 'sing'")
    assert result.err.count("\n") == 1


def test_info(run: Run) -> None:
    result = run("info")
    assert result.code == 0, result.err
    for text in (
        fastvoc.__version__,
        "torch",
        "CPU",
        "conv1d",
        "upsample",
        "mrf",
        "hifigan",
    ):
        assert text in result.out
    for variable in env.VARIABLES:
        assert variable.name in result.out


def test_the_list_of_ops_is_that_of_the_package(run: Run) -> None:
    """docs/ops.md is what `fastvoc info --ops` prints."""
    listed = run("info", "--ops")
    assert listed.code == 0
    assert listed.out == (ROOT / "docs" / "ops.md").read_text()
    modules = {path.stem for path in (ROOT / "fastvoc" / "ops").glob("*.py") if "= define(" in path.read_text()}
    assert set(re.findall(r"^\| `(\w+)` \|", listed.out, re.MULTILINE)) == modules


def test_the_list_of_ops_takes_no_model(run: Run) -> None:
    result = run("info", "hifigan", "--ops")
    assert result.code == 2
    assert "takes no model" in result.err


def test_info_tells_what_was_built_and_why_not_the_rest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record: dict[str, Any] = {
        "mode": "auto",
        "git": "0123abc",
        "libraries": {
            "cpu": {"compiler": "g++ 14", "torch": "2.13.0"},
            "cuda": {"left_out": "nvcc not found (set CUDA_HOME or NVCC)\nmore"},
        },
    }
    monkeypatch.setattr(_library, "build_record", lambda: record)
    said = run("info").out
    assert "FASTVOC_BUILD=auto, revision 0123abc" in said
    assert "g++ 14, with torch 2.13.0" in said
    assert "cuda  left out: nvcc not found (set CUDA_HOME or NVCC)\n" in said
    record["libraries"]["cpu"]["isas"] = ["portable", "avx2"]
    assert "g++ 14, for portable, avx2, with torch 2.13.0" in run("info").out
    record["libraries"]["cuda"] = {"compiler": "g++ 14", "cuda": "13.0", "archs": "8.0;12.0+PTX", "torch": "2.13.0"}
    assert "g++ 14, CUDA 13.0 for 8.0;12.0+PTX, with torch 2.13.0" in run("info").out
    monkeypatch.setattr(_library, "build_record", lambda: None)
    assert "these are the sources" in run("info").out


def test_info_gives_the_reasons_of_a_forced_backend(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", "torch")
    result = run("info")
    assert re.search("mrf +torch; .*not cpp: backend 'torch' is forced", result.out)
    assert re.search("FASTVOC_BACKEND +torch", result.out)
    monkeypatch.setenv("FASTVOC_BACKEND", "abacus")
    result = run("info")
    assert result.code == 2
    assert "FASTVOC_BACKEND: unknown backend 'abacus'" in result.err


def test_tracebacks_only_on_demand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LoadError("a reason\nin two lines")

    monkeypatch.setattr(loading, "list_models", fail)
    assert run("models").err == "error: a reason in two lines\n"
    monkeypatch.setenv("FASTVOC_DEBUG", "1")
    with pytest.raises(LoadError):
        fastvoc.cli.main(["models"])


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "list_models", interrupt)
    result = run("models")
    assert (result.code, result.err.strip()) == (130, "error: interrupted")
