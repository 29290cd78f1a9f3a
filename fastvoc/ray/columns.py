"""Columns of a dataset's blocks as arrays, one a row, in all the forms that Ray gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastvoc.errors import ArgumentError, DtypeError, ShapeError, shown

if TYPE_CHECKING:
    import pyarrow as pa


def rows(column: pa.ChunkedArray) -> list[object]:
    """The rows of a column: of tensors and lists arrays, which may be read-only views of the block, None where null.

    Equal shapes lie in one stacked array, others in an array of objects; lists of lists are objects within objects.
    """
    found: list[object] = []
    for chunk in column.chunks:
        found.extend(chunk.to_numpy(zero_copy_only=False))
    return found


def array(value: object, name: str) -> np.ndarray[Any, Any]:
    """A row's value as one array of numbers. Raises DtypeError or ShapeError that begins with `name`."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value
    if not isinstance(value, np.ndarray | list | tuple):
        raise DtypeError(f"{name}: expected an array of numbers, got {shown(value)}")
    if not len(value):
        raise ShapeError(f"{name}: expected an array of numbers, got an empty one")
    if not isinstance(value[0], np.ndarray | list | tuple):
        plain = np.asarray(list(value))
        if plain.dtype.kind not in "fiu" or plain.ndim != 1:
            raise DtypeError(f"{name}: expected numbers, got {shown(value[0])}")
        return plain
    parts = [array(part, name) for part in value]
    if len({part.shape for part in parts}) > 1:
        raise ShapeError(f"{name}: expected rows of one length, got {sorted({part.shape[0] for part in parts})}")
    return np.stack(parts)


def floats(value: object, name: str) -> np.ndarray[Any, Any]:
    """A row's value as a writable array of its own in float32. Raises DtypeError or ShapeError."""
    given = array(value, name)
    if given.dtype.kind != "f":
        raise DtypeError(f"{name}: expected floating-point values, got {given.dtype}")
    if not given.size:
        raise ShapeError(f"{name}: expected at least one value, got {list(given.shape)}")
    return np.array(given, np.float32, order="C")


def whole(value: object, name: str) -> int:
    """A row's value as a whole number. Raises DtypeError."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():  # whole numbers with nulls among them
        return int(value)
    raise DtypeError(f"{name}: expected a whole number, got {shown(value)}")


def check_columns(wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raises ArgumentError for a column that is not there."""
    for name in wanted:
        if name not in there:
            raise ArgumentError(f"column: no {name!r} in the dataset, which has {', '.join(there)}")
