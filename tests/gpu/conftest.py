"""Workers of pytest-xdist end at a CUDA error, after which every call of the process fails: another one goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    yield
    if lost(call.excinfo) and "PYTEST_XDIST_WORKER" in os.environ:
        assert call.excinfo is not None
        print(f"{item.nodeid}: {call.excinfo.value}", file=sys.__stderr__, flush=True)
        os._exit(9)  # the test counts as failed


def lost(excinfo: Any) -> bool:
    """Whether a test ended with an error that the device does not recover from."""
    return excinfo is not None and "CUDA error" in str(excinfo.value)
