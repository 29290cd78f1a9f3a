"""Codes of a sound in a file, of codecs that have no format of their own: safetensors, from which nothing is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DecodeError
from fastvoc.runtime.io import atomic_path

SUFFIX = ".safetensors"
_KEY, _VERSION = "fastvoc.codes", 1


@dataclass(frozen=True)
class CodeFile:
    """Codes [K, T] of whole numbers below 65536 of one sound of so many samples, made by a codec of this family.

    `codebooks`: how many of the codec's; as many as there are rows, but for codecs of several codes a frame.
    """

    codes: Tensor
    family: str
    sample_rate: int
    samples: int
    codebooks: int


def write_codes(path: Path, file: CodeFile) -> int:
    """Writes them as 16-bit numbers, at once or not at all; gives the bytes. Raises ArgumentError for larger codes."""
    from safetensors.torch import save_file

    low, high = (int(v) for v in file.codes.aminmax())
    if low < 0 or high >= 1 << 16:
        raise ArgumentError(f"codes: expected values in 0..65535, got {low}..{high}")
    facts = {name: value for name, value in vars(file).items() if name != "codes"}
    text = json.dumps({"version": _VERSION, **facts})
    codes = torch.from_numpy(file.codes.cpu().numpy().astype(np.uint16))
    with atomic_path(path) as temporary:
        save_file({"codes": codes}, temporary, {_KEY: text})
        size: int = temporary.stat().st_size
    return size


def read_codes(path: Path) -> CodeFile:
    """What `write_codes` wrote, the codes as int64. Raises DecodeError for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text, names = (file.metadata() or {}).get(_KEY), list(file.keys())
            if text is None or names != ["codes"]:
                raise DecodeError(f"{path}: a safetensors file, but none of codes")
            codes = file.get_tensor("codes")
        facts = json.loads(text)
    except (SafetensorError, ValueError, OSError) as error:
        raise DecodeError(f"{path}: no file of codes, or damaged ({error})") from None
    _check(path, facts, codes)
    return CodeFile(codes.long(), **{name: facts[name] for name in facts if name != "version"})


def _check(path: Path, facts: object, codes: Tensor) -> None:
    kinds = {"version": int, **{f.name: str if f.name == "family" else int for f in fields(CodeFile)[1:]}}
    right = isinstance(facts, Mapping) and set(facts) == set(kinds)
    right = right and all(type(facts[name]) is kind for name, kind in kinds.items())  # type: ignore[index]
    if not right or codes.dtype != torch.uint16 or codes.dim() != 2 or 0 in codes.shape:
        raise DecodeError(f"{path}: no file of codes, or damaged: its facts or its codes are not what they must be")
    if facts["version"] != _VERSION:  # type: ignore[index]
        raise DecodeError(f"{path}: codes of version {facts['version']}, expected {_VERSION}")  # type: ignore[index]
