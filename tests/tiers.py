"""The two tiers of tests: `make test` runs the first, `make check` the rest.

`pytest --tier=test` and `--tier=check` choose one; without the option everything runs. A test belongs to `check` when
a line of LEFT says so. Property tests run in both: with a few examples first, with all of theirs in `check`
(tests/examples.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

TIERS = ("test", "check")


@dataclass(frozen=True)
class Left:
    """Tests left to `make check`: those whose id, without `tests/`, begins with `where` and has no `but` in it."""

    what: str
    where: str
    but: str | None = None

    def has(self, name: str) -> bool:
        return bool(re.match(self.where, name)) and not (self.but and re.search(self.but, name))


LEFT = (
    Left("CUDA kernels, emulated", r"(ops|models)/test_cuda"),
    Left("Triton's compiler", r"ops/test_triton_ahead"),
    Left("Triton's interpreter", r"(ops|models)/test_triton"),
    Left("instruction sets of other machines", r".*::[^[]*instruction_set|reliability/test_golden_isas"),
    Left("source builds and wheels", r"packaging/test_build"),
    Left("64-bit Arm, emulated", r"arm/"),
    Left("sanitizers", r"reliability/test_(coder_)?sanit"),
)


def left_by(item: pytest.Item) -> Left | None:
    """The line that leaves a test to `make check`."""
    name = item.nodeid.removeprefix("tests/")
    return next((left for left in LEFT if left.has(name)), None)


def choose(tier: str | None, items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item], Counter[str]]:
    """The tests of a tier, the others, and how many of these there are by what they are."""
    chosen, others, counts = [], [], Counter[str]()
    for item in items:
        left = left_by(item)
        in_both = left is None and item.get_closest_marker("hypothesis") is not None
        if tier is None or in_both or (tier == "check") == (left is not None):
            chosen.append(item)
        else:
            others.append(item)
            counts[left.what if left else "make test"] += 1
    return chosen, others, counts
