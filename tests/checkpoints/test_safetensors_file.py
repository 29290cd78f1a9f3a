"""The safetensors container: every lie in a header is found before anything is allocated; written bytes are stable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import SMALL, random_state
from safetensors.torch import load_file, save_file

from fastvoc.checkpoints import Checkpoint, detect_and_load, save
from fastvoc.checkpoints.safetensors_file import read_header
from fastvoc.errors import ArgumentError, DtypeError, LoadError
from helpers import cpu_seconds

HF = {
    "model_type": "speecht5_hifigan",
    "normalize_before": False,
    "model_in_dim": 6,
    "upsample_initial_channel": 8,
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 2], [1, 3]],
}


def published(folder: Path) -> Path:
    """A folder as Transformers writes it; returns the weights file."""
    (folder / "config.json").write_text(json.dumps(HF))
    path = folder / "model.safetensors"
    save_file({k.replace("ups.", "upsampler."): v for k, v in random_state(SMALL).items()}, path)
    return path


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(path: Path, header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def first(header: dict[str, Any]) -> dict[str, Any]:
    return min(header.values(), key=lambda info: info["data_offsets"])


def lie(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def apply(header: dict[str, Any]) -> dict[str, Any]:
        return change(header) or header

    return apply


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "100k tensors": lambda h: {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)},
    "20k tensors": lambda h: {f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)},
    "overlap": lambda h: h["conv_pre.bias"].update(data_offsets=first(h)["data_offsets"]),
    "shared range": lambda h: h.update(copy=dict(h["conv_pre.bias"])),
    "gap": lambda h: h.pop("conv_pre.bias") and None,
    "u64 overflow in the range": lambda h: h["conv_pre.bias"].update(data_offsets=[2**64 - 32, 2**64]),
    "u64 overflow in the shape": lambda h: h["conv_pre.bias"].update(shape=[2**32, 2**32, 8]),
    "product wraps to the right size": lambda h: h["conv_pre.bias"].update(shape=[2**63, 2, 8]),
    "zero size": lambda h: h["conv_pre.bias"].update(shape=[0]),
    "zero size elsewhere": lambda h: h.update(empty={"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}),
    "negative": lambda h: h["conv_pre.bias"].update(shape=[-8]),
    "fraction": lambda h: h["conv_pre.bias"].update(shape=[8.0]),
    "boolean": lambda h: h["conv_pre.bias"].update(shape=[True, 8]),
    "text": lambda h: h["conv_pre.bias"].update(shape="8"),
    "reversed range": lambda h: h["conv_pre.bias"].update(data_offsets=h["conv_pre.bias"]["data_offsets"][::-1]),
    "three offsets": lambda h: h["conv_pre.bias"].update(data_offsets=[0, 32, 64]),
    "wider dtype": lambda h: h["conv_pre.bias"].update(dtype="F64"),
    "unknown dtype": lambda h: h["conv_pre.bias"].update(dtype="F4"),
    "dtype is a list": lambda h: h["conv_pre.bias"].update(dtype=["F32"]),
    "integers": lambda h: h["conv_pre.bias"].update(dtype="I32"),
    "other shape": lambda h: h["conv_pre.bias"].update(shape=[4, 2]),
    "many axes": lambda h: h["conv_pre.bias"].update(shape=[1] * 1000 + [8]),
    "no dtype": lambda h: h["conv_pre.bias"].pop("dtype") and None,
    "extra field": lambda h: h["conv_pre.bias"].update(code="x"),
    "entry is a list": lambda h: h.update({"conv_pre.bias": []}),
    "metadata is a list": lambda h: h.update(__metadata__=[1]),
    "metadata of numbers": lambda h: h.update(__metadata__={"a": 1}),
    "deep metadata": lambda h: h.update(__metadata__={"a": {"b": {}}}),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_header_lies(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = published(tmp_path)
    detect_and_load(path)
    header, data = split(path)
    join(path, lie(LIES[name])(header), data)

    def allocate(*args: object, **kwargs: object) -> None:
        raise AssertionError("allocated before the header was checked")

    monkeypatch.setattr(torch, "empty", allocate)

    def refused() -> None:
        with pytest.raises(LoadError, match=str(path)):
            detect_and_load(path)

    assert cpu_seconds(refused) < 1


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1, 100 << 20])
def test_header_length_lies(length: int, tmp_path: Path) -> None:
    path = published(tmp_path)
    header, data = split(path)
    join(path, header, data, length)
    with pytest.raises(LoadError):
        detect_and_load(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"{'a': 1}",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a":' * 5000,
        b"\xff{}",
        b"{" + b"9" * 9000,
    ],
)
def test_header_text(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    join(path, text, b"")
    with pytest.raises(LoadError):
        detect_and_load(path)


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_truncated_and_extended(cut: int, tmp_path: Path) -> None:
    path = published(tmp_path)
    data = path.read_bytes()
    for broken in (data[:-cut], data + bytes(cut), data[: cut + 7]):
        path.write_bytes(broken)
        with pytest.raises(LoadError):
            detect_and_load(path)


def test_duplicate_names(tmp_path: Path) -> None:
    path = published(tmp_path)
    header, data = split(path)
    text = json.dumps(header).encode()
    entry = json.dumps({"conv_pre.bias": header["conv_pre.bias"]}).encode()
    join(path, text[:-1] + b", " + entry[1:], data)
    with pytest.raises(LoadError, match="twice"):
        detect_and_load(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_written_file(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = Checkpoint(SMALL, random_state(SMALL), "test", {"licence": "CC0-1.0"})
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save(checkpoint, path, dtype)
    shuffled = dict(reversed(checkpoint.state.items()))
    save(Checkpoint(SMALL, shuffled, "test", {"licence": "CC0-1.0"}), again, dtype)
    assert path.read_bytes() == again.read_bytes()
    theirs = load_file(path)  # by the format's own library
    assert theirs.keys() == checkpoint.state.keys()
    assert all(torch.equal(theirs[name], tensor.to(dtype)) for name, tensor in checkpoint.state.items())
    copy = detect_and_load(path)
    assert copy.config == SMALL
    assert copy.metadata == {"licence": "CC0-1.0", "format": "test"}
    for name, tensor in checkpoint.state.items():
        assert copy.state[name].dtype == torch.float32
        assert torch.equal(copy.state[name], tensor.to(dtype).float())
    assert read_header(path)[2] % 8 == 0


def test_changed_tensor_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(Checkpoint(SMALL, random_state(SMALL), "test"), path)
    data = bytearray(path.read_bytes())
    for position in (len(data) - 1, len(data) - 3, len(data) // 2):
        changed = data.copy()
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(LoadError, match="SHA-256"):
            detect_and_load(path)
    path.write_bytes(data)
    detect_and_load(path)


def test_foreign_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(Checkpoint(SMALL, random_state(SMALL), "test"), path)
    header, data = split(path)
    description = json.loads(header["__metadata__"]["fastvoc"])
    changes = [
        {"version": 2},
        {"model": "vocos"},
        {"config": {}},
        {"config": {**description["config"], "upsample_rates": [4, 4]}},
        {"config": {**description["config"], "surprise": 1}},
        {"config": {**description["config"], "mel": {"sample_rate": 1}}},
        {"config": {**description["config"], "upsample_rates": 5}},
        {"config": None},
        {"sha256": None},
        {"sha256": "0" * 64},
        {"metadata": {"a": 1}},
    ]
    for change in changes:
        header["__metadata__"] = {"fastvoc": json.dumps({**description, **change})}
        join(path, header, data)
        with pytest.raises(LoadError, match=str(path)):
            detect_and_load(path)
    header["__metadata__"] = {"fastvoc": "not json"}
    join(path, header, data)
    with pytest.raises(LoadError, match=str(path)):
        detect_and_load(path)


def test_save_refuses_what_does_not_fit(tmp_path: Path) -> None:
    state = random_state(SMALL)
    state["conv_pre.bias"][0] = 1e6
    path = tmp_path / "a.safetensors"
    with pytest.raises(ArgumentError, match=r"conv_pre\.bias"):
        save(Checkpoint(SMALL, state, "test"), path, torch.float16)
    with pytest.raises(DtypeError, match="int8"):
        save(Checkpoint(SMALL, state, "test"), path, torch.int8)
    assert list(tmp_path.iterdir()) == []
