"""The tiers of the tests, their property tests' examples, and what tests keep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import examples
import kept
import pytest
import tiers
from hypothesis import settings

from helpers import ROOT


def written() -> list[str]:
    """Every test function of the suite as `path::name`, read from the files."""
    folder = ROOT / "tests"
    return [
        f"{path.relative_to(folder)}::{name}"
        for path in sorted(folder.rglob("test_*.py"))
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    ]


@pytest.mark.parametrize("left", tiers.LEFT, ids=lambda left: left.what)
def test_every_line_of_the_table_has_tests(left: tiers.Left) -> None:
    assert any(re.match(left.where, name) for name in written())


def item(name: str, *marks: str) -> pytest.Item:
    found = SimpleNamespace(nodeid=f"tests/{name}", get_closest_marker=lambda mark: mark if mark in marks else None)
    return cast(pytest.Item, found)


def test_every_test_is_in_one_tier_and_property_tests_in_both() -> None:
    first, rest = item("ops/test_ops.py::test_a[x]"), item("ops/test_cuda_blocks.py::test_b")
    both, only_rest = item("test_coder.py::test_c", "hypothesis"), item("arm/test_arm.py::test_d", "hypothesis")
    items = [first, rest, both, only_rest]
    assert tiers.choose(None, items)[0] == items
    chosen, others, counts = tiers.choose("test", items)
    assert (chosen, others) == ([first, both], [rest, only_rest])
    assert counts == {"CUDA kernels, emulated": 1, "64-bit Arm, emulated": 1}
    assert tiers.choose("check", items)[0] == [rest, both, only_rest]


def test_what_a_line_keeps_runs_first() -> None:
    left = tiers.Left("x", r"ops/test_x\.py::", but=r"\[small")
    assert left.has("ops/test_x.py::test_a[large]")
    assert not left.has("ops/test_x.py::test_a[small-cpp]")
    assert not left.has("models/test_x.py::test_a")


@pytest.fixture
def profile() -> Iterator[None]:
    before = settings.get_current_profile_name()
    yield
    examples.load(before)


@pytest.mark.usefixtures("profile")
def test_the_profile_decides_how_many_examples() -> None:
    examples.load("full")
    assert examples.examples(30).max_examples == 30
    examples.load("quick")
    assert examples.examples(30).max_examples == 5
    assert examples.examples(1).max_examples == 1


def test_what_is_kept_is_made_again_when_its_sources_change(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    source, made = tmp_path / "source" / "a.h", []
    source.parent.mkdir()
    source.write_text("1")

    def make(path: Path) -> None:
        made.append(path)
        path.write_text(source.read_text())

    for text in ("1", "1", "2", "1"):
        source.write_text(text)
        assert kept.kept("a.so", ["-O2", source.parent], make).read_text() == text
    assert len(made) == 2
    kept.kept("a.so", ["-O3", source.parent], make)
    assert len(made) == 3
    monkeypatch.setattr(kept, "STALE", -1)
    kept.kept("a.so", ["-O1", source.parent], make)
    assert len(list((tmp_path / "kept").glob("*/a.so"))) == 1


def test_what_could_not_be_made_is_not_kept(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        kept.kept("b.so", ["x"], fail)
    assert kept.kept("b.so", ["x"], lambda path: path.write_text("whole")).read_text() == "whole"
