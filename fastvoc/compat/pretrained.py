"""What the transformers-style classes share: configurations and weights that are read from a folder or the hub."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fastvoc import hub
from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.checkpoints.source import read_small
from fastvoc.checkpoints.text import parse_json
from fastvoc.compat.json_values import ConfigValues
from fastvoc.compat.model_facts import ModelFacts
from fastvoc.compat.upstream import Upstream
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.io import atomic_path, given_path
from fastvoc.loading import SkipInit, parse_dtype

_Config = TypeVar("_Config", bound="PretrainedConfig")
_Model = TypeVar("_Model", bound="PretrainedModel")
_CONFIG = "config.json"


def folder_of(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a model: itself, or where the hub's files lie. Raises LoadError when it is neither."""
    path = given_path(name)
    if path.is_dir():
        return path
    text = os.fspath(name) if revision is None else f"{os.fspath(name)}@{revision}"
    if not hub.is_hub_id(text):
        raise LoadError(f"{text}: no such folder, and no hub id `owner/name`")
    return hub.fetch(text)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a text file of a folder. Raises LoadError."""
    path = folder / name
    try:
        return parse_json(read_small(path), path)
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror or error}") from error


def write_json(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Writes values to a text file of a folder, which is made if need be; at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / name) as temporary:
        temporary.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


@dataclass
class PretrainedConfig(ConfigValues):
    """Base of configurations: a subclass is a dataclass of upstream's fields and defaults.

    What a file has beyond them (`architectures`, `transformers_version`) becomes plain attributes.
    """

    model_type: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, and the model's type."""
        return {**asdict(self), "model_type": self.model_type}

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any], **changes: Any) -> _Config:
        """The configuration of these values, some of them changed."""
        values = {**values, **changes}
        known = {field.name for field in fields(cls)}
        config = cls(**{name: value for name, value in values.items() if name in known})
        for name, value in values.items():
            if name not in known and name != "model_type":
                setattr(config, name, value)
        return config

    @classmethod
    def from_pretrained(
        cls: type[_Config], name: str | os.PathLike[str], *, revision: str | None = None, **changes: Any
    ) -> _Config:
        """The configuration of a folder or hub id, some fields changed. Raises LoadError."""
        return cls.from_dict(read_json(folder_of(name, revision), _CONFIG), **changes)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes `config.json`."""
        write_json(Path(folder), _CONFIG, self.to_dict())


class PretrainedModel(ModelFacts, Upstream):
    """Base of models: an Upstream with a configuration, that can be read and written.

    A subclass names its `config_class`, builds itself from a configuration, and says how a checkpoint's state fills it.
    """

    config_class: ClassVar[type[PretrainedConfig]]
    families: ClassVar[tuple[str, ...]]
    main_input_name: ClassVar[str]

    def __init__(self, config: Any, model: nn.Module, names: dict[str, str] | None = None) -> None:
        super().__init__(model, names)
        self.config = config

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Takes the weights of a checkpoint."""
        self._model.load_state_dict(checkpoint.state, assign=True)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; the narrowest where some stay wider than was asked for."""
        return min((parameter.dtype for parameter in self.parameters()), key=lambda dtype: dtype.itemsize)

    @classmethod
    def from_pretrained(
        cls: type[_Model],
        name: str | os.PathLike[str],
        *,
        config: Any = None,
        revision: str | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        **changes: Any,
    ) -> _Model:
        """The model of a folder or hub id, in eval mode with its weights frozen.

        Args:
            name: folder with `config.json` and the weights, or `owner/name`.
            config: a configuration to use instead of the folder's.
            revision: branch, tag or commit on the hub.
            dtype, torch_dtype: type of the weights, also by torch's name; float32 when None or "auto".
            changes: fields of the configuration to change.

        Raises LoadError naming the file and what is wrong with it, ArgumentError for a field that does not exist.
        """
        folder = folder_of(name, revision)
        if config is None:
            config = cls.config_class.from_pretrained(folder)
        for field, value in changes.items():
            if not hasattr(config, field):
                raise ArgumentError(f"from_pretrained: unknown option {field!r}, no field of {type(config).__name__}")
            setattr(config, field, value)
        checkpoint = detect_and_load(folder)
        if checkpoint.config.family not in cls.families:
            raise LoadError(f"{folder}: a {checkpoint.config.family} model, expected {', '.join(cls.families)}")
        wanted = _dtype(dtype if torch_dtype is None else torch_dtype)
        make: Any = cls  # a subclass is made of its configuration alone
        with SkipInit():
            model: _Model = make(config)
        model.adopt(checkpoint)
        return model.eval().requires_grad_(False).to(wanted)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes `config.json` and `model.safetensors`, which transformers reads."""
        from safetensors.torch import save_file

        path = Path(folder)
        write_json(path, _CONFIG, {**self.config.to_dict(), "architectures": [type(self).__name__]})
        state: dict[str, Tensor] = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        with atomic_path(path / "model.safetensors") as temporary:
            save_file(state, temporary, {"format": "pt"})


def _dtype(value: str | torch.dtype | None) -> torch.dtype:
    named = {"auto": torch.float32, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return named[value] if isinstance(value, str) and value in named else parse_dtype(value)
