"""The model families: what a configuration is called in a file, and the classes that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fastvoc.errors import ArgumentError
from fastvoc.nn.model import Model

# Family: module, configuration, model.
_FAMILIES = {
    "bigvgan": ("bigvgan", "BigVganConfig", "BigVgan"),
    "dac": ("dac", "DacConfig", "Dac"),
    "encodec": ("encodec", "EncodecConfig", "Encodec"),
    "mimi": ("mimi", "MimiConfig", "Mimi"),
    "hifigan": ("hifigan", "HifiGanConfig", "HifiGan"),
    "encodec_lm": ("encodec_lm", "EncodecLmConfig", "EncodecLm"),
    "snac": ("snac", "SnacConfig", "Snac"),
    "univnet": ("univnet", "UnivNetConfig", "UnivNet"),
    "vocos": ("vocos", "VocosConfig", "Vocos"),
    "hiftnet": ("hiftnet", "HiftConfig", "HiftNet"),
    "kokoro": ("kokoro", "KokoroConfig", "Kokoro"),
    "nsf_hifigan": ("nsf_hifigan", "NsfHifiGanConfig", "NsfHifiGan"),
}


class ModelConfig(Protocol):
    """What every family's configuration offers; `family` is a class variable."""

    family: ClassVar[str]

    @property
    def sample_rate(self) -> int:
        """Samples per second."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of the model's state, in its order, without allocating any."""


def config_from_dict(family: str, values: dict[str, Any]) -> ModelConfig:
    """The configuration that `to_dict` of a family wrote. Raises ArgumentError for an unknown family or bad field."""
    if family not in _FAMILIES:
        raise ArgumentError(f"unknown model family {family!r}, expected one of {', '.join(_FAMILIES)}")
    module, config, _ = _FAMILIES[family]
    made: ModelConfig = getattr(import_module(f"fastvoc.models.{module}"), config).from_dict(values)
    return made


def build(config: ModelConfig) -> Model:
    """The model of a configuration, its weights not yet loaded."""
    module, _, model = _FAMILIES[config.family]
    made: Model = getattr(import_module(f"fastvoc.models.{module}"), model)(config)
    return made


class _Undrawn(TorchFunctionMode):
    """Leaves normal numbers undrawn: for tensors without memory torch would import its compiler to draw them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func is nn.init.normal_ and "tensor" in given else func(*args, **given)


def meta_model(config: ModelConfig) -> Model:
    """The model of a configuration whose tensors have no memory."""
    with torch.device("meta"), _Undrawn():
        return build(config)


def meta_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """`ModelConfig.tensors` for any family, from a model whose tensors have no memory."""
    for name, tensor in meta_model(config).state_dict().items():
        yield name, tuple(tensor.shape)
