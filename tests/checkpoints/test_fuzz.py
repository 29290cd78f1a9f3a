"""Mutated files of every kind: a whole checkpoint or a LoadError, quickly; nothing else, ever."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoint_files import (
    DATA,
    SMALL,
    bigvgan_upstream,
    jik_config,
    random_state,
    unfolded,
    write_bigvgan,
    write_univnet,
)
from codec_files import file_tensors, original_config, transformers_config
from codec_files import random_state as codec_state
from codec_models import UNUSUAL
from examples import examples
from hift_files import write_cosyvoice, write_hiftnet_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_files import write_voice

from fastvoc.checkpoints import Checkpoint, detect_and_load, save
from fastvoc.errors import LoadError

MAX_SECONDS = 1.0
QUICK = examples(
    30,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG = settings(QUICK, max_examples=20_000, derandomize=False)


def whole_or_refused(path: Path) -> None:
    # A busy machine or a garbage collection may hold one call up; a slow file is slow again.
    assert _seconds(path) < MAX_SECONDS or _seconds(path) < MAX_SECONDS


def _seconds(path: Path) -> float:
    start = time.process_time()
    try:
        checkpoint = detect_and_load(path)
    except LoadError:
        pass
    else:
        shapes = dict(checkpoint.config.tensors())
        assert {name: tuple(tensor.shape) for name, tensor in checkpoint.state.items()} == shapes
        assert all(t.dtype == torch.float32 and t.isfinite().all() for t in checkpoint.state.values())
    return time.process_time() - start


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per container, with the name of the file to mutate as its only key file."""
    root = tmp_path_factory.mktemp("fuzz")
    for name in ("zip", "legacy"):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(jik_config(SMALL)))
        state = {"generator": unfolded(random_state(SMALL))}
        torch.save(state, root / name / "g_00000000", _use_new_zipfile_serialization=name == "zip")
    codec = UNUSUAL["stereo"]
    for name, text in (("original", original_config(codec)), ("transformers", transformers_config(codec))):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(text))
        torch.save(file_tensors(codec_state(codec), codec, name, "folded"), root / name / "codec.th")
    (root / "safetensors").mkdir()
    save(Checkpoint(SMALL, random_state(SMALL), "test"), root / "safetensors" / "m.safetensors")
    for name in ("nemo", "parallel_wavegan", "parallel_wavegan_plain", "speechbrain"):
        shutil.copytree(DATA / name, root / name)
        (root / name / "io.safetensors").unlink()
    for name in ("bigvgan", "univnet"):
        (root / name).mkdir()
    write_bigvgan(root / "bigvgan", *bigvgan_upstream())
    write_univnet(root / "univnet")
    write_cosyvoice(root / "cosyvoice")
    write_hiftnet_model(root / "hiftnet_model")
    if importlib.util.find_spec("onnx") is not None:
        write_voice(root / "onnx", SMALL)
    return {folder.name: folder for folder in root.iterdir()}


TARGETS = {
    "zip": "g_00000000",
    "legacy": "g_00000000",
    "safetensors": "m.safetensors",
    "nemo": "hifigan.nemo",
    "parallel_wavegan": "stats.h5",
    "parallel_wavegan_plain": "stats.npy",
    "speechbrain": "hyperparams.yaml",
    "bigvgan": "bigvgan_generator.pt",
    "univnet": "preprocessor_config.json",
    "cosyvoice": "cosyvoice2.yaml",
    "hiftnet_model": "config.json",
}
if importlib.util.find_spec("onnx") is not None:
    TARGETS["onnx"] = "voice.onnx"


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Where (as a fraction, often near the start, where the headers are) and what to change."""
    kinds = st.sampled_from(["flip", "write", "insert", "delete", "cut", "repeat"])
    place = st.one_of(st.floats(0, 1), st.floats(0, 0.02), st.floats(0.98, 1))
    return draw(st.lists(st.tuples(kinds, place, st.binary(min_size=1, max_size=12)), min_size=1, max_size=6))


def edited(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    buffer = bytearray(data)
    for kind, fraction, content in changes:
        at = min(int(fraction * len(buffer)), max(len(buffer) - 1, 0))
        if kind == "flip" and buffer:
            buffer[at] ^= 1 << (content[0] % 8)
        elif kind == "write":
            buffer[at : at + len(content)] = content
        elif kind == "insert":
            buffer[at:at] = content
        elif kind == "delete":
            del buffer[at : at + content[0]]
        elif kind == "cut":
            del buffer[at:]
        elif kind == "repeat":
            buffer[at:at] = buffer[at : at + content[0]]
    return bytes(buffer)


def mutate_bytes(container: str, folders: dict[str, Path], changes: list[tuple[str, float, bytes]]) -> None:
    path = folders[container] / TARGETS[container]
    original = path.read_bytes()
    path.write_bytes(edited(original, changes))
    try:
        whole_or_refused(folders[container])
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("container", TARGETS)
def test_files_load_as_they_are(container: str, folders: dict[str, Path]) -> None:
    assert detect_and_load(folders[container]).state


@pytest.mark.parametrize("container", TARGETS)
@QUICK
@given(changes=edits())
def test_mutated_bytes(container: str, folders: dict[str, Path], changes: list[tuple[str, float, bytes]]) -> None:
    mutate_bytes(container, folders, changes)


@pytest.mark.slow
@pytest.mark.parametrize("container", TARGETS)
@LONG
@given(changes=edits())
def test_mutated_bytes_long(container: str, folders: dict[str, Path], changes: list[tuple[str, float, bytes]]) -> None:
    mutate_bytes(container, folders, changes)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, 2**64 - 1, 10**400, 0.5, -0.0, 1e308, "", "1", "F32", "\0", "ü"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path to a value in a tree of mappings and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def replaced(tree: Any, data: st.DataObject) -> Any:
    """The tree with one to three values changed, removed or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        known = list(places(tree))
        if not known:
            break
        *way, last = data.draw(st.sampled_from(known))
        parent = tree
        for key in way:
            parent = parent[key]
        action = data.draw(st.sampled_from(["value", "value", "remove", "rename", "copy"]))
        if action == "value":
            parent[last] = data.draw(VALUES)
        elif action == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            name = data.draw(st.sampled_from(sorted(map(str, parent))) | st.text(max_size=8))
            parent[name] = parent.pop(last) if action == "rename" else copy.deepcopy(parent[last])
    return tree


CONFIGURED = ("zip", "bigvgan", "univnet", "hiftnet_model", "original", "transformers")


@pytest.mark.parametrize("folder", CONFIGURED)
@QUICK
@given(data=st.data())
def test_mutated_json(folder: str, folders: dict[str, Path], data: st.DataObject) -> None:
    mutate_json(folders[folder], data)


@pytest.mark.slow
@pytest.mark.parametrize("folder", CONFIGURED)
@settings(LONG, max_examples=2000)
@given(data=st.data())
def test_mutated_json_long(folder: str, folders: dict[str, Path], data: st.DataObject) -> None:
    mutate_json(folders[folder], data)


def mutate_json(folder: Path, data: st.DataObject) -> None:
    path = folder / "config.json"
    original = path.read_text()
    path.write_text(json.dumps(replaced(json.loads(original), data)))
    try:
        whole_or_refused(folder)
    finally:
        path.write_text(original)


@pytest.mark.parametrize(("folder", "name"), [("parallel_wavegan", "config.yml"), ("cosyvoice", "cosyvoice2.yaml")])
@QUICK
@given(data=st.data())
def test_mutated_yaml(folder: str, name: str, folders: dict[str, Path], data: st.DataObject) -> None:
    path = folders[folder] / name
    original = path.read_text()
    # The tags name classes that nothing here knows.
    tree = yaml.safe_load(re.sub(r"!\w+(:[\w.]+)?", "", original))
    path.write_text(yaml.safe_dump(replaced(tree, data), allow_unicode=True))
    try:
        whole_or_refused(folders[folder])
    finally:
        path.write_text(original)


@QUICK
@given(data=st.data())
def test_mutated_safetensors_header(folders: dict[str, Path], data: st.DataObject) -> None:
    path = folders["safetensors"] / "m.safetensors"
    original = path.read_bytes()
    length = int.from_bytes(original[:8], "little")
    header = json.loads(original[8 : 8 + length])
    if data.draw(st.booleans()):
        described = json.loads(header["__metadata__"]["fastvoc"])
        header["__metadata__"]["fastvoc"] = json.dumps(replaced(described, data))
    else:
        header = replaced(header, data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + original[8 + length :])
    try:
        whole_or_refused(path)
    finally:
        path.write_bytes(original)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 9), max_size=4))
    dtype = draw(
        st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])
    )
    return torch.zeros(shape).to(dtype)


@pytest.mark.parametrize("container", ["zip", "legacy"])
@QUICK
@given(data=st.data())
def test_mutated_weights(container: str, folders: dict[str, Path], data: st.DataObject) -> None:
    path = folders[container] / "g_00000000"
    original = path.read_bytes()
    state: dict[Any, Any] = unfolded(random_state(SMALL))
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(map(str, state))))
        action = data.draw(st.sampled_from(["tensor", "value", "remove", "rename", "view"]))
        old = state.get(name, torch.zeros(1))
        if action == "tensor":
            state[name] = data.draw(tensors())
        elif action == "value":
            state[name] = data.draw(VALUES)
        elif action == "remove":
            state.pop(name, None)
        elif action == "rename":
            state[data.draw(st.text(max_size=12) | st.integers())] = state.pop(name, old)
        elif isinstance(old, torch.Tensor) and old.dim() == 3:
            state[name] = data.draw(
                st.sampled_from([old.transpose(0, 1), old[..., :1], old[:1].expand_as(old), old[0]])
            )
    wrapper = data.draw(
        st.sampled_from([{"generator": state}, state, {"model": state}, [state], {"generator": [state]}, {}])
    )
    torch.save(wrapper, path, _use_new_zipfile_serialization=container == "zip")
    try:
        whole_or_refused(path)
    finally:
        path.write_bytes(original)
