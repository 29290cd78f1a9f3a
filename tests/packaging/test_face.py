"""What the package tells type checkers: the names that it has when it runs, and types that say more than Any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from helpers import ROOT

LAZY = ("fastvoc", "fastvoc.compat.transformers")
MOST_ANY = 42


def _tree(module: str) -> ast.Module:
    path = import_module(module).__file__
    assert path is not None
    return ast.parse(Path(path).read_text())


def _typed(module: str) -> set[tuple[str, str]]:
    """(Module, name) of what a type checker sees: `from module import name as name`."""
    blocks = [
        node for node in _tree(module).body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    found = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in found for alias in node.names), "only `as` exports to a checker"
    return {(str(node.module), alias.name) for node in found for alias in node.names}


@pytest.mark.parametrize("module", LAZY)
def test_checkers_see_what_is_imported(module: str) -> None:
    lazy = import_module(module)
    package = str(lazy.__package__)
    homes = {(f"{package}.{home}", name) for home, names in lazy._HOMES.items() for name in names}
    modules = {(f"{package}.{path}".rpartition(".")[0], name) for name, path in getattr(lazy, "_MODULES", {}).items()}
    assert _typed(module) == homes | modules
    public = [*(name for _, name in homes), *(["__version__"] if module == "fastvoc" else [])]
    assert lazy.__all__ == sorted(public)


def _any(folder: Path) -> Iterator[str]:
    """Every argument and result of a public function that is annotated as Any and nothing more."""
    for path in sorted(folder.rglob("*.py")):
        yield from (f"{path.relative_to(ROOT)}: {where}" for where in _any_in(ast.parse(path.read_text()).body, ""))


def _any_in(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _any_in(node.body, f"{prefix}{node.name}.")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            a = node.args
            given = [p for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if p is not None]
            annotated = [(p.arg, p.annotation) for p in given] + [("->", node.returns)]
            yield from (f"{prefix}{node.name} {n}" for n, t in annotated if t is not None and ast.unparse(t) == "Any")


def test_public_signatures_say_their_types() -> None:
    found = list(_any(ROOT / "fastvoc"))
    assert len(found) <= MOST_ANY, "\n".join([f"{len(found)} say Any, at most {MOST_ANY} may:", *found])
