"""The package ray, which only this part of fastvoc needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from fastvoc.errors import FastvocError

RETRIES = 8  # of a block that loses its worker: one that kills each must not go round forever


def import_ray(part: str) -> ModuleType:
    """`ray.data` or `ray.serve`. Raises FastvocError where it is not installed."""
    try:
        return importlib.import_module(f"ray.{part}")
    except ImportError as error:
        raise FastvocError(f'this needs Ray ({error}): pip install "fastvoc[ray]"') from error
