"""What the package declares of its native ops and what the libraries read of a call are the same."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules

import pytest

import fastvoc.ops
from fastvoc.runtime.library import SCHEMAS
from helpers import ROOT

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


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
