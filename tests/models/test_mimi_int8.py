"""Mimi in int8: what is converted, the file, and how near the sound stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mimi_models
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import fastvoc
from fastvoc import quantization
from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.loading import loaded, save
from fastvoc.quantization import calibrate

CONFIG = replace(mimi_models.SMALL, dimension=48, heads=3, kv_heads=3, head_dim=16, hidden=80, code_dimension=24)


def checkpoint() -> Checkpoint:
    return Checkpoint(CONFIG, dict(mimi_models.lively(CONFIG).state_dict()), "test")


def clip(seed: int = 0) -> Tensor:
    return mimi_models.noise(CONFIG, 600 * CONFIG.hop, seed=seed)[0, 0]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 file of a small model."""
    file = tmp_path_factory.mktemp("int8") / "mimi.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, "MIN_SECONDS", 0.5)
        save(calibrate(checkpoint(), [clip(seed) for seed in range(3)]), file)
    return file


def codec(path: Path, **options: str) -> Codec:
    made = fastvoc.load(path, **options)
    assert isinstance(made, Codec)
    return made


def test_the_decoders_transformer_is_what_computes_in_int8(path: Path) -> None:
    int8 = codec(path)
    assert int8.dtype is torch.int8
    names = {row.layer for row in fastvoc.explain(int8) if row.int8}
    assert names == {f"decoder_transformer.layers.{i}" for i in range(CONFIG.layers)}
    whole = {name for name, tensor in load_file(path).items() if tensor.dtype is torch.int8}
    six = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.fc1", "mlp.fc2"
    assert whole == {f"{layer}.{name}.weight" for layer in names for name in six}


def test_codes_stay_and_the_sound_is_near(path: Path) -> None:
    float32, int8 = loaded(checkpoint()), codec(path)
    assert isinstance(float32, Codec)
    wav = clip(9)
    codes = float32.encode(wav)
    assert torch.equal(int8.encode(wav).segments[0][0], codes.segments[0][0])
    meant = float32.decode(codes)
    off = int8.decode(codes) - meant
    assert 25 < 10 * torch.log10(meant.square().sum() / off.square().sum()) < 80


@pytest.mark.native
def test_streams_equal_one_call(path: Path) -> None:
    int8 = codec(path, backend="cpp")
    codes = int8.encode(clip(4)).segments[0][0]
    stream = int8.decoding(len(codes)).stream()
    parts = [stream.push(part) for part in codes[:, :90].split(1, 1)] + [stream.push(codes[:, 90:])]
    parts.append(stream.flush())
    assert torch.equal(torch.cat(parts, -1), int8.decode(codes))


def test_equal_models_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    for source in (codec(path), detect_and_load(path)):
        save(source, tmp_path / "again.safetensors")
        again, first = load_file(tmp_path / "again.safetensors"), load_file(path)
        assert again.keys() == first.keys()
        for name, tensor in first.items():
            assert torch.equal(again[name], tensor) or name.endswith("weight_scale"), name


def test_the_rounded_weights_load_in_floats(path: Path) -> None:
    assert not any(row.int8 for row in fastvoc.explain(codec(path, dtype="fp32")))


def test_ranges_that_do_not_fit_together_are_refused(path: Path) -> None:
    attention = codec(path).model.decoder_transformer.layers[0]  # type: ignore[union-attr,index]
    span = attention.self_attn.k_proj.input_range
    attention.self_attn.k_proj.input_range = 2 * span
    with pytest.raises(ArgumentError, match="the same for q_proj, k_proj and v_proj"):
        attention.params()
    attention.self_attn.k_proj.input_range = None
    with pytest.raises(ArgumentError, match="expected all 6 or none, got 5"):
        attention.params()
