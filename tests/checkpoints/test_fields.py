"""Fields of an untrusted mapping, and HyperPyYAML's references among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvoc.checkpoints.text import Fields


@pytest.mark.parametrize(("references", "found"), [(0, 5), (1, 5), (8, 5), (9, None)])
def test_a_value_is_found_over_eight_references(references: int, found: int | None) -> None:
    chain: list[object] = [*(f"<n{i}>" for i in range(1, references + 1)), 5]
    names = {f"n{i}": value for i, value in enumerate(chain) if i}
    assert Fields({"rate": chain[0]}, Path("x.yaml"), names=names).get("rate") == found


def test_references_to_nothing_and_in_a_circle_are_nothing() -> None:
    fields = Fields({"lost": "<nowhere>", "round": "<a>"}, Path("x.yaml"), names={"a": "<b>", "b": "<a>"})
    assert fields.get("lost") is None
    assert "round" not in fields
    assert Fields({"plain": "<a>"}, Path("x.yaml")).get("plain") == "<a>"
