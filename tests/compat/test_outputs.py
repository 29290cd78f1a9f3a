"""Outputs: one value under attribute, key and place; pytrees, copies and pickles; as transformers' own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from fastvoc.compat import transformers as ours
from fastvoc.compat.outputs import BatchFeature, ModelOutput
from fastvoc.errors import ArgumentError, FastvocError
from helpers import golden

OUTPUTS = [getattr(ours, name) for name in ours.__all__ if name.endswith("Output") and name != "ModelOutput"]
each_output = pytest.mark.parametrize("kind", OUTPUTS)


def whole(kind: type[ModelOutput]) -> tuple[ModelOutput, list[str], list[torch.Tensor]]:
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    tensors = [torch.full((2,), float(i)) for i in range(len(names))]
    return kind(*tensors), names, tensors


@each_output
def test_attribute_key_and_place_are_one_value(kind: type[ModelOutput]) -> None:
    output, names, tensors = whole(kind)
    for i, name in enumerate(names):
        assert output[name] is output[i] is getattr(output, name) is output.to_tuple()[i] is tensors[i]
        other = torch.zeros(3)
        setattr(output, name, other)
        assert output[name] is output[i] is output.get(name) is other
        output[name] = tensors[i]
        assert getattr(output, name) is output[i] is tensors[i]
    assert list(output) == list(output.keys()) == names
    assert output[:] == tuple(tensors)
    assert output[-1:] == (tensors[-1],)
    assert all(a is b for a, b in zip((lambda **given: given.values())(**output), tensors, strict=True))
    setattr(output, names[0], None)
    assert list(output) == names[1:]
    assert getattr(output, names[0]) is None


REBUILT: dict[str, Callable[[Any], Any]] = {
    "dict": lambda o: type(o)(dict(o)),
    "pairs": lambda o: type(o)(list(o.items())),
    "iterator": lambda o: type(o)((name, value) for name, value in o.items()),
    "keywords": lambda o: type(o)(**o),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda o: pickle.loads(pickle.dumps(o)),
    "tree_map": lambda o: pytree.tree_map(lambda t: t.clone(), o),
    "flattened": lambda o: pytree.tree_unflatten(*pytree.tree_flatten(o)),
}


@each_output
@pytest.mark.parametrize("how", REBUILT)
def test_rebuilt(kind: type[ModelOutput], how: str) -> None:
    output, names, tensors = whole(kind)
    parts = [kind(**{names[-1]: tensors[-1]}), output]
    for part in parts:
        again = REBUILT[how](part)
        assert type(again) is kind
        assert list(again) == list(part)
        for name in names:
            a, b = getattr(again, name), getattr(part, name)
            assert a is b is None or torch.equal(a, b)
            assert again.get(name) is a
    assert len(pytree.tree_leaves(output)) == len(names)


@each_output
def test_nothing_gets_out_of_step(kind: type[ModelOutput]) -> None:
    output, names, _ = whole(kind)
    changes: list[Callable[[], Any]] = [
        lambda: output.pop(names[0]),
        lambda: output.update({names[0]: 1}),
        lambda: output.setdefault("new", 1),
        lambda: output.__delitem__(names[0]),
        lambda: delattr(output, names[0]),
        lambda: output.popitem(),
        lambda: output.clear(),
    ]
    for change in changes:
        with pytest.raises(FastvocError, match=f"{kind.__name__}: keys are set one by one"):
            change()
    assert list(output) == names


def test_as_transformers_has_it() -> None:
    generic = pytest.importorskip("transformers.utils")

    @dataclass
    class Mine(ModelOutput):
        first: Any = None
        second: Any = None

    @dataclass
    class Theirs(generic.ModelOutput):  # type: ignore[misc,name-defined]
        first: Any = None
        second: Any = None

    tensor = torch.zeros(1)
    uses: list[Callable[[Any], Any]] = [
        lambda kind: kind(tensor),
        lambda kind: kind(second=[1, 2]),
        lambda kind: kind({"first": 1, "second": None}),
        lambda kind: kind([("second", 3)]),
        lambda kind: kind([1, 2]),
        lambda kind: kind({"first": {"a": 1}}, second=5),
        lambda kind: kind("text"),
        lambda kind: kind(),
    ]
    for use in uses:
        mine, theirs = use(Mine), use(Theirs)
        assert dict(mine) == dict(theirs)
        assert (mine.first, mine.second) == (theirs.first, theirs.second)
        assert mine.to_tuple() == theirs.to_tuple()
        assert pytree.tree_leaves(mine) == pytree.tree_leaves(theirs)


@pytest.mark.golden
def test_edited_codes_are_decoded() -> None:
    model = ours.EncodecModel.from_pretrained(golden("hf_encodec_24k_small").dir)
    made = model.encode(torch.randn(1, 1, 3000) * 0.1, bandwidth=6.0)
    whole = model.decode(**made)[0]
    made.audio_codes = made.audio_codes[:, :, :2]
    cut = model.decode(**made)[0]
    assert not torch.equal(cut, whole)
    assert torch.equal(cut, model.decode(made.audio_codes, made.audio_scales)[0])


def test_batch_features() -> None:
    rows = [np.ones(3, np.float32), np.zeros(3, np.float32)]
    features = BatchFeature({"a": rows, "b": [1, 2], "c": "text", "d": torch.ones(2)}, tensor_type="pt")
    assert features.a.shape == (2, 3)
    assert features.b.dtype == torch.int64
    assert features["c"] == "text"
    assert isinstance(BatchFeature({"d": torch.ones(2)}).convert_to_tensors("np").d, np.ndarray)
    assert BatchFeature({"a": rows}, "pt", ["a"]).a is rows
    again = pickle.loads(pickle.dumps(features))
    assert torch.equal(again.a, features.a)
    assert list(again) == list(features)
    with pytest.raises(ArgumentError, match="a: makes no one tensor"):
        BatchFeature({"b": [1], "a": [np.ones(2), np.ones(3)]}, "pt")
    with pytest.raises(ArgumentError, match="tensor_type: expected pt, np or None, got 'tf'"):
        BatchFeature({}, "tf")


def test_batch_features_as_transformers_makes_them() -> None:
    theirs = pytest.importorskip("transformers").BatchFeature
    rows = [np.ones(3, np.float32), np.zeros(3, np.float32)]
    for value in (rows, rows[0], [rows, rows], [1, 2], [1.5, 2.0], [[1, 2], [3, 4]], torch.ones(2), [torch.ones(2)]):
        for kind in ("pt", "np"):
            made, expected = BatchFeature({"a": value}, kind).a, theirs({"a": value}, kind)["a"]
            assert type(made) is type(expected)
            assert made.dtype == expected.dtype
            assert np.array_equal(np.asarray(made), np.asarray(expected))
