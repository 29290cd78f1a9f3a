"""Fixtures and capability marks of the whole test-suite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch

import helpers

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported


def pytest_configure(config: pytest.Config) -> None:
    helpers.required()


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
