"""What the package declares of its native ops and what the libraries read of a call are the same."""

from __future__ import annotations

import re
import subprocess
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch

import fastvoc.ops
from fastvoc.errors import BackendError
from fastvoc.ops.conv1d import Conv1dParams, conv1d
from fastvoc.runtime import library
from fastvoc.runtime.library import SCHEMAS
from helpers import ROOT, compiler

READS = {
    "Tensor": "tensor",
    "Tensor?": "maybe",
    "Tensor[]": "tensors",
    "int[]": "ints",
    "float[]": "doubles",
    "int": "integer",
    "float": "number",
    "bool": "flag",
}
BARE = ("cpu_isa", "limit_isa")


def _declared() -> dict[str, list[tuple[str, str]]]:
    """Of every op the arguments of its schema: how the libraries read one, and its name."""
    for module in iter_modules(fastvoc.ops.__path__):
        import_module(f"fastvoc.ops.{module.name}")
    found = {}
    for schema in SCHEMAS:
        name, arguments = re.match(r"(\w+)\((.*)\) ->", re.sub(r"\(\w!\)", "", schema)).groups()  # type: ignore[union-attr]
        words = [argument.removesuffix("=None").split(" ") for argument in arguments.split(", ") if argument]
        found[name] = [(READS[kind], argument) for kind, argument in words]
    return {name: arguments for name, arguments in found.items() if name not in BARE and not name.startswith("triton_")}


def _read() -> dict[str, list[tuple[str, str]]]:
    """The same as csrc/common/calls.h has it, structures by name."""
    found: dict[str, list[tuple[str, str]]] = {}
    text = (ROOT / "csrc/common/calls.h").read_text()
    for name, base, body in re.findall(r"^struct (\w+) : (\w+) {\n(.*?)^};", text, re.MULTILINE | re.DOTALL):
        fields = re.findall(r"(\w+) = (\w+)\(\)", body)
        found[name] = found.get(base, []) + [(read.removeprefix("long_"), field) for field, read in fields]
    return found


DECLARED = _declared()


def test_every_structure_is_an_ops() -> None:
    wanted = {f"{_camel(name)}Call" for name in DECLARED}
    assert {name for name in _read() if name.endswith("Call")} == wanted


@pytest.mark.parametrize("name", DECLARED)
def test_calls_are_read_as_declared(name: str) -> None:
    assert _read()[f"{_camel(name)}Call"] == DECLARED[name]


def test_the_libraries_say_which_calls_they_read() -> None:
    """Whoever changes the calls writes what is expected here in both places."""
    code, _, end = (ROOT / "csrc/common/calls.h").read_text().partition("// Of all code above")
    digest = sha256("".join(re.sub(r"//.*", "", code).split()).encode()).hexdigest()[:16]
    assert re.findall(r'calls_digest\[\] = "(\w+)"', end) == [digest]
    assert digest == library.CALLS


@pytest.mark.parametrize("name", ["calls_digest", "unknown_to_us"])
def test_a_library_of_other_sources_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside newer Python files; also one from before libraries said what they read."""
    source = tmp_path / "stale.cpp"
    source.write_text(f'extern "C" {{ extern const char {name}[]; const char {name}[] = "0123"; }}')
    subprocess.run([compiler(), "-shared", "-fPIC", str(source), "-o", str(tmp_path / "_C_cpu.so")], check=True)
    monkeypatch.setattr(library, "_HERE", tmp_path)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"_C_cpu\.so: built from other sources .* build it again"):
            library.cpu_problem.__wrapped__()
    monkeypatch.setattr(library, "cpu_problem", library.cpu_problem.__wrapped__)
    params = Conv1dParams(torch.ones(2, 3, 1), torch.zeros(2))
    with pytest.raises(BackendError, match="build it again"):
        conv1d(torch.zeros(1, 3, 4), params)
    assert conv1d(torch.zeros(1, 3, 4), params, backend="torch").shape == (1, 2, 4)


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
