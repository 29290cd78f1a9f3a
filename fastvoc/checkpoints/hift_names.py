"""What the readers of the HiFTNet family share: sizes told by the tensors, and a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints.checkpoint import TensorEntry, refuse
from fastvoc.errors import ArgumentError
from fastvoc.models.hift_config import HiftConfig
from fastvoc.sound.mel import MelConfig

_WEIGHTS = ("weight", "weight_v", "parametrizations.weight.original1")
SIGNATURE = "m_source.l_linear.weight"


def weight_shape(path: Path, tensors: Mapping[str, TensorEntry], module: str, rank: int) -> tuple[int, ...]:
    """Shape of a module's weight, whole or as weight norm. Raises LoadError when it is missing or of another rank."""
    for suffix in _WEIGHTS:
        entry = tensors.get(f"{module}.{suffix}")
        if entry is not None and len(entry.shape) == rank and 0 not in entry.shape:
            return entry.shape
    raise refuse(path, f"no tensor '{module}.weight' of rank {rank}, by which the vocoder's size is known")


def sizes(path: Path, tensors: Mapping[str, TensorEntry]) -> dict[str, int]:
    """The widths that CosyVoice's constructors take, from tensors of CosyVoice's names."""
    channels, mels, _ = weight_shape(path, tensors, "conv_pre", 3)
    return {
        "base_channels": channels,
        "num_mels": mels,
        "n_fft": weight_shape(path, tensors, "conv_post", 3)[0] - 2,
        "harmonics": weight_shape(path, tensors, "m_source.l_linear", 2)[1] - 1,
        "f0_channels": weight_shape(path, tensors, "f0_predictor.condnet.0", 3)[0],
    }


def canonical_names(tensors: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Tensors of CosyVoice's names under those of `HiftNet`, vectors that the file stores with axes of 1 made flat."""
    named = {}
    for name, entry in tensors.items():
        name = name.replace("m_source.l_linear.", "m_source.", 1)
        if (
            (name == "m_source.weight" or name.endswith(".alpha"))
            and entry.shape
            and prod(entry.shape) == max(entry.shape)
        ):
            entry = replace(entry, shape=(prod(entry.shape),), read=partial(_read_flat, entry))
        named[name] = entry
    return named


def _read_flat(entry: TensorEntry) -> Tensor:
    return entry.read().flatten()


def hift_config(path: Path, base: HiftConfig, *, mel: MelConfig | None, **values: Any) -> HiftConfig:
    """A configuration like `base` but for `values`; a front end of another frame rate or size is left out.

    Raises LoadError for an illegal one.
    """
    try:
        config = replace(base, mel=None, **values)
        shape = (config.hop, config.sample_rate, config.num_mels)
        fits = mel is not None and (mel.hop_length, mel.sample_rate, mel.n_mels) == shape
        return replace(config, mel=mel if fits else None)
    except ArgumentError as error:
        raise refuse(path, f"illegal configuration: {error}") from None
