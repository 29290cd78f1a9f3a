"""A training run small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvoc.training.config import TrainConfig
from fastvoc.training.data import Clips, find_clips
from fastvoc.training.trainer import Trainer

TINY: dict[str, Any] = {
    "batch_size": 2,
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "segment_size": 2048,
    "discriminator_width": 1 / 32,
    "mpd_periods": [2, 3],
    "msd_scales": 2,
    "ema_decay": 0.9,
    "lr_decay": 0.5,
    "gain_db": 6.0,
}


@pytest.fixture
def tiny_fields() -> dict[str, Any]:
    """The fields of `tiny`, as a file would give them."""
    return dict(TINY)


@pytest.fixture
def tiny() -> TrainConfig:
    """A configuration of all parts at their smallest."""
    return TrainConfig.from_dict(TINY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips of 0.2 to 0.4 s at 22.05 kHz: tones with noise."""
    folder = tmp_path / "clips"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i, length in enumerate((5000, 7000, 9000)):
        tone = np.sin(2 * np.pi * 150 * (i + 1) * np.arange(length) / 22050)
        np.save(folder / f"clip{i}.npy", (0.3 * tone + 0.02 * random.standard_normal(length)).astype(np.float32))
    return folder


@pytest.fixture
def trainer(tiny: TrainConfig, folder: Path) -> Trainer:
    """A trainer at step 0 on `folder`."""
    return Trainer(tiny, Clips(find_clips(folder), tiny))
