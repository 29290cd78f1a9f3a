"""One local Ray of two workers for all tests that want one, and a small vocoder."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc.loading import load, save
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.sound.mel import HIFIGAN_22K
from fastvoc.vocoder import Vocoder
from helpers import need_ray


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random HiFi-GAN of some thousand weights, hop 256."""
    torch.manual_seed(3)
    config = HifiGanConfig(upsample_initial_channel=32, mel=HIFIGAN_22K)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save(Vocoder(HifiGan(config), config, config.mel), path)
    return path


@pytest.fixture(scope="session")
def voc(model: Path) -> Vocoder:
    return load(model)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The package ray, connected to a cluster of this machine with two CPUs, or to the one at RAY_ADDRESS."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        need_ray()
        import ray
        import ray.data

        quiet = {"log_to_driver": False, "logging_level": "error"}
        # Sockets lie in the folder, and their names have to be short.
        with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**quiet)
            else:
                _begin(ray, quiet, folder)
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield ray
            ray.shutdown()


def _begin(ray: Any, quiet: dict[str, Any], folder: str, tries: int = 3) -> None:
    """Ray gives its processes 30 s to start, which on a busy machine may not be enough."""
    try:
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, _temp_dir=folder, **quiet)
    except Exception:
        ray.shutdown()
        if tries == 1:
            raise
        _begin(ray, quiet, folder, tries - 1)
