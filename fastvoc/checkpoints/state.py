"""From tensors under a file's names to the complete state of a model: all of it or an error, never a part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import TensorEntry, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.models.families import ModelConfig
from fastvoc.runtime.packing import fold_weight_norm

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# torch.nn.utils.weight_norm, its successor in torch.nn.utils.parametrizations, and neither.
_WEIGHT_FORMS = {
    "weight_g": "g",
    "weight_v": "v",
    "parametrizations.weight.original0": "g",
    "parametrizations.weight.original1": "v",
    "weight": "folded",
}


@dataclass(frozen=True)
class _Parameter:
    """The one or two tensors in the file that make up a parameter."""

    name: str
    parts: dict[str, TensorEntry]

    def read(self) -> Tensor:
        tensors = {form: entry.read().float() for form, entry in self.parts.items()}
        if "folded" in tensors:
            return tensors["folded"].contiguous()
        return fold_weight_norm(tensors["g"], tensors["v"])


def canonical_state(source: Source, config: ModelConfig, tensors: Mapping[str, TensorEntry]) -> dict[str, Tensor]:
    """Folded float32 state of a configuration's model from `tensors`, whose module names are already canonical.

    Every name, shape and dtype is compared with what the configuration calls for before any tensor is read.
    Raises LoadError that names the first tensor which is missing, left over, of another shape or dtype, or not finite.
    """
    found = _group(source, tensors)
    parameters = []
    for name, shape in config.tensors():
        parts = found.pop(name, None)
        if parts is None:
            raise refuse(source.path, f"tensor {name!r} {list(shape)} is missing{_hint(tensors)}")
        _check(source, name, shape, parts)
        parameters.append(_Parameter(name, parts))
    for name, parts in found.items():
        entry = next(iter(parts.values()))
        where = f"(as {name!r}) has no place in the configured model"
        raise refuse(source.path, f"tensor {entry.name!r} {list(entry.shape)} {where}")
    state = {}
    for parameter in parameters:
        value = parameter.read()
        if not torch.isfinite(value).all():
            raise refuse(source.path, f"tensor {parameter.name!r} holds NaN or infinite values")
        state[parameter.name] = value
    return state


def rewritten(name: str, rules: Iterable[tuple[str | re.Pattern[str], str]]) -> str:
    """A name after each of the rules (pattern, replacement) in turn."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(source: Source, entries: Mapping[str, TensorEntry], rename: Callable[[str], str]) -> dict[str, TensorEntry]:
    """Entries under their canonical names. Raises LoadError when two names in the file mean the same tensor."""
    tensors: dict[str, TensorEntry] = {}
    for name, entry in entries.items():
        target = rename(name)
        if target in tensors:
            raise refuse(source.path, f"tensors {tensors[target].name!r} and {entry.name!r} are both {target!r}")
        tensors[target] = entry
    return tensors


def _group(source: Source, tensors: Mapping[str, TensorEntry]) -> dict[str, dict[str, TensorEntry]]:
    found: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in tensors.items():
        target, form = name, "folded"
        for suffix, kind in _WEIGHT_FORMS.items():
            if name.endswith(f".{suffix}"):
                target, form = f"{name[: -len(suffix)]}weight", kind
                break
        parts = found.setdefault(target, {})
        if form in parts or (parts and "folded" in (form, *parts)):
            raise refuse(source.path, f"tensor {entry.name!r}: a second value for {target!r}")
        parts[form] = entry
    return found


def _check(source: Source, name: str, shape: tuple[int, ...], parts: Mapping[str, TensorEntry]) -> None:
    for form, entry in parts.items():
        wanted = (shape[0], *[1] * (len(shape) - 1)) if form == "g" else shape
        if entry.shape != wanted:
            claim = f"tensor {entry.name!r} has shape {list(entry.shape)}"
            raise refuse(source.path, f"{claim}, the configuration needs {list(wanted)}")
        if entry.dtype not in _FLOATS:
            raise refuse(source.path, f"tensor {entry.name!r} has dtype {entry.dtype}, expected a floating-point one")
    if "folded" not in parts and len(parts) != 2:
        only = next(iter(parts.values()))
        raise refuse(source.path, f"tensor {only.name!r} stands alone: the other half of its weight norm is missing")


def _hint(tensors: Mapping[str, TensorEntry]) -> str:
    if not tensors:
        return "; no generator tensor in the file"
    return f"; the file has {len(tensors)} generator tensors, the first is {next(iter(tensors.values())).name!r}"
