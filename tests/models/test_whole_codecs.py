"""DAC and SNAC: golden cases, accuracy at any length, ragged batches, fewer codebooks, noise, configurations."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from whole_codecs import CONFIGS, DAC_OPS, SNAC_OPS, lively_whole, sound, whole_codec_implementations

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.loading import model_of
from fastvoc.models.dac import DAC_16K, DAC_24K, DAC_44K, Dac, DacConfig
from fastvoc.models.families import config_from_dict
from fastvoc.models.levels import packed, unpacked
from fastvoc.models.snac import SNAC_24K, SNAC_32K, SNAC_44K, Snac, SnacConfig
from helpers import GoldenCase, assert_golden, golden, relative_l2

IMPLS = whole_codec_implementations()
each_impl = pytest.mark.parametrize("impl", IMPLS)
each_config = pytest.mark.parametrize("name", CONFIGS)


def load(case: GoldenCase, impl: str) -> Any:
    return model_of(detect_and_load(case.dir), backend=impl)


@pytest.mark.golden
@each_impl
def test_golden_dac_24k(impl: str) -> None:
    case = golden("dac_24k")
    model = load(case, impl)
    assert isinstance(model, Dac)
    assert model.config.sample_rate == case.case["sample_rate"]
    audio = case.inputs["audio"]
    padded = torch.nn.functional.pad(audio, (0, -audio.shape[2] % 320))
    assert_golden(model.encoder.reading(per_frame=(320,))(padded, backend=impl), case, "mid.encoder")
    (codes,), scale = model.encode(audio, backend=impl)
    assert scale is None
    assert_golden(codes, case, "codes")
    assert_golden(model.quantizer.decoding(codes, backend=impl), case, "z_from_codes")
    wav = model.decode([codes], backend=impl)
    assert_golden(wav, case, "audio")
    assert_golden(wav, case, "audio_from_codes")
    assert_golden(wav[:, :, : audio.shape[2]], case, "audio_trimmed")
    for count in (1, 5):
        (few,), _ = model.encode(audio, count, backend=impl)
        assert_golden(few, case, f"codes_n{count}")
        assert_golden(model.decode([few], backend=impl), case, f"audio_n{count}")
    assert_golden(model.decode([case.inputs["codes_any"]], backend=impl), case, "audio_any")


@pytest.mark.golden
@each_impl
def test_golden_dac_44k(impl: str) -> None:
    case = golden("dac_44k_hf")
    model = load(case, impl)
    assert isinstance(model, Dac)
    assert model.config.sample_rate == case.case["sample_rate"]
    audio = case.inputs["audio"]
    assert_golden(model.encoder.reading(per_frame=(280,))(audio, backend=impl), case, "mid.encoder")
    (codes,), _ = model.encode(audio, backend=impl)
    assert_golden(codes, case, "codes")
    assert_golden(model.quantizer.decoding(codes, backend=impl), case, "z_from_codes")
    assert_golden(model.decode([codes], backend=impl)[:, 0], case, "audio")
    for count in (1, 4):
        (few,), _ = model.encode(audio, count, backend=impl)
        assert_golden(few, case, f"codes_n{count}")
        assert_golden(model.decode([few], backend=impl)[:, 0], case, f"audio_n{count}")
    assert_golden(model.decode([case.inputs["codes_any"]], backend=impl)[:, 0], case, "audio_any")


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", ["snac_24k", "snac_44k"])
def test_golden_snac(name: str, impl: str) -> None:
    case = golden(name)
    model = load(case, impl)
    assert isinstance(model, Snac)
    config = model.config
    assert config.sample_rate == case.case["sample_rate"]
    (codes,), _ = model.encode(case.inputs["audio"], backend=impl)
    for i, level in enumerate(unpacked(codes, config.rates)):
        assert_golden(level, case, f"codes_{i}")
    assert torch.equal(packed([case.outputs[f"codes_{i}"] for i in range(config.n_q)], config.rates), codes)
    assert_golden(model.quantizer.decoding(codes, backend=impl), case, "mid.z_q")
    assert_golden(model.decode([codes], backend=impl, noise=0), case, "audio_zero_noise")
    noise = [case.inputs[f"noise_{i}"] for i in range(len(config.decoder_rates))]
    assert_golden(model.decode([codes], backend=impl, noise=noise), case, "audio")


@each_impl
@each_config
def test_any_length_against_float64(name: str, impl: str, nan_poison: None) -> None:
    model = lively_whole(CONFIGS[name])
    double = copy.deepcopy(model).double()
    hop = model.config.hop
    for samples in (1, 2, hop - 1, hop, hop + 1, 5 * hop + 3, 40 * hop):
        wav = sound(samples, 2, samples)
        (codes,), _ = double.encode(wav.double(), backend="torch")
        frames = -(-samples // hop)
        assert codes.shape == (2, sum(model.config.rates), frames)
        expected = double.decode([codes], backend="torch")
        ours = model.decode([codes], backend=impl)
        assert ours.shape == expected.shape == (2, 1, model.config.samples(frames))
        assert relative_l2(ours, expected) <= 1e-5, samples
        (found,), _ = model.encode(wav, backend=impl)
        assert (found == codes).float().mean() > 0.98  # but for near ties, which change what comes after


@each_impl
@each_config
def test_ragged_batch_equals_singles(name: str, impl: str, nan_poison: None) -> None:
    model = lively_whole(CONFIGS[name])
    config = model.config
    seeds = torch.arange(4) if isinstance(model, Snac) else None
    lengths = [3 * config.hop + 5, 1, 7 * config.hop, 2 * config.hop - 1]
    wav = torch.full((4, 1, max(lengths)), torch.nan)
    for i, n in enumerate(lengths):
        wav[i, :, :n] = sound(n, seed=i)[0]
    (codes,), _ = model.encode(wav, None, torch.tensor(lengths), impl)
    frames = [config.frames(n) for n in lengths]
    more = {} if seeds is None else {"seed": seeds}
    made = model.decode([codes], None, frames, impl, **more)
    for i, n in enumerate(lengths):
        (single,), _ = model.encode(wav[i : i + 1, :, :n], backend=impl)
        assert torch.equal(codes[i, :, : single.shape[2]], single[0])
        assert not codes[i, :, single.shape[2] :].any()
        more = {} if seeds is None else {"seed": seeds[i : i + 1]}
        alone = model.decode([single], backend=impl, **more)[0]
        together = made[i, :, : alone.shape[1]]
        assert torch.equal(together, alone) if impl == "cpp" else relative_l2(together, alone) < 1e-6
        assert not made[i, :, alone.shape[1] :].any()


@each_config
def test_long_signals_in_pieces_are_those_of_one_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvoc.nn import pieces

    model = lively_whole(CONFIGS[name])
    wav = sound(1500 * model.config.hop)
    with torch.inference_mode():
        (codes,), _ = model.encode(wav)
        whole = model.decode([codes])
        monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 12)
        for network in model.__dict__["_networks"].values():
            network.cut = {}
        (again,), _ = model.encode(wav)
        made = model.decode([codes])
    assert torch.equal(again, codes)
    assert torch.allclose(made, whole, atol=1e-6)
    cuts = [
        stretch.pieces for network in model.__dict__["_networks"].values() for stretch in network.cut.get("cpu", ())
    ]
    assert cuts
    assert all(cut is not None and cut.frames < 1500 for cut in cuts)


@each_config
def test_fewer_codebooks(name: str) -> None:
    model = lively_whole(CONFIGS[name])
    rates = model.config.rates
    wav = sound(6 * model.config.hop)
    (codes,), _ = model.encode(wav)
    for count in range(1, model.config.n_q + 1):
        (few,), _ = model.encode(wav, count)
        assert torch.equal(few, codes[:, : sum(rates[:count])])
        assert model.decode([few]).shape == (1, 1, model.config.samples(6))


@pytest.mark.native
@each_config
def test_bits_do_not_depend_on_threads_or_batch(name: str) -> None:
    model = lively_whole(CONFIGS[name])
    wav = sound(9 * model.config.hop, 5)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        (codes,), _ = model.encode(wav, backend="cpp")
        results.append([codes, model.decode([codes], backend="cpp")])
    torch.set_num_threads(threads)
    (codes,), _ = model.encode(wav[3:4], backend="cpp")
    results.append([codes, model.decode([codes], backend="cpp")])
    for row in results[1:]:
        for first, other in zip(results[0], row, strict=True):
            assert torch.equal(first[3:4] if len(other) == 1 else first, other)


def test_noise_by_seed_given_and_none() -> None:
    model = lively_whole(CONFIGS["snac"])
    assert isinstance(model, Snac)
    (codes,), _ = model.encode(sound(5 * model.config.hop, 2))
    first, again, other = (model.decode([codes], seed=seed) for seed in (3, torch.tensor([3, 3]), [3, 4]))
    assert torch.equal(first, again)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])
    silent = model.decode([codes], noise=0)
    assert not torch.equal(silent, first)
    steps = [n * codes.shape[2] for n in model.config.noise_steps]
    zeros = [torch.zeros(2, 1, n) for n in steps]
    assert torch.allclose(model.decode([codes], noise=zeros), silent, atol=1e-6)
    with pytest.raises(ShapeError, match="noise: expected"):
        model.decode([codes], noise=zeros[:1])
    with pytest.raises(DtypeError, match="noise"):
        model.decode([codes], noise=[z.long() for z in zeros])
    with pytest.raises(ArgumentError, match="noise: expected 0"):
        model.decode([codes], noise=1)
    quiet = lively_whole(CONFIGS["snac-silent"])
    (codes,), _ = quiet.encode(sound(200))
    assert torch.equal(quiet.decode([codes], seed=1), quiet.decode([codes], seed=2))


def test_noise_of_a_stage_is_standard_normal_and_its_own() -> None:
    from fastvoc.ops.noise import noise_signal

    drawn = [noise_signal(torch.tensor([5, 6]), 40000, 0, i)[:, 0] for i in range(3)]
    rows = torch.cat(drawn)
    assert rows.mean(1).abs().max() < 0.03
    assert (rows.std(1) - 1).abs().max() < 0.02
    correlation = torch.corrcoef(rows) - torch.eye(6)
    assert correlation.abs().max() < 0.03
    for start in (1, 2, 3, 7, 1001):
        part = noise_signal(torch.tensor([5, 6]), 30, torch.tensor([start, start + 1]), 1)
        assert torch.equal(part[0, 0], drawn[1][0, start : start + 30])
        assert torch.equal(part[1, 0], drawn[1][1, start + 1 : start + 31])


@pytest.mark.native
@each_config
def test_every_layer_runs_in_cpp(name: str) -> None:
    model = lively_whole(CONFIGS[name])
    model.prepare()
    rows = {layer: prepared.explain() for layer, prepared in model.layers().items()}
    chosen = {layer: next(v.impl for v in verdicts if v.chosen) for layer, (_, verdicts) in rows.items()}
    assert set(chosen.values()) == {"cpp"}, chosen
    wanted = DAC_OPS if isinstance(model, Dac) else SNAC_OPS
    assert {op for op, _ in rows.values()} <= set(wanted)


@each_config
def test_gradients_reach_the_decoder(name: str) -> None:
    model = lively_whole(CONFIGS[name]).requires_grad_(True)
    codes = torch.randint(model.config.bins, (1, sum(model.config.rates), 3))
    model.decode([codes]).square().mean().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if not n.startswith("encoder.") and ".in_proj." not in n}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())


@each_config
def test_configuration_round_trips(name: str) -> None:
    config = CONFIGS[name]
    assert config_from_dict(config.family, config.to_dict()) == config
    state = {n: tuple(t.shape) for n, t in lively_whole(config).state_dict().items()}
    assert dict(config.tensors()) == state


def test_published_shapes() -> None:
    assert [c.hop for c in (DAC_44K, DAC_24K, DAC_16K)] == [512, 320, 320]
    assert DAC_24K.samples(75) == 24000 - 8
    assert [c.hop for c in (SNAC_44K, SNAC_32K, SNAC_24K)] == [14112, 12288, 2048]
    assert SNAC_24K.rates == (1, 2, 4)
    assert SNAC_44K.rates == (4, 8, 16, 32)
    assert SNAC_24K.latent == 768


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (DacConfig, "sample_rate", 0),
        (DacConfig, "encoder_rates", ()),
        (DacConfig, "decoder_rates", (8, 8, 4, 4)),
        (DacConfig, "decoder_dim", 1500),
        (DacConfig, "codebook_dim", (8, 8)),
        (DacConfig, "codebook_size", 1),
        (DacConfig, "n_codebooks", 1 << 20),
        (DacConfig, "encoder_dim", 1 << 20),
        (SnacConfig, "vq_strides", (8, 3)),
        (SnacConfig, "vq_strides", ()),
        (SnacConfig, "attn_window_size", 0),
        (SnacConfig, "decoder_dim", 1520),
        (SnacConfig, "noise", 1),
        (SnacConfig, "latent_dim", 5),
    ],
)
def test_bad_configurations_name_the_field(kind: Any, field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{kind.__name__}\.{field}: got "):
        kind(**{field: value})


@each_config
def test_wrong_waveforms_are_named(name: str) -> None:
    model = lively_whole(CONFIGS[name])
    for wav in (torch.randn(1, 100), torch.randn(1, 2, 100), torch.randn(1, 1, 0), torch.randn(0, 1, 100)):
        with pytest.raises(ShapeError, match=r"wav: expected \[B > 0, 1, S > 0\]"):
            model.encode(wav)


def test_levels_that_do_not_fit_together() -> None:
    def levels(*counts: int) -> list[Tensor]:
        return [torch.arange(n) for n in counts]

    rows = packed(levels(3, 6, 12), (1, 2, 4))
    assert rows[:, 1].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert all(torch.equal(a, b) for a, b in zip(unpacked(rows, (1, 2, 4)), levels(3, 6, 12), strict=True))
    for wrong in (levels(3, 5, 12), levels(3, 6, 12, 24), [], [torch.zeros(1, 1, 3)], levels(6, 3, 12)):
        with pytest.raises(ShapeError, match="levels"):
            packed(wrong, (1, 2, 4))
