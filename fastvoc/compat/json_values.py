"""What configurations and feature extractors of transformers share: their values as JSON and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar, cast

from fastvoc.checkpoints.source import read_small
from fastvoc.checkpoints.text import parse_json
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.runtime.io import atomic_path

_V = TypeVar("_V", bound="JsonValues")
_Config = TypeVar("_Config", bound="ConfigValues")


class JsonValues:
    """Values by name: `to_dict` gives them, `from_dict` of a subclass takes them."""

    def to_dict(self) -> dict[str, Any]:
        """The values, ready for JSON."""
        raise NotImplementedError

    @classmethod
    def from_json_file(cls: type[_V], json_file: str | os.PathLike[str]) -> _V:
        """The object of the values in a file. Raises LoadError."""
        path = Path(json_file)
        try:
            made: Any = cls
            return cast(_V, made.from_dict(parse_json(read_small(path), path)))
        except OSError as error:
            raise LoadError(f"{path}: {error.strerror or error}") from error

    def to_json_string(self) -> str:
        """The values as JSON, sorted by name."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Writes the values to a file, at once or not at all."""
        with atomic_path(json_file_path) as temporary:
            temporary.write_text(self.to_json_string())


class ConfigValues(JsonValues):
    """The same of a configuration."""

    return_dict: bool

    def to_diff_dict(self) -> dict[str, Any]:
        """The values but those that transformers' base class has by default, `return_dict=True`."""
        values = self.to_dict()
        if values.get("return_dict") is True:
            del values["return_dict"]
        return values

    def to_json_string(self, use_diff: bool = True) -> str:
        """The values as JSON, sorted by name: those of `to_diff_dict`, or all."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Writes the values to a file, at once or not at all."""
        with atomic_path(json_file_path) as temporary:
            temporary.write_text(self.to_json_string(use_diff))

    def update(self, config_dict: dict[str, Any]) -> None:
        """Sets values by name."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def update_from_string(self, update_str: str) -> None:
        """Sets values as "normalize=true,overlap=0.1" gives them.

        Raises ArgumentError naming the field that does not exist, is no plain number, flag or text, or gets none.
        """
        made = {}
        for pair in update_str.split(","):
            name, equals, text = pair.partition("=")
            if not equals or not hasattr(self, name):
                raise ArgumentError(
                    f"update_str: expected `field=value` with a field of {type(self).__name__}: {pair!r}"
                )
            made[name] = _parsed(name, text, getattr(self, name))
        self.update(made)

    @property
    def use_return_dict(self) -> bool:
        """`return_dict`."""
        return self.return_dict

    def get_text_config(self: _Config) -> _Config:
        """This one: no part of it is a text model's."""
        return self


def _parsed(name: str, text: str, old: Any) -> Any:
    flags = {"true": True, "1": True, "y": True, "yes": True, "false": False, "0": False, "n": False, "no": False}
    if isinstance(old, bool) and text.lower() in flags:
        return flags[text.lower()]
    if isinstance(old, str):
        return text
    if isinstance(old, int | float) and not isinstance(old, bool):
        try:
            return type(old)(text)
        except ValueError:
            pass
    raise ArgumentError(f"update_str: {name}: no {type(old).__name__} in {text!r}")
