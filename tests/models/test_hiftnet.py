"""HiFTNet and the HiFT generators after it: golden cases, accuracy, ragged batches, prefixes, configurations."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.models.hift_config import CHATTERBOX, COSYVOICE1, COSYVOICE2, COSYVOICE3, HIFTNET
from fastvoc.models.hiftnet import HiftConfig, HiftNet
from fastvoc.runtime.registry import use_exact
from helpers import GoldenCase, assert_golden, golden, implementations, relative_l2

IMPLS = implementations("nsf_source")
CASES = ("chatterbox_hift", "cosyvoice1_hift", "cosyvoice2_hift", "cosyvoice3_causal_hift", "hiftnet_original")
NON_CAUSAL = ("chatterbox_hift", "cosyvoice1_hift", "cosyvoice2_hift")
SMALL: dict[str, HiftConfig] = {
    "chatterbox": replace(CHATTERBOX, base_channels=16, f0_channels=12),
    "cosyvoice1": replace(COSYVOICE1, base_channels=12, f0_channels=20),
    "cosyvoice2": replace(COSYVOICE2, base_channels=24, f0_channels=12),
    "cosyvoice3": replace(COSYVOICE3, base_channels=16, f0_channels=12),
    "hiftnet": replace(HIFTNET, base_channels=16),
}
UNUSUAL: dict[str, HiftConfig] = {
    "one-stage": HiftConfig(
        base_channels=6,
        upsample_rates=(5,),
        upsample_kernel_sizes=(9,),
        source_resblock_kernel_sizes=(3,),
        source_resblock_dilation_sizes=((1, 2),),
        resblock_kernel_sizes=(5,),
        resblock_dilation_sizes=((1,),),
        f0_channels=7,
        harmonics=2,
        num_mels=20,
        sample_rate=16000,
    ),
    "long-window": HiftConfig(base_channels=16, n_fft=32, istft_hop=8, f0_channels=8, sample_rate=48000),
    "uneven-hop": HiftConfig(base_channels=16, n_fft=20, istft_hop=5, f0_channels=8, magnitude_clip=None, clamp=0.5),
    "causal-by-sample": HiftConfig(base_channels=8, causal=True, lookahead=2, f0_network="causal_conv", f0_channels=8),
    "causal-lookahead-0": HiftConfig(
        base_channels=8,
        causal=True,
        lookahead=0,
        source="frame_nearest",
        f0_network="causal_conv",
        f0_channels=8,
        upsample_kernel_sizes=(3, 4, 9),
    ),
    "polar-ceil-3": HiftConfig(base_channels=8, features="polar", source_padding="ceil", f0_channels=8, harmonics=0),
}


def lively(config: HiftConfig) -> HiftNet:
    """Random weights under which every layer's signal keeps about the same size and F0 is that of a voice."""
    model = HiftNet(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            torch.nn.init.normal_(parameter, 1.0 if "alpha" in name else 0.0, 0.1)
            continue
        transposed = name.startswith("ups") and not config.causal
        fan = parameter[0].numel() if not transposed else parameter.shape[0] * parameter.shape[2]
        stride = config.upsample_rates[int(name.split(".")[1])] if transposed else 1
        torch.nn.init.normal_(parameter, 0.0, (0.5 if "resblocks" in name else 1.0) * (stride / fan) ** 0.5)
    with torch.no_grad():
        model.conv_post.weight.mul_(0.3)
        model.f0_predictor.classifier.weight.mul_(60)
        model.f0_predictor.classifier.bias.fill_(140)
    return model.eval().requires_grad_(False)


@cache
def _small(name: str) -> HiftNet:
    torch.manual_seed(7)
    return lively({**SMALL, **UNUSUAL}[name])


def _mel(config: HiftConfig, *shape: int) -> Tensor:
    return torch.randn(*shape[:-1], config.num_mels, shape[-1]) * 2 - 5


@cache
def _golden_model(name: str) -> tuple[GoldenCase, HiftNet]:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    model = HiftNet(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    return case, model.eval().requires_grad_(False)


def _rows(source: Tensor) -> Tensor:
    return source if source.dim() == 3 else source[:, None]


each_impl = pytest.mark.parametrize("impl", IMPLS)
each_case = pytest.mark.parametrize("name", CASES)
each_small = pytest.mark.parametrize("name", [*SMALL, *UNUSUAL])


@pytest.mark.golden
@each_impl
@each_case
def test_golden_f0(name: str, impl: str, nan_poison: None) -> None:
    case, model = _golden_model(name)
    assert_golden(model.predict_f0(case.inputs["mel"], backend=impl), case, "f0")


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", NON_CAUSAL)
def test_golden_wav(name: str, impl: str, nan_poison: None) -> None:
    case, model = _golden_model(name)
    mel = case.inputs["mel"]
    assert_golden(model(mel, source=case.inputs["source"], backend=impl)[:, 0], case, "wav")
    loud = model(case.inputs["mel_loud"], source=case.inputs["source_loud"], backend=impl)
    assert_golden(loud[:, 0], case, "wav_loud")
    for kind in ("seeded", "cached"):
        assert_golden(model(mel, source=case.outputs[f"source_{kind}"], backend=impl)[:, 0], case, f"wav_{kind}")


@pytest.mark.golden
@each_impl
def test_golden_hiftnet_wav(impl: str, nan_poison: None) -> None:
    case, model = _golden_model("hiftnet_original")
    wav = model(case.inputs["mel"], source=_rows(case.inputs["source"]), backend=impl)
    assert_golden(wav, case, "wav")


@pytest.mark.golden
@each_impl
def test_golden_hiftnet_given_the_spectrum(impl: str, nan_poison: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case, model = _golden_model("hiftnet_original")
    model = copy.deepcopy(model)
    spectrum = torch.cat([case.middle["har_magnitude"], case.middle["har_phase"]], 1)
    monkeypatch.setattr(model.stft, "forward", lambda *_, **__: spectrum)
    wav = model(case.inputs["mel"], source=_rows(case.inputs["source"]), backend=impl)
    assert_golden(wav, case, "wav_given_har")


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", [*NON_CAUSAL, "hiftnet_original"])
def test_golden_source(name: str, impl: str, nan_poison: None) -> None:
    case, model = _golden_model(name)
    f0 = case.inputs["f0_contour"]
    harmonics = model.config.harmonics + 1
    silent = torch.zeros(1, harmonics, f0.shape[1] * model.config.hop)
    source = model.make_source(f0, phase=torch.zeros(1, harmonics), noise=silent, backend=impl)
    theirs = case.outputs["source_deterministic"]
    assert_golden(source.reshape(theirs.shape), case, "source_deterministic")


@pytest.mark.golden
@each_impl
def test_golden_causal(impl: str, nan_poison: None) -> None:
    case, model = _golden_model("cosyvoice3_causal_hift")
    mel, noise = case.inputs["mel"], case.inputs["noise"].transpose(1, 2)
    source = model.make_source(model.predict_f0(mel, backend=impl), noise=noise, backend=impl)
    assert_golden(source, case, "source")
    assert_golden(model(mel, source=case.outputs["source"], backend=impl)[:, 0], case, "wav")

    f0 = model.predict_f0(mel, final=False, backend=impl)
    assert_golden(f0, case, "f0_streaming")
    source = model.make_source(f0, noise=noise[:, :, : f0.shape[1] * 480], backend=impl)
    assert_golden(source, case, "source_streaming")
    wav = model(mel, source=case.outputs["source_streaming"], final=False, backend=impl)
    assert_golden(wav[:, 0], case, "wav_streaming")


@pytest.mark.golden
@each_impl
@each_case
def test_golden_intermediates(name: str, impl: str) -> None:
    case, model = _golden_model(name)
    mel = case.inputs["mel"]
    source = _rows(case.inputs["source"] if "source" in case.inputs else case.outputs["source"])
    spectrum = model.stft(source, backend=impl)
    if name == "hiftnet_original":
        assert_golden(spectrum[:, :9], case, "mid.har_magnitude")
        assert_golden(spectrum[:, 9:], case, "mid.har_phase")
        # Its angles are rounding accidents where a bin is small; the rest is golden for the golden angles.
        spectrum = torch.cat([case.middle["har_magnitude"], case.middle["har_phase"]], 1)
    else:
        assert_golden(spectrum[:, :, :600], case, "mid.source_stft")
    x = model.conv_pre(mel, backend=impl)
    assert_golden(x, case, "mid.conv_pre")
    x = model.ups[0](x, backend=impl)
    assert_golden(x, case, "mid.ups0")
    _, down, source_stage, _ = model.stages[0]
    s = source_stage(down(spectrum, backend=impl), backend=impl)
    assert_golden(s, case, "mid.source0")
    assert_golden(x + s, case, "mid.fused0")


@pytest.mark.golden
@each_impl
def test_golden_jdc_intermediates(impl: str) -> None:
    from fastvoc.ops.conv2d import Conv2dParams, conv2d

    case, model = _golden_model("hiftnet_original")
    jdc, caught = model.f0_predictor, []
    handle = jdc.classifier.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    model.predict_f0(case.inputs["mel"], backend=impl)
    handle.remove()
    assert_golden(caught[0].transpose(1, 2), case, "mid.jdc_classifier_lstm")

    first = jdc._stem[0](case.inputs["mel"].transpose(1, 2)[:, None], backend=impl)
    weight = jdc.conv_block["3"].weight
    block = conv2d(first, Conv2dParams(weight, torch.zeros(len(weight))), backend=impl)
    assert_golden(block[:, :8], case, "mid.jdc_conv_block")


@each_impl
@each_small
def test_accuracy_against_float64(name: str, impl: str, nan_poison: None) -> None:
    model = _small(name)
    config, double = model.config, copy.deepcopy(_small(name)).double()
    # An angle beside pi turns into one beside -pi by its last bit, a jump in what the network sees; so several mels.
    draws = range(4 if config.features == "polar" else 1)
    for frames in (1, 2, 23):
        drawn = []
        for draw in draws:
            torch.manual_seed(draw)
            mel = _mel(config, 2, frames)
            f0 = model.predict_f0(mel, backend=impl)
            assert relative_l2(f0, double.predict_f0(mel.double(), backend="torch")) < 1e-5
            # Given the same F0: its phase grows without bound, and with it the effect of the last bit of F0.
            wav = model(mel, f0=f0, seed=[3, 4], backend=impl)
            assert wav.shape == (2, 1, config.samples(frames))
            by_f0 = relative_l2(wav, double(mel.double(), f0=f0.double(), seed=[3, 4], backend="torch"))
            source = double.make_source(f0.double(), seed=[3, 4], backend="torch").float()
            wav = model(mel, source=source, backend=impl)
            by_source = relative_l2(wav, double(mel.double(), source=source.double(), backend="torch"))
            assert max(by_f0, by_source) < (5e-2 if config.features == "polar" else 1e-4), (frames, draw)
            drawn.append((by_f0, by_source))
        assert min(by_f0 for by_f0, _ in drawn) < 1e-4, frames
        assert min(by_source for _, by_source in drawn) < (3e-5 if config.features == "polar" else 1e-5), frames
    assert HiftConfig.from_dict(config.to_dict()) == config


@each_impl
@each_small
def test_ragged_batch_equals_singles(name: str, impl: str, nan_poison: None) -> None:
    model = _small(name)
    lengths = torch.tensor([9, 23, 1])
    mel = torch.full((3, model.config.num_mels, 23), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        mel[i, :, :n] = _mel(model.config, n)
    f0 = model.predict_f0(mel, lengths, backend=impl)
    wav = model(mel, lengths, seed=[5, 6, 7], backend=impl)
    close = {"rtol": 0.0, "atol": 0.0} if impl == "cpp" else {"rtol": 1e-4, "atol": 1e-4}
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(f0[i, :n], model.predict_f0(mel[i : i + 1, :, :n], backend=impl)[0], **close)
        assert not f0[i, n:].any()
        samples = n * model.config.hop
        alone = model(mel[i : i + 1, :, :n], f0=f0[i : i + 1, :n], seed=5 + i, backend=impl)[0]
        torch.testing.assert_close(wav[i, :, :samples], alone, **close)
        assert not wav[i, :, samples:].any()


@each_impl
@pytest.mark.parametrize("name", ["cosyvoice3", "causal-by-sample", "causal-lookahead-0"])
def test_a_prefix_is_the_beginning_of_the_whole(name: str, impl: str, nan_poison: None) -> None:
    model = _small(name)
    mel = _mel(model.config, 2, 30)
    for exact in (True, False):
        with use_exact(exact):
            whole = model(mel, seed=2, backend=impl)
            for frames in (model.held_frames + 1, 13, 29):
                begun = model(mel[:, :, :frames], seed=2, final=False, backend=impl)
                assert begun.shape[2] == (frames - model.held_frames) * model.config.hop
                difference = (begun - whole[:, :, : begun.shape[2]]).abs().max()
                assert difference <= (0.0 if impl == "cpp" and exact else 1e-4), frames
    lengths = torch.tensor([14, 30])
    both = model(mel, lengths, seed=2, final=False, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        samples = (n - model.held_frames) * model.config.hop
        torch.testing.assert_close(both[i, :, :samples], whole[i, :, :samples], rtol=0, atol=1e-4)
        assert not both[i, :, samples:].any()


@each_impl
def test_the_source_follows_f0_seed_phase_and_noise(impl: str) -> None:
    model = _small("chatterbox")
    mel = _mel(model.config, 1, 12)
    plain = model(mel, backend=impl)
    assert relative_l2(model(mel, seed=0, backend=impl), plain) < 1e-4
    again = model(mel, f0=model.predict_f0(mel, backend=impl), backend=impl)
    torch.testing.assert_close(again, plain, rtol=0, atol=0 if impl == "cpp" else 1e-4)
    harmonics = model.config.harmonics + 1
    for change in (
        {"seed": 1},
        {"f0": torch.full((1, 12), 220.0)},
        {"phase": torch.full((1, harmonics), 0.5)},
        {"noise": torch.randn(1, harmonics, 12 * 480)},
        {"source": torch.zeros(1, 1, 12 * 480)},
    ):
        assert relative_l2(model(mel, backend=impl, **change), plain) > 1e-3, change
    stacked = model(mel.expand(3, -1, -1), seed=torch.tensor([4, 0, 4]), backend=impl)
    assert relative_l2(stacked[0], stacked[2]) < 1e-4
    assert relative_l2(stacked[0], stacked[1]) > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_published_networks_are_of_the_published_size(name: str) -> None:
    published = {
        "chatterbox": (CHATTERBOX, 20_821),
        "cosyvoice1": (COSYVOICE1, 20_461),
        "cosyvoice2": (COSYVOICE2, 20_821),
        "cosyvoice3": (COSYVOICE3, 20_780),
        "hiftnet": (HIFTNET, 17_186),
    }
    config, thousands = published[name]
    with torch.device("meta"):
        model = HiftNet(config)
    parameters = dict(model.named_parameters())
    # Weight norm has one more value per output channel, of a transposed convolution per input channel.
    normed = [p for n, p in parameters.items() if n.endswith("weight") and p.dim() == 3 and "source_downs" not in n]
    count = sum(p.numel() for n, p in parameters.items() if name != "hiftnet" or "f0_predictor" not in n)
    count += sum(p.shape[0] for p in normed)
    assert round(count / 1000) == thousands


def test_copies_are_independent() -> None:
    model = _small("hiftnet")
    twin = copy.deepcopy(model)
    mel = _mel(model.config, 1, 5)
    before = model(mel, seed=1)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    assert not torch.equal(twin(mel, seed=1), before)
    assert torch.equal(model(mel, seed=1), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMALL)
def test_source_and_transforms_stay_in_float32(name: str, dtype: torch.dtype) -> None:
    model = copy.deepcopy(_small(name)).to(dtype)
    assert next(model.parameters()).dtype is dtype
    mel = _mel(model.config, 1, 9)
    full = _small(name)
    torch.testing.assert_close(model.predict_f0(mel), full.predict_f0(mel), rtol=0, atol=0)
    f0 = full.predict_f0(mel)
    assert torch.equal(model.make_source(f0, seed=3), full.make_source(f0, seed=3))
    wav = model(mel.to(dtype), f0=f0, seed=3)
    assert wav.isfinite().all()
    assert torch.equal(model.istft.window, full.istft.window)


def test_layers_are_told() -> None:
    from fastvoc import explain

    for name in SMALL:
        told = {row.layer: row for row in explain(_small(name))}
        assert {"m_source", "stft", "conv_pre", "ups.0", "source_mrf.0", "mrf.1", "conv_post", "istft"} <= told.keys()
        assert all(row.chosen for row in told.values())
    ops = {row.op for row in explain(_small("hiftnet"))}
    assert {"conv2d", "lstm", "nsf_source", "istft_head", "mrf"} <= ops


@pytest.mark.native
def test_no_layer_falls_back() -> None:
    from fastvoc import explain

    for name in SMALL:
        slow = [row.layer for row in explain(_small(name), backend="cpp") if row.chosen != "cpp"]
        assert not slow, name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("upsample_rates", ()),
        ("upsample_rates", (8, 0, 3)),
        ("upsample_rates", (1, 1, 1)),
        ("upsample_kernel_sizes", (16, 11)),
        ("upsample_kernel_sizes", (15, 11, 7)),
        ("upsample_kernel_sizes", (4, 11, 7)),
        ("base_channels", 4),
        ("base_channels", -512),
        ("base_channels", 1 << 30),
        ("resblock_kernel_sizes", (3, 4, 11)),
        ("resblock_kernel_sizes", (3,) * 17),
        ("resblock_dilation_sizes", ((1, 3, 5),)),
        ("resblock_dilation_sizes", ((1,) * 17, (1,), (1,))),
        ("source_resblock_kernel_sizes", (7, 11)),
        ("source_resblock_dilation_sizes", ((1,), (), (1,))),
        ("n_fft", 15),
        ("n_fft", 6),
        ("istft_hop", 0),
        ("source", "cycle"),
        ("source_noise", "pink"),
        ("features", "real"),
        ("source_padding", "round"),
        ("f0_network", "rnn"),
        ("f0_dtype", "float16"),
        ("f0_channels", 0),
        ("harmonics", -1),
        ("lookahead", 5000),
        ("causal", 1),
        ("noise_std", -0.1),
        ("snake_eps", float("nan")),
        ("magnitude_clip", 0.0),
        ("clamp", -0.99),
        ("voiced_threshold", "10"),
        ("sample_rate", 0),
        ("num_mels", 100),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"HiftConfig\.{field}: got "):
        replace(CHATTERBOX, **{field: value})


def test_other_bad_configurations() -> None:
    with pytest.raises(ArgumentError, match=r"HiftConfig\.num_mels: got 81, expected 80, the pitch network's"):
        replace(HIFTNET, mel=None, num_mels=81)
    for field, value in (("f0_network", "conv"), ("source", "frame_linear")):
        with pytest.raises(ArgumentError, match=rf"HiftConfig\.{field}: got .*since the generator is causal"):
            replace(COSYVOICE3, **{field: value})
    with pytest.raises(ArgumentError, match="'upsample_rate'"):
        HiftConfig.from_dict({"upsample_rate": [8]})


def test_wrong_inputs_are_named() -> None:
    model = _small("chatterbox")
    mel = _mel(model.config, 2, 6)
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ShapeError, r"mel: expected \[B > 0, 80, T > 0\]", {"mel": mel[0]}),
        (ShapeError, "mel: expected", {"mel": mel[:, :79]}),
        (ShapeError, "mel: expected", {"mel": mel[:, :, :0]}),
        (ShapeError, "f0: expected", {"f0": torch.ones(6)}),
        (ShapeError, "f0: expected", {"f0": torch.ones(2, 1, 6)}),
        (ShapeError, "f0: expected", {"f0": torch.ones(2, 5)}),
        (ShapeError, "f0: expected", {"f0": torch.ones(1, 6)}),
        (DtypeError, "f0: expected", {"f0": torch.ones(2, 6, dtype=torch.long)}),
        (DeviceError, "f0: expected", {"f0": torch.ones(2, 6, device="meta")}),
        (ShapeError, "source: expected", {"source": torch.ones(2, 6 * 480)}),
        (ShapeError, "source: expected", {"source": torch.ones(2, 1, 5 * 480)}),
        (DtypeError, "source: expected", {"source": [0.0]}),
        (ShapeError, "phase: expected", {"phase": torch.zeros(2, 8)}),
        (ShapeError, "noise: expected", {"noise": torch.zeros(2, 9, 480)}),
        (ShapeError, "seed: expected", {"seed": [1, 2, 3]}),
        (DtypeError, "seed: expected", {"seed": 1.5}),
        (DtypeError, "seed: expected", {"seed": 1 << 70}),
        (DtypeError, "seed: expected", {"seed": "one"}),
        (ArgumentError, "final: False needs a causal configuration", {"final": False}),
    ]
    for error, text, arguments in wrong:
        with pytest.raises(error, match=text):
            model(**{"mel": mel, **arguments})
    causal = _small("cosyvoice3")
    with pytest.raises(ShapeError, match="mel: expected more than 8 frames for final=False, got 8"):
        causal(_mel(causal.config, 1, 8), final=False)
