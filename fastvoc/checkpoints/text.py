"""JSON and YAML from untrusted files: plain data only, tags of any kind stay inert."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fastvoc.checkpoints.checkpoint import refuse

MAX_TEXT_BYTES = 256 << 10
_MAX_DEPTH = 100
_MAX_REFERENCES = 8
_REFERENCE = re.compile(r"^<(\w+)>$")
# A text, which may hold slashes, or a comment; the closing quote is optional so that no text is searched for twice.
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*"?)|//[^\r\n]*')
_HUGE = 1e30
_REQUIRED: Any = object()


def parse_commented_json(data: bytes, path: Path) -> dict[str, Any]:
    """Like `parse_json` for what Coqui's reader takes for JSON: lines that a backslash continues, `//` comments."""
    try:
        text = data.decode().replace("\\\n", "")
    except UnicodeDecodeError as error:
        raise refuse(path, f"not valid JSON: {error}") from None
    return parse_json(_COMMENT.sub(lambda match: match[1] or "", text).encode(), path)


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object in a JSON text. Raises LoadError for anything else, for repeated keys and for NaN."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refuse(path, f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise refuse(path, f"expected a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _InertLoader(_SafeLoader):
    """Safe loader to which every tag (`!new:`, `!apply:`, `!!python/...`) is only a decoration of plain data."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Merge keys can multiply exponentially, and no configuration read here has any.
        return


def _plain(loader: Any, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_InertLoader.add_multi_constructor("!", _plain)
_InertLoader.add_multi_constructor("tag:", _plain)
# YAML 1.1 reads "1e-5" as text; PyYAML needs the dot, people write it without.
_InertLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


# PyYAML's constructors fail with these, too, on explicitly typed scalars such as `!!timestamp 2`.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)


def parse_yaml(data: bytes, path: Path) -> dict[str, Any]:
    """The mapping in a YAML text; tagged nodes come as the plain mapping, list or string that carries the tag.

    Raises LoadError for anything else, and for more than 100 levels of nesting.
    """
    try:
        _check_depth(data)
        value = yaml.load(data, Loader=_InertLoader)
    except _YAML_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise refuse(path, f"not valid YAML: {reason}") from None
    if not isinstance(value, dict):
        raise refuse(path, f"expected a YAML mapping, found {type(value).__name__}")
    return value


def _check_depth(data: bytes) -> None:
    # libyaml composes nodes by recursion in C: a deep text would end the process.
    loader, depth = _SafeLoader(data), 0
    try:
        while loader.check_event():
            event = loader.get_event()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    finally:
        loader.dispose()


class Fields:
    """Typed access to an untrusted mapping; every failure is a LoadError that names the file and the field.

    With `names`, a text `<name>` (HyperPyYAML's reference) stands for the value of that name there; for nothing when
    there is none, or when it leads on for more than 8 references.
    """

    def __init__(
        self, values: Mapping[str, Any], path: Path, prefix: str = "", names: Mapping[str, Any] | None = None
    ) -> None:
        self.values, self.path, self._prefix, self._names = values, path, prefix, names

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Any:
        """The value as it is, None when there is none."""
        value = self.values.get(name)
        if self._names is None:
            return value
        for _ in range(_MAX_REFERENCES + 1):
            match = _REFERENCE.match(value) if isinstance(value, str) else None
            if match is None:
                return value
            value = self._names.get(match[1])
        return None

    def _get(self, name: str, default: Any) -> Any:
        value = self.get(name)
        if value is None:
            if default is _REQUIRED:
                raise refuse(self.path, f"field {self._prefix + name!r} is missing")
            return default
        return value

    def _bad(self, name: str, value: Any, expected: str) -> NoReturn:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise refuse(self.path, f"field {self._prefix + name!r}: expected {expected}, got {shown}")

    def sub(self, name: str) -> Fields:
        value = self._get(name, _REQUIRED)
        if not isinstance(value, dict):
            self._bad(name, value, "a mapping")
        return Fields(value, self.path, f"{self._prefix}{name}.", self._names)

    def integer(self, name: str, default: object = _REQUIRED) -> int:
        value = self._get(name, default)
        if not _is_int(value):
            self._bad(name, value, "an integer from 0 to 2^31 - 1")
        return int(value)

    def number(self, name: str, default: object = _REQUIRED) -> float:
        value = self._get(name, default)
        if not _is_number(value):
            self._bad(name, value, "a finite number")
        return float(value)

    def optional_number(self, name: str, default: object = None) -> float | None:
        """Like `number`, where an explicit null means None and an absent field the default."""
        value = self.get(name) if name in self.values else default
        return None if value is None else self.number(name, default)

    def flag(self, name: str, default: object = _REQUIRED) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            self._bad(name, value, "true or false")
        return bool(value)

    def text(self, name: str, default: object = _REQUIRED) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            self._bad(name, value, "a text")
        return str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._get(name, _REQUIRED)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            self._bad(name, value, "a list of texts")
        return tuple(value)

    def numbers(self, name: str, default: object = _REQUIRED) -> tuple[float, ...]:
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
            self._bad(name, value, "a list of finite numbers")
        return tuple(map(float, value))

    def integers(self, name: str, default: object = _REQUIRED) -> tuple[int, ...]:
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or not all(map(_is_int, value)):
            self._bad(name, value, "a list of integers")
        return tuple(value)

    def rows(self, name: str, default: object = _REQUIRED) -> tuple[tuple[int, ...], ...]:
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or not all(
            isinstance(row, list | tuple) and all(map(_is_int, row)) for row in value
        ):
            self._bad(name, value, "a list of lists of integers")
        return tuple(map(tuple, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
