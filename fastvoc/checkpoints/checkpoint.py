"""What every checkpoint reader produces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import MelConfig


@dataclass(frozen=True)
class Origin:
    """Where a fact about a checkpoint comes from when no file of it says it; `why` in words.

    kind: "format" (upstream's classes fix it, or have it as their default), "name" (the folder or file is called as a
    published model), "caller" (an argument said it) or "assumed" (nothing says it).
    """

    kind: Literal["format", "name", "caller", "assumed"]
    why: str


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a file: its configuration and every tensor of it.

    `config` is that of a family in `fastvoc.models`; `state` has the names of its model, weight norm folded, float32.
    `format` names the dialect it came from; `metadata` says more about the origin, in words. `quantization` is "int8"
    when `state` holds an `input_range` for each layer that computes in int8 (`fastvoc.nn.quantized`). `origins` tells
    of the configuration's fields (`sample_rate`, `mel`) that were not read from a file. `stored` is the narrowest
    floating-point type in the file, of which some layers stay wider; None where that is not known.
    """

    config: Any
    state: dict[str, Tensor]
    format: str
    metadata: dict[str, str] = field(default_factory=dict)
    quantization: str | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    stored: torch.dtype | None = None

    @property
    def assumed(self) -> dict[str, str]:
        """Why, by the field of the configuration that is assumed; a front end that is not known is not assumed."""
        known = {name: o for name, o in self.origins.items() if getattr(self.config, name, None) is not None}
        return {name: origin.why for name, origin in known.items() if origin.kind == "assumed"}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file: what the file says it is, and how to get it. Nothing is allocated before `read`."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def refuse(path: Path, problem: str) -> LoadError:
    """The error of every reader: names the file and what is wrong with it."""
    return LoadError(f"{path}: {problem}")


def make_mel(path: Path, **values: Any) -> MelConfig:
    """A front end from the values in a file. Raises LoadError for an illegal one."""
    try:
        return MelConfig(**values)
    except ArgumentError as error:
        raise refuse(path, f"illegal front end: {error}") from None


def make_config(path: Path, *, mel: MelConfig | None, **values: Any) -> HifiGanConfig:
    """A generator's configuration from the values in a file; a front end with another frame rate is left out.

    Raises LoadError for an illegal one.
    """
    if mel is not None and (mel.hop_length, mel.sample_rate) != (prod(values["upsample_rates"]), values["sample_rate"]):
        mel = None
    try:
        return HifiGanConfig(mel=mel, **values)
    except ArgumentError as error:
        raise refuse(path, f"illegal configuration: {error}") from None
