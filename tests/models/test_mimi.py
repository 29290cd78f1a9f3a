"""Mimi: golden data, Transformers' model, accuracy, ragged batches, streams, configurations."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from mimi_models import SMALL, UNUSUAL, lively, noise
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.models.families import config_from_dict
from fastvoc.models.mimi import Mimi
from fastvoc.models.mimi_config import MIMI, MimiConfig
from fastvoc.runtime.registry import use_exact
from helpers import assert_golden, golden, implementations, relative_l2

OPS = ("conv1d", "upsample", "seanet_block", "attention_block", "rvq_encode", "rvq_decode")
IMPLS = [
    param
    for param in implementations("attention_block")
    if all(param.values[0] in {p.values[0] for p in implementations(op)} for op in OPS)
]
each_impl = pytest.mark.parametrize("impl", IMPLS)
each_shape = pytest.mark.parametrize("config", UNUSUAL.values(), ids=UNUSUAL)


@pytest.mark.golden
@each_impl
def test_golden(impl: str) -> None:
    case = golden("mimi_hf")
    checkpoint = detect_and_load(case.dir)
    model = Mimi(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    model.eval().requires_grad_(False).prepare(impl)
    audio, left = case.inputs["audio"], {*case.outputs, *(f"mid.{name}" for name in case.middle)}

    def compare(ours: Tensor, name: str) -> None:
        assert_golden(ours, case, name)
        left.discard(name)

    x = model.encoder(audio, backend=impl)
    compare(x, "mid.seanet")
    for n, layer in enumerate(model.encoder_transformer.layers):
        x = layer(x, backend=impl)
        if n == 0:
            compare(x.mT, "mid.encoder_layer0")
    compare(x.mT, "mid.encoder_transformer")
    compare(model.downsample(x, backend=impl), "mid.latent")
    for count, name in ((6, "codes"), (3, "codes_n3"), (1, "codes_n1")):
        (codes,), scale = model.encode(audio, count, backend=impl)
        assert scale is None
        compare(codes, name)
    x = model.quantizer.decoding(case.outputs["codes"], backend=impl)
    compare(x, "mid.quantized")
    x = model.upsample(x)
    compare(x, "mid.upsampled")
    for layer in model.decoder_transformer.layers:
        x = layer(x, backend=impl)
    compare(x.mT, "mid.decoder_transformer")
    compare(model.decode([case.outputs["codes"]], backend=impl), "audio")
    compare(model.decode([case.outputs["codes_n3"]], backend=impl), "audio_n3")
    compare(model.decode([case.inputs["codes_any"]], backend=impl), "audio_any")
    live, hop, pieces = model.encode_stream(6, impl), model.config.hop, []
    edges = [0]
    for frames in case.case["streaming"]["pieces_in_frames"]:
        edges.append(edges[-1] + frames * hop)
    pieces = [live.step(audio[:, :, a:b], False) for a, b in pairwise(edges)]
    compare(torch.cat(pieces, 2), "codes_streamed")
    pieces.append(live.step(audio[:, :, edges[-1] :], True))
    compare(torch.cat(pieces, 2), "codes")
    live = model.decode_stream(impl)
    wav = [live.step(part, False) for part in case.outputs["codes"].split([1, 4, 2, 7], 2)]
    wav.append(live.step(case.outputs["codes"][:, :, :0], True))
    compare(torch.cat(wav, 2), "audio")
    assert not left


TRANSFORMERS = {
    "small": {},
    "shared-keys": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "sliding_window": 30},
    "deep": {"num_residual_layers": 2, "use_conv_shortcut": True, "num_semantic_quantizers": 2, "compress": 4},
    "not-projected": {"vector_quantization_hidden_dimension": 32, "codebook_dim": 32, "kernel_size": 5},
}


def transformers_model(**values: Any) -> Any:
    """Transformers' own, small, with random weights."""
    import transformers

    torch.manual_seed(11)
    base: dict[str, Any] = {
        "hidden_size": 32,
        "num_filters": 4,
        "upsampling_ratios": [4, 3],
        "sampling_rate": 2400,
        "codebook_size": 32,
        "codebook_dim": 12,
        "vector_quantization_hidden_dimension": 12,
        "num_quantizers": 5,
        "upsample_groups": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "sliding_window": 7,
        "layer_scale_initial_scale": 0.5,
    }
    model = transformers.MimiModel(transformers.MimiConfig(**{**base, **values})).eval().requires_grad_(False)
    for name, value in model.state_dict().items():
        if name.endswith("embed_sum"):
            value.copy_(torch.randn(value.shape))
        elif name.endswith("cluster_usage"):
            value.copy_(torch.rand(value.shape) + 0.5)
    return model


@pytest.mark.parametrize("values", TRANSFORMERS.values(), ids=TRANSFORMERS)
@each_impl
def test_is_transformers_model(values: dict[str, Any], impl: str, tmp_path: Any) -> None:
    theirs = transformers_model(**values)
    theirs.save_pretrained(tmp_path)
    checkpoint = detect_and_load(tmp_path)
    ours = Mimi(checkpoint.config)
    ours.load_state_dict(checkpoint.state)
    ours.eval().requires_grad_(False).prepare(impl)
    wav = 0.5 * torch.randn(2, 1, 24 * 40 + 5)
    codes = theirs.encode(wav).audio_codes
    (made,), _ = ours.encode(wav, backend=impl)
    assert made.shape == codes.shape
    assert (made == codes).float().mean() > 0.99  # but for ties of random codebooks
    for count in range(1, codes.shape[1] + 1):
        assert torch.equal(ours.encode(wav, count, backend=impl)[0][0], made[:, :count])
        part = theirs.decode(codes[:, :count]).audio_values
        assert relative_l2(ours.decode([codes[:, :count]], backend=impl), part) < 1e-5


@each_shape
@each_impl
def test_any_length_equals_the_meaning_in_float64(config: MimiConfig, impl: str, nan_poison: None) -> None:
    model = lively(config)
    wide = copy.deepcopy(model).double()
    for samples in (1, 2, config.hop - 1, config.hop, config.hop + 1, 97, 400, 1000):
        wav = noise(config, samples, 2)
        (codes,), _ = model.encode(wav, backend=impl)
        assert codes.shape == (2, config.n_q, -(-samples // config.hop))
        assert int(codes.min()) >= 0
        assert int(codes.max()) < config.bins
        assert (codes == wide.encode(wav.double(), backend="torch")[0][0]).float().mean() > 0.98
        y = model.decode([codes], backend=impl)
        assert y.shape == (2, 1, codes.shape[2] * config.hop)
        assert relative_l2(y, wide.decode([codes], backend="torch")) < 2e-5


@each_shape
@each_impl
def test_ragged_batch_equals_single_items(config: MimiConfig, impl: str, nan_poison: None) -> None:
    model = lively(config)
    lengths = torch.tensor([1, 230, 97])
    wav = torch.full((3, 1, 230), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        wav[i, :, :n] = noise(config, n, seed=i)[0]
    (codes,), _ = model.encode(wav, None, lengths, impl)
    frames = [config.frames(n) for n in lengths.tolist()]
    y = model.decode([codes], None, frames, impl)
    for i, ((count,), n) in enumerate(zip(frames, lengths.tolist(), strict=True)):
        (alone,), _ = model.encode(wav[i : i + 1, :, :n], backend=impl)
        assert torch.equal(codes[i, :, :count], alone[0])
        assert not codes[i, :, count:].any()
        expected = model.decode([alone], backend=impl)[0]
        got = y[i, :, : expected.shape[1]]
        assert torch.equal(got, expected) if impl == "cpp" else relative_l2(got, expected) < 1e-5


def in_chunks(live: Any, x: Tensor, sizes: list[int]) -> Tensor:
    parts, at = [], 0
    for n in sizes:
        parts.append(live.step(x[:, :, at : at + n], False))
        at += n
    parts.append(live.step(x[:, :, at:], True))
    return torch.cat(parts, 2)


@each_shape
@pytest.mark.native
def test_bfloat16_streams_equal_one_call(config: MimiConfig) -> None:
    model = lively(config).to(torch.bfloat16)
    wav = noise(config, 37 * config.hop - 3, 2).to(torch.bfloat16)
    (codes,), _ = model.encode(wav, backend="cpp")
    whole = model.decode([codes], backend="cpp")
    assert torch.equal(in_chunks(model.decode_stream("cpp"), codes, [7, 0, 1, 13, 2]), whole)
    parts = in_chunks(model.encode_stream(config.n_q, "cpp"), wav, [5 * n for n in (7, 0, 1, 13, 2)])
    assert torch.equal(parts, codes)


@each_shape
@each_impl
@pytest.mark.parametrize("sizes", [[], [1] * 30, [7, 0, 1, 13, 2]], ids=["whole", "ones", "mixed"])
def test_streams_equal_one_call(config: MimiConfig, impl: str, sizes: list[int]) -> None:
    model = lively(config)
    with use_exact():
        (codes,), _ = model.encode(noise(config, 37 * config.hop - 3, 2), backend=impl)
    for count in (1, config.n_q):
        with use_exact():
            whole = model.decode([codes[:, :count]], backend=impl)
        parts = in_chunks(model.decode_stream(impl), codes[:, :count], sizes)
        assert torch.equal(parts, whole) if impl == "cpp" else relative_l2(parts, whole) < 1e-5
    for count in range(1, config.n_q + 1):
        wav = noise(config, 37 * config.hop - 3, 2)
        parts = in_chunks(model.encode_stream(count, impl), wav, [5 * n for n in sizes])
        same = parts == codes[:, :count]
        assert same.all() if impl == "cpp" else same.float().mean() > 0.99


@each_impl
def test_every_frame_sounds_at_once(impl: str) -> None:
    model = lively(SMALL)
    live = model.decode_stream(impl)
    for _ in range(9):
        assert live.step(torch.randint(32, (1, 4, 1)), False).shape == (1, 1, SMALL.hop)
    live = model.encode_stream(3, impl)
    for _ in range(9):
        assert live.step(noise(SMALL, SMALL.hop), False).shape == (1, 3, 1)


@each_impl
def test_a_stream_keeps_no_more_the_longer_it_runs(impl: str) -> None:
    model = lively(SMALL)
    kept: list[set[int]] = []
    for live, chunk in (
        (model.decode_stream(impl), torch.randint(32, (2, 4, 3))),
        (model.encode_stream(4, impl), noise(SMALL, 3 * SMALL.hop, 2)),
    ):
        sizes = []
        for _ in range(60):
            live.step(chunk, False)
            sizes.append(sum(t.numel() for t in live.tensors().values()))
        kept.append(set(sizes[10:]))
        counters = live.counters
        live.step(chunk, False)
        assert live.counters == counters  # what a pool and a graph ask for
    assert all(len(sizes) == 1 for sizes in kept)


def test_configuration_round_trip() -> None:
    for config in (MIMI, *UNUSUAL.values()):
        assert config_from_dict("mimi", config.to_dict()) == config
    assert MIMI.hop == 1920
    assert MIMI.frame_rate == 12.5
    assert MIMI.bandwidths[7] == pytest.approx(1.1)
    assert [MIMI.codebooks(b) for b in MIMI.bandwidths] == list(range(1, 33))
    names = dict(SMALL.tensors())
    assert names["quantizer.acoustic.rvq.codebooks.2"] == (32, 12)
    assert names["upsample.weight"] == (24, 1, 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimension", 0),
        ("heads", 5),
        ("head_dim", 7),
        ("semantic", 4),
        ("pad_mode", "reflect"),
        ("ratios", (0,)),
        ("n_filters", 1 << 14),
        ("theta", -1.0),
        ("code_dimension", 1 << 20),
        ("projected", False),
    ],
)
def test_illegal_configurations_are_named(field: str, value: Any) -> None:
    named = {"heads": "kv_heads", "projected": "code_dimension"}.get(field, field)
    with pytest.raises(ArgumentError, match=f"MimiConfig.{named}"):
        replace(SMALL, **{field: value})


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    model = lively(replace(SMALL, semantic=2))
    with pytest.raises(ShapeError, match=r"wav: expected \[B > 0, 1, S > 0\]"):
        model.encode(torch.randn(1, 2, 30), backend=impl)
    with pytest.raises(DtypeError, match="real samples"):
        model.encode(torch.ones(1, 1, 30, dtype=torch.bool), backend=impl)
    for count in (0, 5):
        with pytest.raises(ArgumentError, match=r"n_q: expected an integer in 1\.\.4"):
            model.encode(torch.randn(1, 1, 30), count, backend=impl)
    with pytest.raises(ArgumentError, match=r"values in 0\.\.31"):
        model.decode([torch.full((1, 4, 3), 32)], backend=impl)


def test_bfloat16_keeps_the_codebooks() -> None:
    model = lively(SMALL).to(torch.bfloat16)
    assert model.quantizer.semantic.rvq.codebooks[0].dtype == torch.float32
    (codes,), _ = model.encode(noise(SMALL, 100))
    exact = lively(SMALL).decode([codes])
    assert relative_l2(model.decode([codes]).float(), exact) < 0.1
