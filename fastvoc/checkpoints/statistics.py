"""ParallelWaveGAN's feature statistics: mean and scale of each mel band, in `stats.npy` or `stats.h5`."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import refuse

_MAX_BYTES = 1 << 20
_NPY_HEADER = re.compile(rb"\{'descr': '<f([48])', 'fortran_order': False, 'shape': \(2, (\d{1,5})\), *\}\s*")
_ADVICE = "save the statistics as stats.npy instead"


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """(mean, scale), each float32 [num_mels]. Raises LoadError when the file is not what its suffix says."""
    if path.stat().st_size > _MAX_BYTES:
        raise refuse(path, f"{path.stat().st_size} bytes, expected statistics of at most {_MAX_BYTES}")
    data = path.read_bytes()
    try:
        if path.suffix == ".npy":
            mean, scale = _read_npy(data)
        else:
            mean, scale = (_read_hdf5(data, name) for name in ("mean", "scale"))
    except (ValueError, OverflowError, struct.error) as error:
        raise refuse(path, f"no readable statistics: {error}") from None
    if mean.shape != scale.shape or not np.all(scale != 0):
        raise refuse(path, f"mean {list(mean.shape)} and scale {list(scale.shape)} differ in shape, or a scale is zero")
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    return torch.tensor(mean, **kind), torch.tensor(scale, **kind)


def _read_npy(data: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    # numpy's own reader parses the header as Python source, with all the errors that can raise.
    start = 10 + int.from_bytes(data[8:10], "little")
    match = _NPY_HEADER.fullmatch(data[10:start])
    if data[:8] != b"\x93NUMPY\x01\0" or match is None:
        raise ValueError("expected an npy file of a float array [2, num_mels]")
    itemsize, bands = int(match[1]), int(match[2])
    mean, scale = np.frombuffer(data, f"<f{itemsize}", 2 * bands, start).reshape(2, bands)
    return mean, scale


def _read_hdf5(data: bytes, name: str) -> np.ndarray[Any, Any]:
    """A one-dimensional, contiguous float dataset in the root group of an HDF5 file with superblock version 0.

    That is what h5py writes by default. Structure: HDF5 File Format Specification, version 3.0.
    """

    def unpack(layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{layout}", data, offset)

    def tagged(tag: bytes, offset: int) -> int:
        if data[offset : offset + 4] != tag:
            raise ValueError(f"no {tag.decode()} block at byte {offset}")
        return offset

    if data[:9] != b"\x89HDF\r\n\x1a\n\0" or data[13:15] != b"\x08\x08":
        raise ValueError(f"not an HDF5 file with superblock version 0; {_ADVICE}")
    tree, heap = unpack("QQ", 0x50)
    (names,) = unpack("Q", tagged(b"HEAP", heap) + 24)
    level, used = unpack("xBH", tagged(b"TREE", tree) + 4)
    if level != 0:
        raise ValueError("more datasets than statistics have")
    for child in range(used):
        (node,) = unpack("Q", tree + 32 + 16 * child)
        (symbols,) = unpack("H", tagged(b"SNOD", node) + 6)
        for symbol in range(symbols):
            label, header = unpack("QQ", node + 8 + 40 * symbol)
            if data[names + label : names + label + len(name) + 1] == name.encode() + b"\0":
                return _read_dataset(data, header)
    raise ValueError(f"no dataset {name!r}")


def _read_dataset(data: bytes, header: int) -> np.ndarray[Any, Any]:
    (length,) = struct.unpack_from("<I", data, header + 8)
    offset, end = header + 16, header + 16 + length
    messages: dict[int, bytes] = {}
    while offset + 8 <= min(end, len(data)):
        kind, size = struct.unpack_from("<HH", data, offset)
        messages.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    space, kind, layout = (messages.get(message, b"") for message in (0x01, 0x03, 0x08))
    if space[:2] != b"\x01\x01" or kind[:1] != b"\x11" or kind[1:2] != b"\x20" or layout[:2] != b"\x03\x01":
        raise ValueError(f"expected a contiguous little-endian float dataset of rank 1; {_ADVICE}")
    (count,), (itemsize,) = struct.unpack_from("<Q", space, 8), struct.unpack_from("<I", kind, 4)
    (address,) = struct.unpack_from("<Q", layout, 2)
    if itemsize not in (4, 8) or address + count * itemsize > len(data):
        raise ValueError(f"{count} values of {itemsize} bytes at byte {address} are not in the file")
    return np.frombuffer(data, f"<f{itemsize}", count, address)
