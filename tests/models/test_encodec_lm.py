"""The language model of the .ecdc format, in floating point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ecdc_cases import golden_lm
from torch import Tensor

from fastvoc.checkpoints import Checkpoint, detect_and_load, save
from fastvoc.errors import ArgumentError, DtypeError
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig, FloatLm, quantised_cdf
from fastvoc.models.families import build, config_from_dict
from helpers import GoldenCase, assert_golden

TINY = EncodecLmConfig(codebooks=3, codes=20, dim=12, layers=2, heads=3, hidden=10, past=4)


def step_by_step(model: EncodecLm, codes: Tensor) -> Tensor:
    """Probabilities [T, K, codes] for codes [K, T]."""
    state, steps = None, []
    tokens = torch.cat([torch.zeros_like(codes[:, :1]), codes[:, :-1] + 1], dim=1)[None]
    for t in range(codes.shape[1]):
        with torch.no_grad():
            probabilities, state = model(tokens[:, :, t : t + 1], state)
        steps.append(probabilities[0, :, 0])
    return torch.stack(steps)


@pytest.mark.golden
def test_golden_probabilities(golden: Callable[[str], GoldenCase]) -> None:
    case = golden("encodec_ecdc")
    mono = step_by_step(golden_lm(case, "mono"), case.outputs["codes_mono"][0])
    assert_golden(mono, case, "lm_probs_mono")
    stereo = step_by_step(golden_lm(case, "stereo"), case.outputs["codes_stereo_seg0"][0, :, :4])
    assert_golden(stereo, case, "lm_probs_stereo_first4")


def test_equals_its_own_float64() -> None:
    model = EncodecLm(TINY).eval()
    codes = torch.randint(0, 20, (3, 30))
    doubled = EncodecLm(TINY).eval().double()
    doubled.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    wide = step_by_step(doubled, codes)
    assert wide.dtype is torch.float64
    assert (step_by_step(model, codes) - wide).abs().max() < 1e-6


@pytest.mark.parametrize("split", [1, 3, 7])
def test_many_steps_at_once_equal_single_ones(split: int) -> None:
    model = EncodecLm(TINY).eval()
    tokens = torch.randint(0, 21, (2, 3, 22))
    with torch.no_grad():
        whole = model(tokens)[0]
        state, parts = None, []
        for part in tokens.split(split, dim=2):
            probabilities, state = model(part, state)
            parts.append(probabilities)
    assert state is not None
    assert state.steps == 22
    assert torch.allclose(torch.cat(parts, dim=2), whole, atol=1e-6)
    assert torch.allclose(whole.sum(-1), torch.ones(2, 3, 22))


def test_attention_forgets() -> None:
    model = EncodecLm(EncodecLmConfig(codebooks=1, codes=20, dim=12, layers=1, heads=3, hidden=10, past=4)).eval()
    tokens = torch.randint(0, 21, (1, 1, 12))
    changed = tokens.clone()
    changed[0, 0, 3] = (changed[0, 0, 3] + 1) % 21
    with torch.no_grad():
        differs = (model(tokens)[0] != model(changed)[0]).any(-1).flatten().tolist()
    assert [t for t, differ in enumerate(differs) if differ] == [3, 4, 5, 6, 7]


def test_fewer_codebooks_than_the_model_has() -> None:
    model = EncodecLm(TINY).eval()
    with torch.no_grad():
        assert model(torch.zeros((1, 2, 1), dtype=torch.int64))[0].shape == (1, 2, 1, 20)
    lm = FloatLm(model)
    assert lm.start(2).step(None).shape == (2, 20)
    for number in (0, 4):
        with pytest.raises(ArgumentError, match=f"the language model has 3, the stream {number}"):
            lm.start(number)


def test_threads_do_not_count() -> None:
    model = EncodecLm(EncodecLmConfig(codebooks=2, past=40)).eval()
    codes = np.random.default_rng(0).integers(0, 1024, (2, 30)).astype(np.uint16)
    before = torch.get_num_threads()
    tables = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            steps = FloatLm(model).start(2)
            tables.append([steps.step(codes[:, t - 1] if t else None) for t in range(30)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(tables[0], tables[1])


def test_only_float32_codes() -> None:
    with pytest.raises(DtypeError, match=r"expected float32 weights, got torch\.float64"):
        FloatLm(EncodecLm(TINY).double())


@pytest.mark.parametrize("size", [2, 1024])
def test_tables_of_extreme_probabilities(size: int) -> None:
    certain = torch.zeros(size)
    certain[1] = 1.0
    beyond = torch.full((size,), 1e-7)
    beyond[0] = 1.0 + 2e-7
    cdf = quantised_cdf(torch.stack([certain, beyond, torch.full((size,), 1 / size)]))
    assert cdf.dtype == np.uint32
    shares = np.diff(cdf.astype(np.int64), prepend=0, axis=1)
    assert shares.min() >= 2
    assert cdf[:, -1].max() <= 1 << 24
    assert shares[0, 1] == (1 << 24) - 2 * (size - 1)


def test_a_model_of_its_own_file(tmp_path: Path) -> None:
    model = EncodecLm(TINY).eval()
    path = tmp_path / "lm.safetensors"
    save(Checkpoint(TINY, model.state_dict(), "encodec"), path)
    checkpoint = detect_and_load(path)
    assert checkpoint.config == TINY
    copy = build(checkpoint.config).eval()
    copy.load_state_dict(checkpoint.state)
    codes = torch.randint(0, 20, (3, 6))
    assert torch.equal(step_by_step(model, codes), step_by_step(copy, codes))


@pytest.mark.parametrize(
    "values",
    [
        {"dim": 7},
        {"dim": 2},
        {"heads": 7},
        {"heads": 0},
        {"codes": 1},
        {"codes": 1 << 15},
        {"layers": 65},
        {"past": 0},
        {"past": 4097},
        {"hidden": True},
        {"codebooks": -1},
        {"sample_rate": 24000.0},
    ],
)
def test_illegal_configurations(values: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(values))):
        EncodecLmConfig(**values)


def test_configurations_as_values() -> None:
    assert config_from_dict("encodec_lm", TINY.to_dict()) == TINY
    with pytest.raises(ArgumentError, match="unknown field 'depth'"):
        config_from_dict("encodec_lm", {"depth": 3})
    names = dict(TINY.tensors())
    assert names["emb.2.weight"] == (21, 12)
    assert names["transformer.layers.1.self_attn.in_proj_weight"] == (36, 12)
