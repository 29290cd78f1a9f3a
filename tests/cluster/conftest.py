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

_TRIES = 3  # Ray gives its processes 30 s to start, which a busy machine may need


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
    """The package ray, connected to a cluster of this machine with two CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray", reason="ray is not installed")
        pytest.importorskip("ray.data", reason="ray[data] is not installed")
        # Sockets lie in the folder, and their names have to be short.
        with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            for left in reversed(range(_TRIES)):
                try:
                    ray.init(
                        num_cpus=2,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="error",
                        object_store_memory=200 << 20,
                        _temp_dir=folder,
                    )
                    break
                except Exception:
                    ray.shutdown()
                    if not left:
                        raise
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield ray
            ray.shutdown()
