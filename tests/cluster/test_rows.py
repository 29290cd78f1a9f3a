"""Columns in every form that Ray gives them, and batches of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ray.batches import batches, check_frames
from fastvoc.ray.columns import array, check_columns, floats, rows, whole

pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120), st.data())
def test_every_row_is_in_one_batch(lengths: list[int], frames: int, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from("ab"), min_size=len(lengths), max_size=len(lengths)))
    made = batches(lengths, frames, kinds)
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= frames
        assert len({kinds[i] for i in batch}) == 1


def test_like_lengths_come_together() -> None:
    assert batches([5, 100, 6, 99], 200) == [[1, 3], [2, 0]]


@pytest.mark.parametrize("frames", [0, -1, True, 2.0])
def test_frames_of_a_batch(frames: Any) -> None:
    with pytest.raises(ArgumentError, match="frames: expected 1 or more"):
        check_frames(frames)


def _lists(values: list[np.ndarray[Any, Any]]) -> Any:
    return pa.chunked_array([pa.array([value.tolist() for value in values], pa.list_(pa.list_(pa.float32())))])


def test_lists_of_lists() -> None:
    values = [np.random.default_rng(n).standard_normal((3, n)).astype(np.float32) for n in (4, 7)]
    for found, value in zip(rows(_lists(values)), values, strict=True):
        assert np.array_equal(floats(found, "mel"), value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shapes", [[(3, 4), (3, 4)], [(3, 4), (3, 7)], [(5,), (5,)], [(5,), (2,)]])
def test_tensors_of_ray(shapes: list[tuple[int, ...]]) -> None:
    """Equal shapes come stacked and read-only, others as objects."""
    extensions = pytest.importorskip("ray.data.extensions", reason="ray is not installed")
    values = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)]
    kind = extensions.ArrowTensorArray if len(set(shapes)) == 1 else extensions.ArrowVariableShapedTensorArray
    column = pa.chunked_array([kind.from_numpy(np.stack(values) if len(set(shapes)) == 1 else values)])
    found = rows(column)
    assert len(found) == 2
    for one, value in zip(found, values, strict=True):
        own = floats(one, "mel")
        assert np.array_equal(own, value)
        own[...] = 0.0  # the block stays as it is
    assert np.array_equal(array(rows(column)[1], "mel"), values[1])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, DtypeError, "mel: expected an array of numbers, got None"),
        ("x", DtypeError, "mel: expected an array of numbers, got 'x'"),
        (np.zeros((80, 4), np.int64), DtypeError, "mel: expected floating-point values, got int64"),
        (np.array(["a"]), DtypeError, "mel: expected numbers, got"),
        ([], ShapeError, "mel: expected an array of numbers, got an empty one"),
        (np.zeros((80, 0), np.float32), ShapeError, "mel: expected at least one value"),
        ([[1.0], [1.0, 2.0]], ShapeError, "mel: expected rows of one length, got"),
    ],
)
def test_what_is_no_array_of_floats(value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        floats(value, "mel")
    assert str(raised.value).startswith(message)


def test_whole_numbers() -> None:
    assert (whole(3, "n"), whole(np.int32(4), "n"), whole(5.0, "n")) == (3, 4, 5)
    for value in (True, 1.5, None, "3", float("nan")):
        with pytest.raises(DtypeError, match="n: expected a whole number"):
            whole(value, "n")


def test_columns_that_are_not_there() -> None:
    check_columns(["a"], ["a", "b"])
    with pytest.raises(ArgumentError, match="no 'mel' in the dataset, which has a, b"):
        check_columns(["a", "mel"], ["a", "b"])
