"""What the transformers-style classes share: configurations, extractors and weights in a folder or on the hub."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.checkpoints.source import read_small
from fastvoc.checkpoints.text import parse_json
from fastvoc.compat import keywords
from fastvoc.compat.json_values import ConfigValues, JsonValues
from fastvoc.compat.model_facts import ModelFacts
from fastvoc.compat.upstream import Upstream
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.hub import download as hub
from fastvoc.loading import SkipInit, wanted_file
from fastvoc.runtime.io import atomic_path, given_path

_Config = TypeVar("_Config", bound="PretrainedConfig")
_Extractor = TypeVar("_Extractor", bound="PretrainedExtractor")
_Model = TypeVar("_Model", bound="PretrainedModel")
_CONFIG, _PREPROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_PLAIN = hub.Options()
# What every configuration of Transformers has beside its own fields.
_COMMON: dict[str, Any] = {
    "architectures": None,
    "chunk_size_feed_forward": 0,
    "dtype": None,
    "id2label": None,
    "is_encoder_decoder": False,
    "label2id": None,
    "name_or_path": "",
    "output_attentions": False,
    "output_hidden_states": False,
    "problem_type": None,
    "return_dict": True,
    "transformers_version": None,
}


def folder_of(name: str | os.PathLike[str], options: hub.Options = _PLAIN) -> Path:
    """The folder of a model: itself, or where the hub's files lie. Raises LoadError when it is neither."""
    path = given_path(name)
    if path.is_dir():
        path = path / options.prefix
        if not path.is_dir():
            raise LoadError(f"{path}: no such folder")
        return path
    text = os.fspath(name)
    if not hub.is_hub_id(text):
        raise LoadError(f"{text}: no such folder, and no hub id `owner/name`")
    return hub.fetch(text, options)


def weights_of(folder: Path, options: hub.Options) -> Path:
    """The weights in a folder that `folder_of` gave: a file where the options choose one, else the folder itself."""
    return wanted_file(folder, hub.Options(use_safetensors=options.use_safetensors, variant=options.variant))


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a text file of a folder. Raises LoadError."""
    path = folder / name
    try:
        return parse_json(read_small(path), path)
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror or error}") from error


def write_json(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Writes values to a text file of a folder, which is made if need be; at once or not at all.

    Keywords of loading and saving are left out. Raises ArgumentError when the folder is a file.
    """
    text = json.dumps(keywords.public(values), indent=2, sort_keys=True) + "\n"
    make_folder(folder)
    with atomic_path(folder / name) as temporary:
        temporary.write_text(text)


def make_folder(folder: Path) -> None:
    """Makes a folder if need be. Raises ArgumentError when a file is there."""
    if folder.is_file():
        raise ArgumentError(f"save_directory: expected a folder, {folder} is a file")
    folder.mkdir(parents=True, exist_ok=True)


class _TakesMore(type):
    """Of configurations: what is no field becomes a plain attribute."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every configuration is a dataclass
        config = super().__call__(*args, **{name: values.pop(name) for name in names & values.keys()})
        for name, value in values.items():
            if name != "model_type":
                config.set(name, value)
        return config


@dataclass
class PretrainedConfig(ConfigValues, metaclass=_TakesMore):
    """Base of configurations: a subclass is a dataclass of upstream's fields and defaults.

    Further keywords become plain attributes, which are saved, too, but for those of loading and saving.
    """

    model_type: ClassVar[str] = ""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in _COMMON:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return _COMMON[name]

    def set(self, name: str, value: Any) -> None:
        """Sets an attribute as a keyword does. Raises ArgumentError for one that follows from others."""
        if name in ("dtype", "torch_dtype"):
            name, value = "dtype", keywords.parse_float(value)
        try:
            setattr(self, name, value)
        except AttributeError:
            raise ArgumentError(f"{type(self).__name__}: {name!r} follows from other fields") from None

    def change(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Sets the attributes that there are; gives the other changes back. Raises ArgumentError as `set`."""
        unused = {}
        for name, value in changes.items():
            if name in _COMMON or name in vars(self):
                self.set(name, value)
            else:
                unused[name] = value
        return unused

    def to_dict(self) -> dict[str, Any]:
        """The fields and further attributes by name, and the model's type; dtypes by name."""
        own = asdict(self)
        more = {name: copy.deepcopy(v) for name, v in vars(self).items() if name not in own and name[0] != "_"}
        values = {**own, **keywords.public(more), "model_type": self.model_type}
        return {
            name: str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
            for name, value in values.items()
            if name != "name_or_path"
        }

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any], **changes: Any) -> _Config:
        """The configuration of these values, some of them changed; changes of what is no attribute have no effect.

        With `return_unused_kwargs=True` a pair of it and those changes.
        """
        unused = changes.pop("return_unused_kwargs", False)
        config: Any = cls(**values)
        rest = config.change(changes)
        pair: Any = (config, rest)
        return pair if unused else config  # type: ignore[no-any-return]  # the pair is asked for by name

    @classmethod
    def of(cls: type[_Config], config: Any) -> _Config:
        """A configuration of this class as it is; of another's, as Transformers' own, the same values in this class.

        Raises ArgumentError for one of another model.
        """
        if isinstance(config, cls):
            return config
        values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
        if values.get("model_type", cls.model_type) not in (cls.model_type, "hifigan", "", None):
            raise ArgumentError(f"config: expected one of {cls.model_type}, got {values['model_type']}")
        return cls.from_dict(values)

    @classmethod
    def describes(cls, folder: Path) -> bool:
        """Whether a folder's `config.json` is of this class."""
        return (folder / _CONFIG).is_file()

    @classmethod
    def read(cls, folder: Path) -> dict[str, Any]:
        """The values of a folder's configuration, also as a part of another model's. Raises LoadError."""
        values = read_json(folder, _CONFIG)
        if values.get("model_type", cls.model_type) != cls.model_type:
            parts = (part for part in values.values() if isinstance(part, dict))
            return next((part for part in parts if part.get("model_type") == cls.model_type), values)
        return values

    @classmethod
    def from_pretrained(
        cls: type[_Config], pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> _Config:
        """The configuration of a folder or hub id.

        options: keywords of loading (`fastvoc.compat.keywords`), and changes as in `from_dict`.

        Raises LoadError naming the file and what is wrong with it, ArgumentError for an option.
        """
        given = keywords.loading(options)
        values = cls.read(folder_of(pretrained_model_name_or_path, given.files))
        dtype = {"dtype": given.dtype} if isinstance(given.dtype, torch.dtype) else {}
        return cls.from_dict(values, **given.rest, **dtype)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **options: Any
    ) -> None:
        """Writes `config.json`. Raises ArgumentError for an option that cannot be honoured."""
        if keywords.saving({"push_to_hub": push_to_hub, **options}).write:
            write_json(Path(save_directory), _CONFIG, self.to_dict())


class PretrainedExtractor(JsonValues):
    """Base of feature extractors, whose values are attributes."""

    derived: ClassVar[tuple[str, ...]] = ()  # attributes that follow from others

    @classmethod
    def from_model(cls, folder: Path) -> dict[str, Any]:
        """The values by a model's own files, where the extractor's is missing. Raises LoadError."""
        return read_json(folder, _PREPROCESSOR)

    @classmethod
    def from_pretrained(
        cls: type[_Extractor], pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> _Extractor:
        """The extractor of `preprocessor_config.json` in a folder or hub repository.

        options: keywords of loading (`fastvoc.compat.keywords`), and changes of values; others have no effect. With
            `return_unused_kwargs=True` a pair of the extractor and those.

        Raises LoadError naming the file and what is wrong with it, ArgumentError for an option.
        """
        given = keywords.loading(options)
        folder = folder_of(pretrained_model_name_or_path, given.files)
        written = (folder / _PREPROCESSOR).is_file()
        return cls.from_dict(read_json(folder, _PREPROCESSOR) if written else cls.from_model(folder), **given.rest)

    @classmethod
    def from_dict(cls: type[_Extractor], feature_extractor_dict: dict[str, Any], **changes: Any) -> _Extractor:
        """The extractor of these values, some of them changed; unused changes as in `from_pretrained`."""
        unused = changes.pop("return_unused_kwargs", False)
        known = feature_extractor_dict.keys() | signature(cls).parameters.keys()
        used = {name: value for name, value in changes.items() if name in known}
        extractor: Any = cls(**{**feature_extractor_dict, **used})
        pair: Any = (extractor, {name: value for name, value in changes.items() if name not in used})
        return pair if unused else extractor  # type: ignore[no-any-return]  # the pair is asked for by name

    def to_dict(self) -> dict[str, Any]:
        """The values, ready for JSON, without keywords of loading and saving."""
        values = {n: v for n, v in vars(self).items() if not n.startswith("_") and n not in self.derived}
        return {**keywords.public(values), "feature_extractor_type": type(self).__name__}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **options: Any
    ) -> list[str]:
        """Writes `preprocessor_config.json`, which transformers reads; gives its path. Raises ArgumentError."""
        if not keywords.saving({"push_to_hub": push_to_hub, **options}).write:
            return []
        write_json(Path(save_directory), _PREPROCESSOR, self.to_dict())
        return [os.path.join(save_directory, _PREPROCESSOR)]


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

    def reached(self, files: hub.Options) -> None:
        """Is told how the model's files were reached, for those that it fetches later."""

    def written_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state under the names that the files have."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

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
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        config: Any = None,
        **options: Any,
    ) -> _Model:
        """The model of a folder or hub id, in eval mode with its weights frozen.

        Args:
            pretrained_model_name_or_path: folder with `config.json` and the weights, or `owner/name`; None where
                `config` and `state_dict` say all.
            config: a configuration to use instead of the folder's, also Transformers' own, or where one is to be read.
            options: keywords of loading (`fastvoc.compat.keywords`), among them `dtype`, the type of the weights
                (float32 when None, the saved one when "auto"), `device_map`, `state_dict`, `output_loading_info` (then
                a pair of the model and what did not fit, which is nothing); and fields of the configuration to change.

        Raises LoadError naming the file and what is wrong with it, ArgumentError for an option that does not exist or
        cannot be honoured.
        """
        given = keywords.loading(options)
        if (pretrained_model_name_or_path is None) != (given.state_dict is not None):
            raise ArgumentError("pretrained_model_name_or_path, state_dict: expected exactly one of them")
        folder = None
        if pretrained_model_name_or_path is not None:
            folder = folder_of(pretrained_model_name_or_path, given.files)
        stated = config is not None or (folder is not None and cls.config_class.describes(folder))
        config = cls._config(folder, config, given)
        for name in config.change(given.rest):
            raise ArgumentError(f"from_pretrained: unknown option {name!r}, no field of {type(config).__name__}")
        make: Any = cls  # a subclass is made of its configuration alone
        if folder is None:
            assert given.state_dict is not None
            model: _Model = make(config)
            model.load_state_dict(given.state_dict)
            stored = next((t.dtype for t in given.state_dict.values() if t.is_floating_point()), None)
        else:
            checkpoint = cls._checkpoint(folder, config if stated else None, given.files)
            with SkipInit():
                model = make(config)
            model.adopt(checkpoint)
            stored = checkpoint.stored
        model.reached(given.files)
        dtype = given.saved_dtype(config.dtype, stored)
        config.dtype = torch.float32 if dtype is None else dtype
        model = given.ready(model, config.dtype)
        fitted: Any = (model, _all_fitted()) if given.output_loading_info else model
        return fitted  # type: ignore[no-any-return]  # the pair is asked for by name

    @classmethod
    def _config(cls, folder: Path | None, config: Any, given: keywords.Loading) -> Any:
        if config is None and folder is None:
            raise ArgumentError("config: expected a configuration, got None and no folder to read one from")
        if config is None or isinstance(config, str | os.PathLike):
            place = folder if config is None else folder_of(config, given.files)
            assert place is not None
            return cls.config_class.from_dict(cls.config_class.read(place))
        return copy.deepcopy(cls.config_class.of(config))

    @classmethod
    def _checkpoint(cls, folder: Path, config: PretrainedConfig | None, files: hub.Options) -> Checkpoint:
        """The weights, read as what the class and a configuration of it say they are; by the files alone when None."""
        texts = {}
        if config is not None:
            values = {**config.to_dict(), "architectures": [cls.__name__]}
            texts = {_CONFIG: json.dumps(values, default=str).encode()}
        checkpoint = detect_and_load(weights_of(folder, files), texts)
        if checkpoint.config.family not in cls.families:
            raise LoadError(f"{folder}: a {checkpoint.config.family} model, expected {', '.join(cls.families)}")
        return checkpoint

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **options: Any
    ) -> None:
        """Writes `config.json` and `model.safetensors`, which transformers reads.

        options: keywords of saving (`fastvoc.compat.keywords`), among them `state_dict`, `variant`, `max_shard_size`.

        Raises ArgumentError for an option that cannot be honoured, before anything is written.
        """
        from safetensors.torch import save_file

        given = keywords.saving({"is_main_process": is_main_process, **options})
        if not given.write:
            return
        state = self.written_state(self.state_dict() if given.state_dict is None else given.state_dict)
        given.check_size(state)
        folder = Path(save_directory)
        make_folder(folder)
        with atomic_path(folder / given.file(_WEIGHTS)) as temporary:
            save_file(state, temporary, {"format": "pt"})
        values = self.config.to_dict()
        dtype = str(self.dtype).removeprefix("torch.")
        write_json(folder, _CONFIG, {**values, "architectures": [type(self).__name__], "dtype": dtype})


def _all_fitted() -> dict[str, Any]:
    return {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
