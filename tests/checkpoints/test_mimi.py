"""Mimi's checkpoints: Transformers' folders, moshi's files, configurations, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mimi_files import moshi_tensors, transformers_config, transformers_tensors
from mimi_models import SMALL, UNUSUAL, lively
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.mimi import canonical_names, transformers_state
from fastvoc.errors import LoadError
from fastvoc.models.mimi_config import MIMI, MimiConfig
from helpers import golden

# What moshi's loader builds, but for sizes that tensors show.
MOSHI = replace(SMALL, heads=8, kv_heads=8, head_dim=4, dimension=32, window=250, sample_rate=24000)
FILES = {name: config for name, config in UNUSUAL.items() if config.downsample == 2}


def folder_of(config: MimiConfig, state: dict[str, Tensor], folder: Path, **values: Any) -> Path:
    save_file(transformers_tensors(state), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**transformers_config(config), **values}))
    return folder


def assert_same(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert list(found) == list(state)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-6, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", FILES)
def test_any_configuration_of_transformers(name: str, tmp_path: Path) -> None:
    config, state = FILES[name], lively(FILES[name]).state_dict()
    checkpoint = detect_and_load(folder_of(config, state, tmp_path))
    assert checkpoint.config == config
    assert (checkpoint.format, checkpoint.origins) == ("transformers", {})
    assert_same(checkpoint.state, state)


@pytest.mark.parametrize("values", [{}, {"n_residual_layers": 2, "conv_shortcut": True, "semantic": 2, "layers": 3}])
def test_a_file_of_moshi_says_it_all(values: dict[str, Any], tmp_path: Path) -> None:
    config = replace(MOSHI, **values)
    state = lively(config).state_dict()
    path = tmp_path / "tokenizer-e351c8d8-checkpoint125.safetensors"
    save_file(moshi_tensors(state, config.heads), path)
    (tmp_path / "config.json").write_text('{"model_type": "moshi", "dim": 4096}')  # the language model's
    checkpoint = detect_and_load(path)
    assert checkpoint.config == config
    assert checkpoint.format == "moshi"
    assert set(checkpoint.origins) == {"sample_rate", "heads", "window"}
    assert not checkpoint.assumed
    assert_same(checkpoint.state, state)


def test_the_published_sizes_have_the_published_names() -> None:
    with torch.device("meta"):
        from fastvoc.models.mimi import Mimi

        state = Mimi(MIMI).state_dict()
    count = sum(t.numel() for t in state.values())
    assert 79_000_000 < count < 97_000_000
    names = moshi_tensors({n: torch.empty(t.shape) for n, t in state.items() if "transformer.layers.0." in n}, 8)
    assert names["decoder_transformer.transformer.layers.0.self_attn.in_proj_weight"].shape == (1536, 512)
    assert names["encoder_transformer.transformer.layers.0.linear1.weight"].shape == (2048, 512)


def test_states_go_there_and_back() -> None:
    state = lively(SMALL).state_dict()
    written = transformers_state(state)
    assert set(written) == set(transformers_tensors(state))
    back = canonical_names(written)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())
    assert all(torch.equal(canonical_names(state)[name], value) for name, value in state.items())


@pytest.mark.golden
def test_an_entry_that_was_hardly_used_is_divided_by_the_least_there_is() -> None:
    folder = golden("mimi_hf").dir
    raw, state = load_file(folder / "model.safetensors"), detect_and_load(folder).state
    stem = "quantizer.acoustic_residual_vector_quantizer.layers.2.codebook"
    total, usage = raw[f"{stem}.embed_sum"], raw[f"{stem}.cluster_usage"]
    book = state["quantizer.acoustic.rvq.codebooks.2"]
    assert usage[3] < 1e-5
    assert torch.equal(book[3], total[3] / torch.tensor(1e-5))
    assert torch.equal(book[4:], total[4:] / usage[4:, None])


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("model_type", "encodec", "expected mimi"),
        ("audio_channels", 2, "audio_channels"),
        ("use_causal_conv", False, "use_causal_conv"),
        ("trim_right_ratio", 0.5, "trim_right_ratio"),
        ("attention_bias", True, "attention_bias"),
        ("hidden_act", "relu", "hidden_act"),
        ("upsample_groups", 1, "upsample_groups"),
        ("codebook_dim", 24, "codebook_dim"),
        ("frame_rate", 50.0, "frame_rate"),
        ("pad_mode", "reflect", "pad_mode"),
        ("rope_parameters", {"rope_type": "linear", "factor": 2.0}, "rope_type"),
        ("num_attention_heads", 0, "num_attention_heads"),
        ("num_semantic_quantizers", 4, "semantic"),
        ("num_quantizers", 5, "quantizer.acoustic"),
        ("sliding_window", -1, "sliding_window"),
    ],
)
def test_what_is_no_mimi_is_refused(field: str, value: Any, named: str, tmp_path: Path) -> None:
    folder = folder_of(SMALL, lively(SMALL).state_dict(), tmp_path, **{field: value})
    with pytest.raises(LoadError, match=str(tmp_path)) as caught:
        detect_and_load(folder)
    assert named in str(caught.value)


def test_defaults_are_transformers(tmp_path: Path) -> None:
    from fastvoc.checkpoints.mimi import from_transformers
    from fastvoc.checkpoints.text import Fields

    assert from_transformers(Fields({"model_type": "mimi"}, tmp_path)) == MIMI
    rope = {"model_type": "mimi", "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "head_dim": None}
    assert from_transformers(Fields(rope, tmp_path)) == replace(MIMI, theta=500.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("quantizer.rvq_rest.vq.layers.1._codebook.cluster_usage"), "cluster_usage"),
        (lambda t: t.pop("encoder_transformer.transformer.layers.1.norm1.weight"), "encoder_transformer.layers.1"),
        (lambda t: t.pop("quantizer.rvq_first.vq.layers.0._codebook.embedding_sum"), "quantizer.semantic"),
        (lambda t: t.pop("downsample.conv.conv.conv.weight"), "downsample"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "extra"),
        (
            lambda t: t.update(
                {"decoder_transformer.transformer.layers.0.self_attn.in_proj_weight": torch.zeros(9, 32)}
            ),
            "in_proj_weight",
        ),
        (lambda t: [t.pop(n) for n in list(t) if n.startswith("decoder.model.") and ".block." in n], "residual blocks"),
    ],
)
def test_a_broken_file_of_moshi_is_refused(change: Any, named: str, tmp_path: Path) -> None:
    tensors = moshi_tensors(lively(MOSHI).state_dict(), MOSHI.heads)
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match=str(tmp_path)) as caught:
        detect_and_load(tmp_path)
    assert named in str(caught.value)
