"""Selections of a test's combinations of parameters: with every value of each, or with every pair of values."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import combinations
from zlib import crc32

import pytest

Values = frozenset[tuple[str, Hashable]]
NATIVE = re.compile(r"[-\[]cpp[-\]]")  # in the id of a test that runs C++


def values(item: pytest.Item) -> Values:
    """What a test is given, by parameter; names that one `parametrize` lists together are one parameter."""
    callspec = getattr(item, "callspec", None)
    given: Mapping[str, object] = {} if callspec is None else callspec.params
    together = {name: name for name in given}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        listed = names.split(",") if isinstance(names, str) else names
        together |= {name.strip(): ",".join(listed) for name in listed}
    rows: dict[str, list[int]] = {}
    for name, value in given.items():
        rows.setdefault(together[name], []).append(id(value))  # values need not be hashable; a list has each once
    return frozenset((name, tuple(row)) for name, row in rows.items())


def covering(rows: Mapping[str, Values], at_once: int = 1, given: Iterable[str] = ()) -> set[str]:
    """Names of rows, few and the same ones every time, that together have every value of all, with those `given`.

    With `at_once` 2, every pair of values that occurs. Those in C++ have all that occurs there: a fault of the kernels
    is not one of the reference.
    """
    parts = {name: frozenset(map(frozenset, combinations(row, at_once))) for name, row in rows.items()}
    chosen = set(given)
    for pool in ([name for name in rows if NATIVE.search(name)], rows):
        order = sorted(pool, key=lambda name: crc32(name.encode()))
        missing = set[frozenset[Hashable]]().union(*(parts[name] for name in order))
        missing = missing.difference(*(parts[name] for name in chosen.intersection(order)))
        while missing:
            best = max(order, key=lambda name: len(missing & parts[name]))
            chosen.add(best)
            missing -= parts[best]
    return chosen


def by_function(items: Iterable[pytest.Item]) -> dict[str, dict[str, Values]]:
    """What tests are given, by their ids, by the function that they run."""
    functions: dict[str, dict[str, Values]] = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], {})[item.nodeid] = values(item)
    return functions


def selection(items: Iterable[pytest.Item]) -> set[str]:
    """Ids of tests that cover their functions' parameters: all of a function that has one parameter or none."""
    chosen = set[str]()
    for rows in by_function(items).values():
        chosen |= covering(rows) if any(len(row) > 1 for row in rows.values()) else rows.keys()
    return chosen


def beyond_pairs(items: Iterable[pytest.Item], first: Collection[str]) -> set[str]:
    """Ids of tests of three parameters or more that no pair of values needs, where those in `first` run anyway."""
    spare = set[str]()
    for rows in by_function(items).values():
        if any(len(row) > 2 for row in rows.values()):
            spare |= rows.keys() - covering(rows, 2, rows.keys() & first)
    return spare
