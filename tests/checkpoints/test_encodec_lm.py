"""The files of EnCodec's language models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.encodec_lm import EncodecLmConfig
from helpers import GoldenCase

CONFIG = EncodecLmConfig(24000, 32, dim=8, layers=2, hidden=12, past=262)


def state(config: EncodecLmConfig = CONFIG) -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in config.tensors()}


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path)
    return path


@pytest.mark.golden
def test_golden_files(golden: Callable[[str], GoldenCase]) -> None:
    case = golden("encodec_ecdc")
    for rate, codebooks in ((24, 4), (48, 2)):
        path = case.dir / f"encodec_{rate}khz_lm.th"
        checkpoint = detect_and_load(path)
        assert checkpoint.config == EncodecLmConfig(rate * 1000, codebooks, dim=16, layers=2, hidden=64, past=7)
        tensors = torch.load(path, weights_only=True)
        assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in tensors.items())
        assert len(checkpoint.state) == len(tensors)


def test_published_sizes(tmp_path: Path) -> None:
    assert detect_and_load(saved(tmp_path / "lm.th", state())).config == CONFIG
    stereo = EncodecLmConfig(48000, 16, dim=8, layers=1, hidden=8, past=525)
    assert detect_and_load(saved(tmp_path / "lm.th", state(stereo))).config == stereo
    (tmp_path / "config.json").write_text(json.dumps({"lm": {"num_heads": 2, "past_context": 9}}))
    config = detect_and_load(tmp_path / "lm.th").config
    assert (config.heads, config.past) == (2, 9)


def test_the_hash_in_the_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "lm.th", state())
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(tmp_path / f"encodec_lm_24khz-{sha[:8]}.th")
    assert detect_and_load(path).config == CONFIG
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(LoadError, match=f"begins with {sha[:8]}"):
        detect_and_load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("emb.3.weight"), "name the file after one of them"),
        (lambda t: t.pop("transformer.layers.1.norm1.bias"), "tensor 'transformer.layers.1.norm1.bias' .* is missing"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "'extra' .* has no place"),
        (lambda t: t.update({"linears.9.bias": torch.zeros(7)}), r"'linears.9.bias' has shape \[7\]"),
        (lambda t: t.update({"emb.0.weight": torch.zeros(1025)}), "'emb.0.weight' is missing, or is no matrix"),
        (lambda t: t.update({"emb.0.weight": torch.zeros(1025, 7)}), "illegal configuration: EncodecLmConfig.dim"),
        (lambda t: t.update({"emb.0.weight": torch.zeros(1, 8)}), "illegal configuration: EncodecLmConfig.codes"),
        (lambda t: t["linears.9.bias"].fill_(float("nan")), "'linears.9.bias' holds NaN"),
        (lambda t: t.pop("transformer.layers.0.linear1.weight"), "'transformer.layers.0.linear1.weight' is missing"),
    ],
)
def test_refusals(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str) -> None:
    tensors = state()
    change(tensors)
    with pytest.raises(LoadError, match=message):
        detect_and_load(saved(tmp_path / "lm.th", tensors))


@pytest.mark.parametrize("values", [{"num_heads": 3}, {"num_heads": "8"}, {"past_context": -1}, {"past_context": 1e9}])
def test_illegal_texts(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"lm": values}))
    with pytest.raises(LoadError, match="illegal configuration"):
        detect_and_load(saved(tmp_path / "lm.th", state()))
