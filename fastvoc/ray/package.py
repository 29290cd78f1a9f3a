"""The package ray, which only this part of fastvoc needs."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastvoc.errors import FastvocError

if TYPE_CHECKING:
    from ray.data import Dataset

RETRIES = 8  # of a block that loses its worker: one that kills each must not go round forever


def import_ray(part: str) -> ModuleType:
    """`ray.data` or `ray.serve`. Raises FastvocError where it is not installed."""
    try:
        return importlib.import_module(f"ray.{part}")
    except ImportError as error:
        raise FastvocError(f'this needs Ray ({error}): pip install "fastvoc[ray]"') from error


def through_actors(
    dataset: Dataset,
    actor: type[Any],
    settings: Mapping[str, Any],
    workers: tuple[int, int],
    *,
    num_cpus: float,
    num_gpus: float | None,
) -> Dataset:
    """A dataset's blocks, each a whole table, through (least, most) actors that are made with these settings."""
    least, most = workers
    with warnings.catch_warnings():
        # Ray 2.60 asks for named arguments in the place of others, and has no name for this one.
        warnings.filterwarnings("ignore", ".*ray_remote_args. is deprecated")
        return dataset.map_batches(
            actor,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_kwargs=dict(settings),
            compute=import_ray("data").ActorPoolStrategy(min_size=least, max_size=most),
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_task_retries=RETRIES,
        )
