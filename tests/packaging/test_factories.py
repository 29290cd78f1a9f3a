"""No tensor outside of a layer's parameters takes its dtype or device from what the caller set for torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from helpers import ROOT

_WINDOWS = {f"{name}_window" for name in ("bartlett", "blackman", "hamming", "hann", "kaiser")}
_FLOATS = {"empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randn", "zeros", *_WINDOWS}
_TYPED_BY_VALUE = {"arange", "as_tensor", "asarray", "randint", "randperm", "scalar_tensor", "tensor"}
_OF_A_LAYER = {"Parameter", "register_buffer", "register_parameter"}  # these follow torch's defaults, as torch's do


def _missing(source: str) -> list[tuple[int, str]]:
    """Line and what is left to torch's defaults, for every call of a factory in a module."""
    return list(_of_node(ast.parse(source)))


def _of_node(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name, owner = node.func.attr, ast.unparse(node.func.value)
        if name in _OF_A_LAYER:
            return
        if owner == "torch" and name in _FLOATS | _TYPED_BY_VALUE:
            given = {keyword.arg for keyword in node.keywords}
            floats = any(isinstance(n, ast.Constant) and isinstance(n.value, float) for n in ast.walk(node))
            wanted = ["dtype", "device"] if name in _FLOATS or floats else ["device"]
            if None not in given and (lacking := [w for w in wanted if w not in given]):
                yield node.lineno, f"torch.{name} without {' and '.join(lacking)}"
    for child in ast.iter_child_nodes(node):
        yield from _of_node(child)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("torch.zeros(3)", ["torch.zeros without dtype and device"]),
        ("torch.hann_window(n, dtype=d)", ["torch.hann_window without device"]),
        ("torch.arange(n)", ["torch.arange without device"]),
        ("torch.tensor([1.0], device=d)", ["torch.tensor without dtype"]),
        ("torch.tensor([n], device=d)", []),
        ("torch.zeros(3, **kind)", []),
        ("x.new_zeros(3)", []),
        ("nn.Parameter(torch.empty(n))", []),
        (
            "f(torch.ones(g(torch.rand(n))))",
            ["torch.ones without dtype and device", "torch.rand without dtype and device"],
        ),
    ],
)
def test_a_factory_that_leaves_something_open_is_found(source: str, lines: list[str]) -> None:
    assert [problem for _, problem in _missing(source)] == lines


def test_tensors_are_made_with_a_dtype_and_a_device() -> None:
    files = [path for top in ("fastvoc", "kernels") for path in sorted((ROOT / top).rglob("*.py"))]
    assert len(files) > 100
    found = [f"{p.relative_to(ROOT)}:{line}: {what}" for p in files for line, what in _missing(p.read_text())]
    assert not found, "\n".join(found)
