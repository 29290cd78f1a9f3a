"""The integer language model: frozen, the same compiled and in Python, and close to the one in floating point."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from ecdc_cases import MONO, golden_lm, read, same, written
from torch import Tensor

from fastvoc import ecdc
from fastvoc.ecdc import coder
from fastvoc.errors import ArgumentError
from fastvoc.models import fixed_point as fixed
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig, FloatLm
from fastvoc.models.integer_lm import IntegerLm
from helpers import ROOT, GoldenCase, need

VECTOR = ROOT / "tests" / "data" / "integer_lm" / "vector.ecdc"
SMALL = EncodecLmConfig(codebooks=3, dim=24, layers=2, heads=3, hidden=40, past=5)


def numbers(count: int, seed: int) -> np.ndarray:
    """Whole numbers from 0 to 2^16 - 1 that every machine makes alike."""
    state, values = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        values.append(state >> 48)
    return np.array(values)


def frozen_state(config: EncodecLmConfig) -> dict[str, Tensor]:
    """Weights that float32 holds exactly, of about the size that trained ones have."""
    state = {}
    for seed, (name, shape) in enumerate(config.tensors()):
        values = (numbers(math.prod(shape), seed) - (1 << 15)).reshape(shape) / (1 << 15)
        if "norm" in name:
            values = values / 4 + (1.0 if name.endswith("weight") else 0.0)
        state[name] = torch.tensor(values * (4 if "linears" in name else 1), dtype=torch.float32)
    return state


def frozen_codes(number: int) -> np.ndarray:
    return (numbers(3 * number, 99) >> 6).astype(np.uint16).reshape(3, number)


@pytest.fixture(params=[False, True], ids=["python", "cpp"])
def compiled(request: pytest.FixtureRequest) -> bool:
    if request.param:
        need("native", coder.problem())
    return bool(request.param)


def run(lm: Any, codes: np.ndarray) -> np.ndarray:
    """The tables [T, K, N] that a model gives along codes [K, T]."""
    steps = lm.start(len(codes))
    return np.stack([steps.step(codes[:, t - 1] if t else None) for t in range(codes.shape[1])])


def bits(cdf: np.ndarray, codes: np.ndarray) -> float:
    """What codes [K, T] cost under tables [T, K, N]."""
    shares = np.diff(cdf.astype(np.int64), prepend=0, axis=2)
    chosen = np.take_along_axis(shares, codes.T[:, :, None].astype(np.int64), axis=2)
    return float(-np.log2(chosen / 2**24).sum())


def sha(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)).hexdigest()[:16]


def test_frozen_tables() -> None:
    tables = fixed.exp2_table(), fixed.gelu_table(), fixed.cosine_table(), fixed.turns_per_step(100)
    assert [sha(table) for table in tables] == [
        "14271e6ec930f89e",
        "06784eb2579140c7",
        "4fbda89e1c2f6743",
        "250e672bb368666f",
    ]


def test_tables_are_the_functions() -> None:
    steps = np.arange(257) / 256
    assert np.array_equal(fixed.exp2_table(), np.rint(2**30 * 2**-steps))
    x = torch.arange(-1024, 1025, dtype=torch.float64) / 128
    assert np.array_equal(fixed.gelu_table(), torch.nn.functional.gelu(x).mul(65536).round().numpy())
    assert np.abs(fixed.cosine_table() - 65536 * np.cos(np.arange(4097) * np.pi / 2048)).max() <= 0.500001
    radians = fixed.turns_per_step(100) * (2 * math.pi / 2**64)
    assert np.allclose(radians, 10000.0 ** -(np.arange(100) / 99), rtol=1e-12)
    assert Decimal(int(fixed.turns_per_step(100)[0])) == Decimal("2935890503282001226")


def test_functions_between_the_table_s_points() -> None:
    x = np.arange(-9 << 16, 9 << 16, 7)
    gelu = torch.nn.functional.gelu(torch.from_numpy(x / 65536)).numpy()
    assert np.abs(fixed.gelu(x) / 65536 - gelu).max() < 2.5e-5
    x = np.arange(0, 30 << 16, 11)
    assert np.abs(fixed.exp_negative(x) / 2**30 - np.exp(-x / 65536)).max() < 1.2e-5
    assert fixed.exp_negative(np.array([0, 21 << 16, fixed.LIMIT * 2])).tolist() == [1 << 30, 0, 0]
    turns = np.arange(0, 1 << 64, (1 << 64) // 1001, dtype=np.uint64)
    assert np.abs(fixed.cosine(turns) / 65536 - np.cos(turns * (2 * math.pi / 2**64))).max() < 1.7e-5
    for size in (0.01, 1.0, 3000.0):
        row = np.random.default_rng(0).standard_normal(200) * size
        ours = fixed.layer_norm(np.rint(row * 65536).astype(np.int64), np.full(200, 65536), np.arange(200)) / 65536
        exact = torch.nn.functional.layer_norm(torch.from_numpy(np.rint(row * 65536) / 65536), (200,)).numpy()
        assert np.abs(ours - np.arange(200) / 65536 - exact).max() < 2e-4


def test_frozen_stream(compiled: bool) -> None:
    lm = IntegerLm(SMALL, frozen_state(SMALL), compiled=compiled)
    codes = frozen_codes(40)
    assert lm.fingerprint == "1-886723f35029dafe"
    assert sha(run(lm, codes)) == "3fd1e0133fe030cd"
    header = ecdc.Header(MONO, 3, lm=True, version=ecdc.PORTABLE, fingerprint=lm.fingerprint)
    data = VECTOR.read_bytes()
    assert written(header, [(codes, None)], 40 * 320, lm) == data
    assert same(read(data, lm)[1], [(codes, None)])


@pytest.mark.parametrize("scale", [1e-6, 0.05, 1.0, 30.0, 2000.0])
@pytest.mark.parametrize("sizes", [(24, 3, 40), (50, 2, 1), (4, 1, 9), (34, 17, 33), (96, 2, 5)])
def test_compiled_equals_python(scale: float, sizes: tuple[int, int, int]) -> None:
    need("native", coder.problem())
    dim, heads, hidden = sizes
    config = EncodecLmConfig(codebooks=2, codes=37, dim=dim, layers=2, heads=heads, hidden=hidden, past=3)
    state = {name: torch.randn(shape) * scale for name, shape in config.tensors()}
    state["linears.1.weight"][5] = 0.0
    state["emb.0.weight"][0] = 0.0
    codes = np.random.default_rng(1).integers(0, 37, (2, 9)).astype(np.uint16)
    tables = [run(IntegerLm(config, state, compiled=compiled), codes) for compiled in (False, True)]
    assert np.array_equal(*tables)
    shares = np.diff(tables[0].astype(np.int64), prepend=0, axis=2)
    assert shares.min() >= 2
    assert tables[0].max() <= 1 << 24


def test_full_size_compiled_equals_python() -> None:
    need("native", coder.problem())
    config = EncodecLmConfig(codebooks=4)
    state = EncodecLm(config).state_dict()
    codes = np.random.default_rng(1).integers(0, 1024, (4, 30)).astype(np.uint16)
    tables = [run(IntegerLm(config, state, compiled=compiled), codes) for compiled in (False, True)]
    assert np.array_equal(*tables)


def test_close_to_floating_point(compiled: bool) -> None:
    config = EncodecLmConfig(codebooks=2, layers=3, past=10)
    model = EncodecLm(config).eval()
    for output in model.linears:
        output.weight.data *= 4  # a fresh model knows nothing
    exact, ours = (
        np.diff(run(lm, np.random.default_rng(1).integers(0, 1024, (2, 25)).astype(np.uint16)).astype(np.int64), axis=2)
        / 2**24
        for lm in (FloatLm(model), IntegerLm(config, model.state_dict(), compiled=compiled))
    )
    lost = (exact * np.log2(exact / ours)).sum(-1).mean()
    assert 0 < lost < 0.002  # of 6.5 bits a code
    assert np.abs(exact - ours).max() < 0.05 * exact.max()


@pytest.mark.golden
def test_golden_codes_cost_the_same(golden: Callable[[str], GoldenCase]) -> None:
    case = golden("encodec_ecdc")
    for kind, name in (("mono", "codes_mono"), ("stereo", "codes_stereo_seg0")):
        model = golden_lm(case, kind).eval()
        codes = case.outputs[name][0].numpy().astype(np.uint16)
        exact = bits(run(FloatLm(model), codes), codes)
        assert bits(run(IntegerLm(model.config, model.state_dict()), codes), codes) < 1.001 * exact


def test_streams_do_not_mix(compiled: bool) -> None:
    lm = IntegerLm(SMALL, frozen_state(SMALL), compiled=compiled)
    codes = frozen_codes(12)
    alone = run(lm, codes)
    one, two = lm.start(3), lm.start(2)
    for t in range(12):
        previous = codes[:, t - 1] if t else None
        assert np.array_equal(one.step(previous), alone[t])
        two.step(None if previous is None else previous[:2][::-1].copy())


def test_the_fingerprint_names_weights_and_arithmetic() -> None:
    state = frozen_state(SMALL)
    prints = {IntegerLm(SMALL, state, compiled=False).fingerprint}
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["linears.2.bias"][1000] += 2**-16
    prints.add(IntegerLm(SMALL, changed, compiled=False).fingerprint)
    for values in ({"past": 6}, {"heads": 4}):
        config = EncodecLmConfig(**{**SMALL.to_dict(), **values})
        prints.add(IntegerLm(config, state, compiled=False).fingerprint)
    assert len(prints) == 4


def test_another_model_s_stream_is_refused() -> None:
    state = frozen_state(SMALL)
    state["emb.0.weight"][3, 3] += 0.5
    with pytest.raises(ArgumentError, match="needs the integer language model"):
        ecdc.Reader(io.BytesIO(VECTOR.read_bytes())).blocks(IntegerLm(SMALL, state))


def test_weights_beyond_the_arithmetic() -> None:
    for name, value in (("emb.0.weight", 1e7), ("norm1.bias", 2e4), ("norm_in.weight", -2e4), ("linear1.bias", 2e4)):
        state = frozen_state(SMALL)
        next(tensor for key, tensor in state.items() if key.endswith(name)).view(-1)[0] = value
        with pytest.raises(ArgumentError, match=rf"{name}: .* is too large for integer arithmetic"):
            IntegerLm(SMALL, state)


def test_codebooks_and_tokens(compiled: bool) -> None:
    lm = IntegerLm(SMALL, frozen_state(SMALL), compiled=compiled)
    for number in (0, 4):
        with pytest.raises(ArgumentError, match="the language model has 3"):
            lm.start(number)
    if compiled:
        for tokens in ([], [0] * 4, [1025], [-1]):
            with pytest.raises(ValueError, match="tokens"):
                coder.implementation().IntegerLm.start(lm._compiled).step(np.array(tokens, np.int32))
