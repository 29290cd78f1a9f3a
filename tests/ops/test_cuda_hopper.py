"""Hopper's instructions as the emulation has them: a product by them is right, and what is left out shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from helpers import ROOT, compiler

FOLDER = ROOT / "tests/ops/emulation"
ORDERS = [(early, backwards) for early in "01" for backwards in "01"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("hopper") / "cases"
    command = [compiler(), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command += ["-Wno-free-nonheap-object", f"-I{FOLDER}", f"-I{ROOT / 'csrc'}", str(FOLDER / "hopper_cases.cpp")]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def said(cases: Path, fault: str) -> list[str]:
    """What the program says, or what stopped it, in all orders of copies and threads."""
    runs = [subprocess.run([cases, fault, *order], capture_output=True, text=True, check=False) for order in ORDERS]
    return [run.stdout.strip() or run.stderr.strip().removeprefix("emulation: ") for run in runs]


def test_a_product_is_right_in_every_order(cases: Path) -> None:
    assert said(cases, "none") == ["right"] * 4


@pytest.mark.parametrize("fault", ["fence", "barrier", "wait", "overwrite"])
def test_wrong_numbers_in_every_order(cases: Path, fault: str) -> None:
    """Without a fence or barrier behind stores or a wait before sums are read, or with operands that change."""
    assert said(cases, fault) == ["wrong"] * 4


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("ready", "a barrier in memory is used before it is made known"),
        ("products_fence", "a product on sums that the threads had, without a fence"),
        ("empty", "more arrivals at a barrier than it waits for"),
        ("full", "more arrivals at a barrier than it waits for"),
        ("release", "wrong"),
    ],
)
def test_some_order_shows_a_missing_wait(cases: Path, fault: str, problem: str) -> None:
    """The waits between a ring's producer and its consumer count only where one of them is late."""
    assert problem in said(cases, fault)
