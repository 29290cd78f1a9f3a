"""The names of the package."""

from __future__ import annotations

import re

import pytest
import torch

import fastvoc
import fastvoc.explanation
from fastvoc.errors import ArgumentError
from fastvoc.runtime import threads
from helpers import ROOT


def test_every_name_is_there() -> None:
    for name in fastvoc.__all__:
        assert getattr(fastvoc, name) is not None
        assert name in dir(fastvoc)
    assert callable(fastvoc.explain)
    with pytest.raises(AttributeError, match="no attribute 'vocode'"):
        _ = fastvoc.vocode


def test_version_is_that_of_the_project() -> None:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    assert fastvoc.__version__ == found[1]


def test_set_num_threads() -> None:
    before = torch.get_num_threads()
    try:
        fastvoc.set_num_threads(3)
        assert torch.get_num_threads() == 3
        for bad in (0, -1, 1.5, True, "2"):
            with pytest.raises(ArgumentError, match="count: expected a positive integer"):
                threads.set_num_threads(bad)  # type: ignore[arg-type]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
