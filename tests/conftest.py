"""Fixtures and capability marks of the whole test-suite."""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import examples
import pytest
import tiers
import torch
import typer.main

import helpers

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported
    torch.manual_seed = torch.default_generator.manual_seed  # that of CUDA, to be set later, takes a millisecond

# A process has one command line; tests call it again and again, which reads the signatures of all commands.
typer.main.get_command = cache(typer.main.get_command)

LEFT = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier", choices=tiers.TIERS, help="run what `make test` or what `make check` runs, not all tests"
    )


def pytest_configure(config: pytest.Config) -> None:
    helpers.required()
    examples.load("quick" if config.getoption("tier") == "test" else "full")  # before tests are imported
    config.stash[LEFT] = Counter()
    gc.disable()  # all that is collected stays


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:], others, counts = tiers.choose(config.getoption("tier"), items)
    config.hook.pytest_deselected(items=others)
    config.stash[LEFT] = counts


def pytest_collection_finish() -> None:
    gc.freeze()  # a million objects: the collector would walk them again and again
    gc.enable()
    gc.set_threshold(20_000, 10, 20)  # every 700 objects, by default, it takes 6 % of the tests' time


def pytest_sessionfinish(session: pytest.Session) -> None:
    gc.unfreeze()  # other libraries count what is left when Python ends
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = dict(session.config.stash[LEFT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes what a worker of pytest-xdist left out."""
    node.config.stash[LEFT] = Counter(getattr(node, "workeroutput", {}).get("left", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    left = config.stash[LEFT]
    if config.getoption("tier") == "test" and left:
        told = ", ".join(f"{what} ({count})" for what, count in left.most_common())
        terminalreporter.write_line(f"{left.total()} tests are left to `make check` and `make soak`: {told}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        helpers.need("cuda", None if torch.cuda.is_available() else "no CUDA device")
    if item.get_closest_marker("native"):
        helpers.need_native()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def golden() -> Callable[[str], helpers.GoldenCase]:
    """`golden(name)` reads a case of the golden data."""
    return helpers.golden


@pytest.fixture
def nan_poison() -> Iterator[None]:
    """Memory that torch allocates, from Python or C++, starts as NaN (integers: their maximum)."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """`threads(n)` sets torch's number of threads, for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def compiler() -> str:
    """Path of the C++ compiler; skips, or fails under FASTVOC_REQUIRE=native, without one."""
    return helpers.compiler()


@pytest.fixture
def nvcc() -> str:
    """Path of nvcc; skips without it."""
    path = shutil.which("nvcc")
    if path is None:
        pytest.skip("nvcc is not installed")
    return path
