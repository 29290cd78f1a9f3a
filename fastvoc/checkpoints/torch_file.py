"""Files written by torch.save, read with `weights_only=True`: tensors and plain containers, never code."""

from __future__ import annotations

import pickle
import struct
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fastvoc.checkpoints.archive import zip_members
from fastvoc.checkpoints.checkpoint import TensorEntry, refuse

# A tensor takes some 100 bytes and 40 opcodes, each of them a read; the restricted unpickler runs 400 000 a second.
_MAX_PICKLE_BYTES = 512 << 10
_MAX_READS = 1 << 18
_MAX_NESTING = 6
_PLAIN = (int, float, str, list, tuple)
# Training tools keep paths beside the weights. A path is read as nothing at all.
_PATHS = [f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")]
_INERT_ALLOWED = threading.Lock()  # torch's list of what it allows is one for all threads
# Others keep objects of their configuration there, of which the attributes are read alone.
_SETTINGS = (
    "utils.HParams",
    "TTS.tts.configs.xtts_config.XttsConfig",
    "TTS.tts.models.xtts.XttsArgs",
    "TTS.tts.models.xtts.XttsAudioConfig",
    "TTS.config.shared_configs.BaseDatasetConfig",
)
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


def looks_like_package(names: Mapping[str, int]) -> bool:
    """Whether a zip with these members is one of torch.package, whose pickles run code of the file."""
    return any(name.endswith(".data/extern_modules") for name in names)


def looks_like_legacy_torch(head: bytes) -> bool:
    """Whether a file starts with the pickled magic number that torch.save wrote before it used zip."""
    return head.startswith((b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",))


def read_tree(file: IO[bytes], path: Path) -> tuple[dict[str, TensorEntry], dict[str, Any]]:
    """Every tensor in a file of torch.save, and every plain value, names of nested dictionaries joined by dots.

    Raises LoadError when the file is broken, when unpickling it would need anything but tensors and plain
    containers, and when a tensor claims more data than the file stores.
    """
    head = file.read(2)
    file.seek(0)
    zipped = head == b"PK"
    stored = _inflated_bytes(file, path) if zipped else file.seek(0, 2)
    file.seek(0)
    reader: Any = file if zipped else _LimitedReader(file)
    try:
        tree = _tree(reader)
    except _LOAD_ERRORS as error:
        raise refuse(path, _reason(error)) from None
    leaves = dict(_flatten(tree))
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    _check_storages(path, tensors, stored)
    entries = {
        name: TensorEntry(name, tuple(tensor.shape), tensor.dtype, partial(_dense, tensor))
        for name, tensor in tensors.items()
    }
    return entries, {name: leaf for name, leaf in leaves.items() if isinstance(leaf, _PLAIN)}


class _Settings:
    """Stands for an object of a configuration: its attributes as they are in the file, and nothing else."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an object of a configuration sets {name!r}")


def _tree(reader: Any) -> Any:
    try:
        return torch.load(reader, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(f"GLOBAL {name} " in str(error) for name in (*_PATHS, *_SETTINGS)):
            raise
    inert: list[Any] = [*((_nothing, name) for name in _PATHS), *((_Settings, name) for name in _SETTINGS)]
    with _INERT_ALLOWED, torch.serialization.safe_globals(inert):
        reader.seek(0)
        return torch.load(reader, map_location="cpu", weights_only=True)


def _nothing(*parts: Any) -> None:
    return None


def _inflated_bytes(file: IO[bytes], path: Path) -> int:
    members = zip_members(file, path)
    for name, size in members.items():
        if name.endswith("data.pkl") and size > _MAX_PICKLE_BYTES:
            raise refuse(path, f"{name} has {size} bytes, expected at most {_MAX_PICKLE_BYTES}")
    return sum(members.values())


class _LimitedReader:
    """A file that ends a stream of opcodes without end: the old format does not say how long its pickles are."""

    def __init__(self, file: Any) -> None:
        self._file, self._reads = file, 0
        self.seek, self.tell = file.seek, file.tell

    def _count(self) -> None:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise pickle.UnpicklingError(f"more than {_MAX_READS} opcodes")

    def read(self, size: int = -1) -> bytes:
        self._count()
        data: bytes = self._file.read(size)
        return data

    def readline(self) -> bytes:
        self._count()
        line: bytes = self._file.readline()
        return line

    def readinto(self, buffer: Any) -> int:
        self._count()
        return int(self._file.readinto(buffer))


def _reason(error: BaseException) -> str:
    if isinstance(error, pickle.UnpicklingError):
        # torch's own message wraps the culprit's in advice to trust the file.
        detail = " ".join(str(error.__context__ or error).split()).partition(". Please ")[0]
        return f"refused, it is not a plain weights file (nothing in it was run): {detail[:160]}"
    return f"not a readable torch file: {type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _flatten(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, (Tensor, *_PLAIN)):
        yield prefix, tree
    elif isinstance(tree, _Settings):
        yield from _flatten(vars(tree), prefix, depth)
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
