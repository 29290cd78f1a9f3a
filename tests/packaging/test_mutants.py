"""The mutants of `tests/mutants.py` still fit the tree, though few runs of tests have the time to try them."""

from __future__ import annotations

import ast
import shlex
from collections import Counter

import mutants
import pytest
import tiers

from helpers import ROOT


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.file)
def test_a_mutant_changes_the_code_and_names_tests(mutant: mutants.Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    changed = mutant.applied(text)
    assert changed != text
    if mutant.file.endswith(".py"):
        ast.parse(changed)
    words = shlex.split(mutant.tests)
    paths = [word for word in words if word.startswith("tests/")]
    assert paths
    assert all((ROOT / path).exists() for path in paths)
    assert words[len(paths) :][:1] in ([], ["-k"])
    assert mutant.tier in tiers.TIERS


def test_mutants_are_of_all_kinds() -> None:
    kinds = Counter(
        "/".join(mutant.file.split("/")[: 2 if mutant.file.startswith("fastvoc/") else 1]) for mutant in mutants.MUTANTS
    )
    assert len(mutants.MUTANTS) >= 20
    assert {"kernels", "csrc", "fastvoc/models", "fastvoc/streams", "fastvoc/checkpoints"} <= set(kinds)
    assert kinds["csrc"] <= 10, "each wants a compiler"


def test_a_mutant_that_the_tree_has_outgrown_is_told() -> None:
    mutant = mutants.MUTANTS[0]
    with pytest.raises(mutants.Stale, match="0 times"):
        mutant.applied("")
    with pytest.raises(mutants.Stale, match="2 times"):
        mutant.applied(mutant.old * 2)
