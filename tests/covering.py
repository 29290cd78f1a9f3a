"""A selection of a test's combinations of parameters in which every value of every parameter occurs."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
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


def covering(rows: Mapping[str, Values]) -> set[str]:
    """Names of rows, few and the same ones every time, that together have every value of all.

    Those in C++ have every value that occurs there: a fault of the kernels is not one of the reference.
    """
    chosen = set[str]()
    for pool in ([name for name in rows if NATIVE.search(name)], rows):
        order = sorted(pool, key=lambda name: crc32(name.encode()))
        missing = Values().union(*(rows[name] for name in order)).difference(*(rows[name] for name in chosen))
        while missing:
            best = max(order, key=lambda name: len(missing & rows[name]))
            chosen.add(best)
            missing -= rows[best]
    return chosen


def selection(items: Sequence[pytest.Item]) -> set[str]:
    """Ids of tests that cover their functions' parameters: all of a function that has one parameter or none."""
    functions: dict[str, dict[str, Values]] = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], {})[item.nodeid] = values(item)
    chosen = set[str]()
    for rows in functions.values():
        chosen |= covering(rows) if any(len(row) > 1 for row in rows.values()) else rows.keys()
    return chosen
