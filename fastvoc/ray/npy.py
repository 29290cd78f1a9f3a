"""A mel that came as the bytes of a .npy file: read without trusting what it says of itself."""

from __future__ import annotations

import io
from math import prod
from typing import Any

import numpy as np

from fastvoc.errors import DecodeError


def read_npy(data: bytes) -> np.ndarray[Any, Any]:
    """The array of floating-point numbers in a .npy file of version 1 or 2. Raises DecodeError for anything else.

    Nothing is allocated or executed on the word of its header.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
        raise DecodeError(f"mel: no .npy file ({error})") from None
    rest = data[file.tell() :]
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DecodeError(f"mel: expected floating-point numbers, got {dtype}")
    if any(size < 0 for size in shape) or prod(shape) * dtype.itemsize != len(rest):
        raise DecodeError(f"mel: a .npy file of {list(shape)} {dtype} with {len(rest)} bytes of values")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
