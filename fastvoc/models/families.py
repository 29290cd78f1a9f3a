"""The model families: what a configuration is called in a file, and the classes that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fastvoc.errors import ArgumentError
from fastvoc.models.checks import Tensors
from fastvoc.nn.model import Model
from fastvoc.sound.mel import MelConfig

_Config = TypeVar("_Config", bound="Config")

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

    def tensors(self) -> Tensors:
        """Name and shape of every tensor of the model's state, in its order, without allocating any."""


def frozen(value: object) -> object:
    """A value with tuples in the place of its lists, of those inside of them, too."""
    return tuple(map(frozen, value)) if type(value) is list or type(value) is tuple else value


class Config:
    """What the configurations of all families have in common; each is a frozen dataclass, with a front end in `mel`."""

    def freeze(self) -> None:
        """Makes tuples of the lists in its fields, as they come from files; for constructors."""
        for field in fields(self):  # type: ignore[arg-type]  # a dataclass
            object.__setattr__(self, field.name, frozen(getattr(self, field.name)))

    def tensors(self) -> Tensors:
        """Name and shape of every tensor of the model's state, in its order, without allocating any."""
        yield from _tensors(self)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # a dataclass

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any]) -> _Config:
        """Reads what `to_dict` wrote. Raises ArgumentError naming an unknown or bad field."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
        if unknown := sorted(set(values) - known):
            raise ArgumentError(f"{cls.__name__}: unknown field {unknown[0]!r}")
        if (mel := values.get("mel")) is not None:
            if not isinstance(mel, Mapping):
                raise ArgumentError(f"{cls.__name__}.mel: got {mel!r}, expected the fields of a front end")
            values = {**values, "mel": MelConfig.from_dict(mel)}
        make: Any = cls
        made: _Config = make(**values)
        return made


@lru_cache(maxsize=64)
def _tensors(config: ModelConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(tensor.shape)) for name, tensor in meta_model(config).state_dict().items())


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
