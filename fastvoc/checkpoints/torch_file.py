"""Files written by torch.save, read with `weights_only=True`: tensors and plain containers, never code."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fastvoc.checkpoints.archive import zip_members
from fastvoc.checkpoints.checkpoint import TensorEntry, refuse

_MAX_PICKLE_BYTES = 16 << 20
_MAX_NESTING = 6
# What torch's restricted unpickler, its zip reader and tensor constructors raise on malformed input.
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    UnicodeError,
    ValueError,
    Warning,  # where the caller turns warnings into errors
    struct.error,
)


def looks_like_torch_zip(names: Mapping[str, int]) -> bool:
    """Whether a zip with these members is torch.save's own container."""
    return any(name.endswith("/data.pkl") or name == "data.pkl" for name in names)


def looks_like_legacy_torch(head: bytes) -> bool:
    """Whether a file starts with the pickled magic number that torch.save wrote before it used zip."""
    return head.startswith((b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",))


def read_tensors(file: IO[bytes], path: Path) -> dict[str, TensorEntry]:
    """Every tensor in a file of torch.save, names of nested dictionaries joined by dots.

    Raises LoadError when the file is broken, when unpickling it would need anything but tensors and plain
    containers, and when a tensor claims more data than the file stores.
    """
    stored = _stored_bytes(file, path)
    try:
        tree = torch.load(file, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        raise refuse(path, _reason(error)) from None
    tensors = dict(_flatten(tree))
    _check_storages(path, tensors, stored)
    return {
        name: TensorEntry(name, tuple(tensor.shape), tensor.dtype, partial(_dense, tensor))
        for name, tensor in tensors.items()
    }


def _stored_bytes(file: IO[bytes], path: Path) -> int:
    head = file.read(4)
    if head[:2] != b"PK":
        size = file.seek(0, 2)
        file.seek(0)
        return size
    members = zip_members(file, path)
    for name, size in members.items():
        if name.endswith("data.pkl") and size > _MAX_PICKLE_BYTES:
            raise refuse(path, f"{name} has {size} bytes, expected at most {_MAX_PICKLE_BYTES}")
    return sum(members.values())


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        # torch's message goes on with advice to trust the file; the first sentence that names the culprit is enough.
        _, _, detail = text.partition("WeightsUnpickler error: ")
        detail = " ".join((detail or text).split())
        return f"refused, it is not a plain weights file (nothing in it was run): {detail[:160]}"
    return f"not a readable torch file: {type(error).__name__}: {' '.join(text.split())[:160]}"


def _flatten(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield prefix, tree
    elif isinstance(tree, Mapping) and depth < _MAX_NESTING:
        for key, value in tree.items():
            if isinstance(key, str):
                yield from _flatten(value, f"{prefix}.{key}" if prefix else key, depth + 1)


def _check_storages(path: Path, tensors: Mapping[str, Tensor], stored: int) -> None:
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise refuse(path, f"tensor {name!r} is not a plain CPU tensor")
        storage = tensor.untyped_storage()
        # Rebuilding a tensor enlarges a storage that is too small, and strides of 0 repeat it: neither is data.
        if tensor.numel() * tensor.itemsize > storage.nbytes():
            raise refuse(path, f"tensor {name!r} of shape {tuple(tensor.shape)} is larger than its storage")
        storages[storage.data_ptr()] = storage.nbytes()
    if sum(storages.values()) > stored:
        raise refuse(path, f"tensors need {sum(storages.values())} bytes, the file stores {stored}")


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()
