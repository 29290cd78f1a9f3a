"""The safetensors container: the header is checked in full before anything is allocated; writing is deterministic."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import TensorEntry, refuse
from fastvoc.checkpoints.text import parse_json
from fastvoc.runtime.io import atomic_path

# The format allows 100 MB; a vocoder's header has some hundred tensors of 100 bytes.
_MAX_HEADER_BYTES = 4 << 20
_MAX_TENSORS = 1 << 14
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def looks_like_safetensors(head: bytes) -> bool:
    """Whether the first 9 bytes of a file are a length and the opening brace of the header."""
    return len(head) >= 9 and head[8:9] == b"{"


def read_header(path: Path) -> tuple[dict[str, TensorEntry], dict[str, str], int]:
    """Entries by name, the `__metadata__`, and the offset of the tensor bytes.

    Raises LoadError unless every tensor has a known dtype, a shape that fits its byte range, and the ranges fill the
    file exactly, without a gap or an overlap.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER_BYTES):
            limit = f"at most {_MAX_HEADER_BYTES}"
            raise refuse(path, f"header of {length} bytes in a file of {size}, expected {limit}; truncated?")
        header = parse_json(file.read(length), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise refuse(path, "__metadata__ is not a mapping from text to text")
    if len(header) > _MAX_TENSORS:
        raise refuse(path, f"{len(header)} tensors in the header, expected at most {_MAX_TENSORS}")
    start = 8 + length
    entries, ranges = {}, []
    for name, info in header.items():
        dtype, shape, begin, end = _tensor_info(path, name, info)
        ranges.append((begin, end, name))
        entries[name] = TensorEntry(name, shape, dtype, partial(_read, path, name, start + begin, dtype, shape))
    ranges.sort()
    position = 0
    for begin, end, name in ranges:
        if begin != position:
            raise refuse(path, f"tensor {name!r} begins at byte {begin}, expected {position}: overlap or gap")
        position = end
    if start + position != size:
        raise refuse(path, f"tensors end at byte {start + position}, the file has {size} bytes")
    return entries, metadata, start


def _tensor_info(path: Path, name: str, info: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    def bad(problem: str) -> NoReturn:
        raise refuse(path, f"tensor {name!r}: {problem}")

    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        bad("header entry has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        bad(f"dtype {dtype!r:.40} is not one of {', '.join(_DTYPES)}")
    if not _naturals(shape) or not _naturals(offsets) or len(shape) > 8 or len(offsets) != 2:
        bad("shape or data_offsets are no lists of non-negative integers")
    begin, end = offsets
    expected = math.prod(shape) * _DTYPES[dtype].itemsize
    if end - begin != expected:
        bad(f"byte range {begin}..{end} holds {end - begin} bytes, {dtype} {shape} needs {expected}")
    return _DTYPES[dtype], tuple(shape), begin, end


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in values)


def _read(path: Path, name: str, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    data = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, device="cpu")
    with path.open("rb") as file:
        file.seek(offset)
        if file.readinto(data.numpy().data) != data.numel():
            raise refuse(path, f"tensor {name!r}: the file ends inside it")
    return data.view(dtype).reshape(shape)


def update_from(sha: hashlib._Hash, path: Path, start: int) -> None:
    """Feeds a hash the file's bytes from offset `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(1 << 20):
            sha.update(block)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[bytes]]:
    """Header entries and the bytes of each tensor, in the order of their names."""
    header: dict[str, Any] = {}
    blocks, position = [], 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        block = tensor.flatten().view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + len(block)],
        }
        blocks.append(block)
        position += len(block)
    return header, blocks


def write(path: Path, header: Mapping[str, Any], blocks: list[bytes], metadata: Mapping[str, str]) -> None:
    """Writes what `tensor_bytes` made; equal input gives equal bytes. The file appears whole or not at all."""
    text = json.dumps({"__metadata__": dict(metadata), **header}, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # readers may map the tensors: keep them aligned
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(blocks)
