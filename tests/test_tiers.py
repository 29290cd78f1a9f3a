"""The tiers of the tests, their property tests' examples, and what tests keep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import examples
import kept
import pytest
import tiers
from hypothesis import settings

from helpers import ROOT


@cache
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


class Item:
    """What the tiers read of a test: `axes` are the names that were parametrized together, `given` their values."""

    def __init__(self, name: str, *marks: str, axes: tuple[str, ...] = (), given: dict[str, object] | None = None):
        self.nodeid, self.marks, self.axes = f"tests/{name}", marks, axes
        self.callspec = SimpleNamespace(params=given or {})

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None

    def iter_markers(self, name: str) -> Iterator[pytest.Mark]:
        return (getattr(pytest.mark, name)(axis, []).mark for axis in self.axes)


def item(name: str, *marks: str, **options: Any) -> pytest.Item:
    return cast(pytest.Item, Item(name, *marks, **options))


def product(name: str, axes: dict[str, list[tuple[object, ...]]]) -> list[pytest.Item]:
    """A test with every combination of the values of parameters, which may be several names each: `"a,b"`."""
    found = []
    for rows in itertools.product(*axes.values()):
        names = [part for axis in axes for part in axis.split(",")]
        given = dict(zip(names, itertools.chain(*rows), strict=True))
        found.append(item(f"{name}[{'-'.join(map(str, given.values()))}]", axes=tuple(axes), given=given))
    return found


FAMILIES, BACKENDS = [("a",), ("b",), ("c",), ("d",), ("e",)], [("torch",), ("cpp",)]


def test_the_first_tier_has_every_value_of_every_parameter() -> None:
    items = product("models/test_x.py::test_y", {"family": FAMILIES, "backend": BACKENDS, "chunk": [(1,), (7,)]})
    chosen, others, counts = tiers.choose("test", items)
    names = [one.nodeid for one in chosen]
    parts = {part for name in names for part in re.split(r"\W", name)}
    assert parts >= {"a", "b", "c", "d", "e", "torch", "cpp", "1", "7"}
    assert {name.partition("[")[2][0] for name in names if "cpp" in name} == set("abcde"), "C++ has every value"
    assert len(names) == len(FAMILIES) + 1
    assert set(tiers.choose("check", items)[0]) <= set(others)
    assert tiers.choose("test", items[::-1])[0] == chosen[::-1], "workers must choose the same"
    assert counts.total() == len(items) - len(chosen)


def test_both_tiers_have_every_pair_of_values_and_those_in_cpp_every_pair_there() -> None:
    axes = {"family": FAMILIES, "backend": BACKENDS, "chunk": [(1,), (7,)], "rate": [(8,), (16,), (48,)]}
    items = product("models/test_x.py::test_y", axes)
    chosen = [one for tier in tiers.TIERS for one in tiers.choose(tier, items)[0]]
    assert len(set(chosen)) == len(chosen) < len(items) / 2 + 5
    assert tiers.choose(None, items)[0] == items

    def pairs(of: list[pytest.Item]) -> set[Any]:
        return {pair for one in of for pair in itertools.combinations(cast(Item, one).callspec.params.items(), 2)}

    assert pairs(chosen) == pairs(items)
    assert pairs([one for one in chosen if "cpp" in one.nodeid]) == pairs([one for one in items if "cpp" in one.nodeid])
    two = product("models/test_x.py::test_z", {"family": FAMILIES, "chunk": [(1,), (7,)]})
    assert {tier: len(tiers.choose(tier, two)[0]) for tier in tiers.TIERS} == {"test": 5, "check": 5}
    whole = product("models/test_x.py::test_golden", axes)
    assert len(tiers.choose("test", whole)[0]) == len(whole)


def test_rows_that_are_listed_stay_whole() -> None:
    listed: list[tuple[object, ...]] = [("s16", 1), ("s16", 2), ("s24", 1), ("s24", 2)]
    items = product("models/test_x.py::test_y", {"kind,size": listed})
    assert tiers.choose("test", items)[0] == items
    items = product("models/test_x.py::test_y", {"kind,size": listed, "backend": BACKENDS})
    chosen = tiers.choose("test", items)[0]
    assert len(chosen) == len(listed) + 1
    assert {one.nodeid.partition("[")[2][:5] for one in chosen} == {"s16-1", "s16-2", "s24-1", "s24-2"}


def test_what_says_that_a_model_is_right_runs_whole() -> None:
    items = product("models/test_x.py::test_golden", {"family": FAMILIES, "backend": BACKENDS})
    assert tiers.choose("test", items)[0] == items


def test_every_test_is_in_one_tier_and_property_tests_in_both() -> None:
    first, rest = item("ops/test_ops.py::test_a[x]"), item("ops/test_cuda_blocks.py::test_b")
    both, only_rest = item("test_coder.py::test_c", "hypothesis"), item("arm/test_arm.py::test_d", "hypothesis")
    items = [first, rest, both, only_rest]
    assert tiers.choose(None, items)[0] == [only_rest, first, rest, both], "long ones begin"
    chosen, others, counts = tiers.choose("test", items)
    assert (chosen, others) == ([first, both], [rest, only_rest])
    assert counts == {"CUDA kernels, emulated": 1, "64-bit Arm, emulated": 1}
    assert tiers.choose("check", items)[0] == [only_rest, rest, both]


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
    assert examples.examples(30).max_examples == 2
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
