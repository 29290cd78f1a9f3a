"""Loaded models in pickles, copies and other processes: the same bits, in about the size of the weights."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import NAMES, Uses, samples_of, saved
from recording import Rerun
from torch import Tensor

import fastvoc
from fastvoc.compat.cosyvoice import HiFTGenerator
from fastvoc.errors import DtypeError, StreamError
from fastvoc.graphs.graphed import Graphed
from fastvoc.runtime.registry import OPS


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def _stored(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


each_way = pytest.mark.parametrize(
    "again", [_pickled, _stored, copy.deepcopy], ids=["pickle", "torch.save", "deepcopy"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def _assert_equal(ours: dict[str, Tensor], meant: dict[str, Tensor]) -> None:
    for name, value in meant.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name


@each_way
@pytest.mark.parametrize("name", NAMES)
def test_a_model_comes_back(name: str, again: Callable[[Any], Any], folder: Path) -> None:
    loaded = fastvoc.load(saved(name, folder))
    uses = Uses(loaded)
    meant, once = uses(loaded), uses.once(loaded)  # leave packed weights, bound layers and cached properties behind
    ours = again(loaded)
    assert (type(ours), ours.config, ours.dtype, ours.backend) == (type(loaded), loaded.config, loaded.dtype, None)
    _assert_equal(uses(ours), meant)
    with torch.no_grad():
        for parameter in ours.model.parameters():
            parameter.zero_()
    assert torch.equal(uses.once(loaded), once)
    assert not torch.equal(uses.once(ours), once)


@each_way
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_narrow_model_comes_back(dtype: str, again: Callable[[Any], Any]) -> None:
    loaded, mel = fastvoc.load("hifigan", dtype=dtype), torch.randn(80, 60)
    meant = loaded(mel, check=False)
    ours = again(loaded)
    assert ours.dtype is loaded.dtype
    assert torch.equal(ours(mel, check=False), meant)


def test_a_forced_backend_stays_forced(folder: Path) -> None:
    loaded = fastvoc.load(saved("vocos-same", folder), backend="torch")
    ours = _pickled(loaded)
    assert ours.backend == "torch"
    assert {row.chosen for row in fastvoc.explain(ours, ours.backend)} == {"torch"}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_pickle_is_as_large_as_the_weights(dtype: str) -> None:
    loaded = fastvoc.load("hifigan", dtype=dtype)
    loaded(torch.randn(80, 60), check=False)
    weights = sum(t.numel() * t.element_size() for t in loaded.model.state_dict().values())
    size = len(pickle.dumps(loaded))
    assert weights < size < 1.05 * weights + 1000 * len(loaded.model.state_dict())


def test_a_process_pool_takes_it(folder: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in ("hifigan-1", "int8"):
            loaded = fastvoc.load(saved(name, folder))
            mel = Uses(loaded).mel[0].numpy()
            assert pool.submit(samples_of, loaded, mel).result() == samples_of(loaded, mel), name


@each_way
def test_a_generator_of_another_package_comes_back(again: Callable[[Any], Any]) -> None:
    model, mel = HiFTGenerator(base_channels=32).eval().requires_grad_(False), torch.randn(1, 80, 20)
    source = torch.randn(1, 1, 20 * 256) * 0.1
    meant = model.decode(mel, source)
    assert torch.equal(again(model).decode(mel, source), meant)


@each_way
def test_an_op_is_the_one_of_the_process(again: Callable[[Any], Any]) -> None:
    assert len(OPS) > 10
    assert all(again(op) is op for op in OPS.values())


@pytest.mark.parametrize("again", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_what_belongs_to_a_process_says_so(again: Callable[[Any], Any], folder: Path) -> None:
    voc, codec = (fastvoc.load(saved(name, folder)) for name in ("hifigan-1", "codec-mono"))
    for stream in (voc.stream(), codec.decoding(2).stream()):
        with pytest.raises(StreamError, match="state"):
            again(stream)
    with pytest.raises(StreamError, match="model"):
        again(fastvoc.Streams(voc))
    with pytest.raises(DtypeError, match="model"):
        again(Graphed(voc, capture=Rerun()))
