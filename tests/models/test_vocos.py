"""Vocos: golden cases of both kinds, accuracy, ragged batches, bandwidths per item, codes, configurations."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fastvoc
from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.loading import model_of
from fastvoc.models.vocos import Vocos
from fastvoc.models.vocos_config import VOCOS_ENCODEC_24K, VOCOS_MEL_24K, VocosConfig
from helpers import GoldenCase, assert_golden, golden, implementations, relative_l2

IMPLS = implementations("convnext_block")
each_impl = pytest.mark.parametrize("impl", IMPLS)
MEL_CASES = ("vocos_mel_center", "vocos_mel_same")
SMALL = replace(VOCOS_MEL_24K, dim=40, intermediate_dim=100, num_layers=2)
CODES = replace(
    VOCOS_ENCODEC_24K, input_channels=12, dim=40, intermediate_dim=100, num_layers=2, num_codebooks=8, codebook_size=32
)
ROUNDS = replace(SMALL, padding="same", phase_rounds=2)


def lively(config: VocosConfig) -> Vocos:
    """Random weights under which every layer's signal keeps about the same size, and magnitudes stay below the clip."""
    model = Vocos(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "gamma")):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
        elif parameter.dim() == 1 or "norm" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
        elif "codebook" not in name:
            torch.nn.init.normal_(parameter, 0.0, parameter[0].numel() ** -0.5)
    return model.eval().requires_grad_(False)


def load(case: GoldenCase) -> Vocos:
    model: Vocos = model_of(detect_and_load(case.dir))
    return model


def check_middle(model: Vocos, features: Tensor, row: Tensor | None, case: GoldenCase, impl: str) -> None:
    """Every layer's output against the golden ones."""
    backbone = model.backbone
    x = backbone.embed(features, backend=impl)
    assert_golden(x, case, "mid.embed")
    x = backbone.convnext[0](backbone.norm(x, row, backend=impl), row, backend=impl)
    assert_golden(x, case, "mid.block0")
    hidden = backbone(features, row, backend=impl)
    assert_golden(hidden.transpose(1, 2), case, "mid.backbone")
    magnitude, phase = model.head.out(hidden, backend=impl).chunk(2, 1)
    assert_golden(magnitude, case, "mid.head_log_magnitude")
    assert_golden(phase, case, "mid.head_phase")


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", MEL_CASES)
def test_golden_mel(name: str, impl: str) -> None:
    case = golden(name)
    model = load(case)
    with torch.inference_mode():
        check_middle(model, case.inputs["features"], None, case, impl)
        assert_golden(model(case.inputs["features"], backend=impl)[:, 0], case, "wav")


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", MEL_CASES)
def test_golden_copy_synthesis(name: str, impl: str) -> None:
    case = golden(name)
    voc = fastvoc.load(case.dir, backend=impl)
    mel = voc.mel(case.inputs["audio"])
    assert_golden(mel, case, "mid.features_from_audio")
    assert_golden(voc(mel, check=False), case, "wav_copy")


@pytest.mark.golden
@each_impl
def test_golden_codes(impl: str) -> None:
    case = golden("vocos_encodec")
    model = load(case)
    with torch.inference_mode():
        for i, books in enumerate((2, 4, 8, 16)):
            features = model.codes_to_features(case.inputs["codes"][:books].transpose(0, 1), backend=impl)
            assert_golden(features, case, f"features_{i}")
            assert_golden(model(features, backend=impl, bandwidth_id=i)[:, 0], case, f"wav_{i}")
        features = model.codes_to_features(case.inputs["codes"][:2].transpose(0, 1), backend=impl)
        check_middle(model, features, torch.tensor([0, 0]), case, impl)


@pytest.mark.golden
@each_impl
def test_every_item_has_its_own_bandwidth(impl: str, nan_poison: None) -> None:
    case = golden("vocos_encodec")
    model = load(case)
    codes = case.inputs["codes"].transpose(0, 1)[:, :8]
    ids, lengths = [3, 0, 2, 1], torch.tensor([21, 5, 1, 13])
    features = model.codes_to_features(codes[[0, 1, 0, 1]], backend=impl)
    together = model(features, lengths, impl, bandwidth_id=torch.tensor(ids))
    for i, (n, wanted) in enumerate(zip(lengths.tolist(), ids, strict=True)):
        alone = model(features[i : i + 1, :, :n], backend=impl, bandwidth_id=wanted)
        assert torch.equal(together[i, :, : n * 320], alone[0])
        assert not together[i, :, n * 320 :].any()


@each_impl
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(SMALL, id="center"),
        pytest.param(replace(SMALL, padding="same", mel=None), id="same"),
        pytest.param(CODES, id="adaptive"),
        pytest.param(replace(SMALL, kernel_size=3, layer_scale=False, layer_norm_eps=1e-4), id="unusual"),
        pytest.param(replace(SMALL, sample_rate=44100, n_fft=600, hop_length=150, mel=None), id="44.1kHz"),
    ],
)
def test_accuracy_at_all_lengths(config: VocosConfig, impl: str, nan_poison: None) -> None:
    model = lively(config)
    double = copy.deepcopy(model).double()
    chosen = {} if config.adanorm_num_embeddings is None else {"bandwidth_id": [1, 3]}
    for frames in (1, 2, 3, 7, 13, 31, 64, 100, 257, 1000):
        if frames < config.min_frames:
            continue
        features = torch.randn(2, config.input_channels, frames)
        wav = model(features, backend=impl, **chosen)
        assert wav.shape == (2, 1, config.samples(frames))
        assert relative_l2(wav, double(features.double(), backend="torch", **chosen)) <= 1e-5, frames


@each_impl
@pytest.mark.slow
def test_accuracy_at_the_published_size(impl: str) -> None:
    model = lively(VOCOS_MEL_24K)
    mel = torch.randn(1, 100, 150)
    expected = copy.deepcopy(model).double()(mel.double(), backend="torch")
    assert relative_l2(model(mel, backend=impl), expected) <= 1e-5


@pytest.mark.golden
@each_impl
def test_loaded_model_takes_codes_and_features(impl: str) -> None:
    """The issue's example, codes [8, 200] with a bandwidth_id, and the golden codes through what `load` returns."""
    case = golden("vocos_encodec")
    voc = fastvoc.load(case.dir, backend=impl).warmup(5)
    codes = case.inputs["codes"].transpose(0, 1)
    for i, books in enumerate((2, 4, 8, 16)):
        assert_golden(voc.decode_codes(codes[:, :books], bandwidth_id=i), case, f"wav_{i}")
    features = voc.model.codes_to_features(codes[:, :8])
    assert_golden(voc(features, bandwidth_id=torch.tensor([2])), case, "wav_2")
    tokens = torch.randint(0, 1024, (8, 200))
    wav = voc.decode_codes(tokens, bandwidth_id=torch.tensor([2]))
    assert wav.shape == (64000,)
    assert not wav.is_inference()
    assert torch.equal(wav, voc.decode_codes(tokens.numpy().astype("int16"), bandwidth_id=2))
    assert torch.equal(wav, voc(voc.model.codes_to_features(tokens[None])[0], bandwidth_id=[2]))
    ragged = voc.decode_codes(torch.stack([tokens, tokens]), [200, 30], bandwidth_id=[2, 0])
    assert torch.equal(ragged[0], wav)
    assert torch.equal(ragged[1, : 30 * 320], voc.decode_codes(tokens[:, :30], bandwidth_id=0))
    assert not ragged[1, 30 * 320 :].any()


@pytest.mark.golden
def test_loaded_model_refuses_wrong_codes() -> None:
    voc, mel = fastvoc.load(golden("vocos_encodec").dir), fastvoc.load(golden("vocos_mel_same").dir)
    codes = torch.zeros(8, 20, dtype=torch.int64)
    wrong: list[tuple[type[Exception], str, Any]] = [
        (ArgumentError, "takes mels", lambda: mel.decode_codes(codes)),
        (ArgumentError, "bandwidth_id: .* no such input", lambda: mel(torch.zeros(100, 9), bandwidth_id=1)),
        (ArgumentError, "bandwidth_id: .* got None", lambda: voc.decode_codes(codes)),
        (ArgumentError, "bandwidth_id: .* got 4", lambda: voc.decode_codes(codes, bandwidth_id=4)),
        (ArgumentError, "bandwidth_id: .* got 4", lambda: voc.decode_codes(codes + 5000, bandwidth_id=4)),
        (ArgumentError, r"0\.\.1023, got 1024", lambda: voc.decode_codes(codes + 1024, bandwidth_id=1)),
        (ArgumentError, r"0\.\.1023, got -1", lambda: voc.decode_codes(codes - 1, bandwidth_id=1)),
        (ShapeError, r"K in 1\.\.16", lambda: voc.decode_codes(codes.expand(3, -1, -1).mT, bandwidth_id=1)),
        (ShapeError, r"K in 1\.\.16", lambda: voc.decode_codes(codes[0], bandwidth_id=1)),
        (ShapeError, r"K in 1\.\.16", lambda: voc.decode_codes(codes[:, :0], bandwidth_id=1)),
        (ShapeError, "lengths: only for a batch", lambda: voc.decode_codes(codes, [5], bandwidth_id=1)),
        (ArgumentError, r"lengths: .* 1\.\.20", lambda: voc.decode_codes(codes[None], [21], bandwidth_id=1)),
        (DtypeError, "codes: expected .* whole numbers", lambda: voc.decode_codes(codes.float(), bandwidth_id=1)),
        (
            DtypeError,
            "codes: expected .* whole numbers",
            lambda: voc.decode_codes(codes.bool().numpy(), bandwidth_id=1),
        ),
        (DtypeError, "codes: expected .* whole numbers", lambda: voc.decode_codes(codes.tolist(), bandwidth_id=1)),
        (ArgumentError, "mel: holds NaN", lambda: voc(torch.full((14, 9), torch.nan), bandwidth_id=1)),
    ]
    for error, text, call in wrong:
        with pytest.raises(error, match=text):
            call()


@each_impl
def test_codes_are_summed_in_their_lengths(impl: str, nan_poison: None) -> None:
    model = lively(CODES)
    codes = torch.randint(0, 32, (2, 5, 30))
    features = model.codes_to_features(codes, backend=impl)
    books = model.feature_extractor.codebook_weights.double().unflatten(0, (8, 32))
    expected = sum(books[k][codes[:, k]] for k in range(5)).transpose(1, 2)
    assert relative_l2(features, expected) < 1e-6
    codes[1, :, 11:] = 1 << 40
    ragged = model.codes_to_features(codes, torch.tensor([30, 11]), backend=impl)
    assert torch.equal(ragged[0], features[0])
    assert torch.equal(ragged[1, :, :11], features[1, :, :11])
    assert not ragged[1, :, 11:].any()


@pytest.mark.parametrize("config", [SMALL, CODES], ids=["mel", "codes"])
def test_native_file_keeps_the_model(config: VocosConfig, tmp_path: Path) -> None:
    model = lively(config)
    voc = fastvoc.vocoder.Vocoder(model, config, config.mel)
    fastvoc.save(voc, tmp_path / "model.safetensors")
    again = fastvoc.load(tmp_path / "model.safetensors")
    assert again.config == config
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in model.state_dict().items())
    assert VocosConfig.from_dict(config.to_dict()) == config


@each_impl
def test_a_round_takes_the_phases_of_its_own_sound(impl: str, nan_poison: None) -> None:
    """Where all frames overlap, those of torch's STFT of torch's inverse; weighted, as quiet bins have no phase."""
    model = lively(ROUNDS)
    x = model.head.out(torch.randn(1, 40, 30), backend=impl)
    y = model.head.rounds[0].reading()(x, backend=impl).double()
    shape: dict[str, Any] = {"n_fft": 1024, "hop_length": 256, "window": torch.hann_window(1024).double()}
    magnitude, phase = x.double().chunk(2, 1)
    assert torch.equal(y[:, :513], magnitude)
    sound = torch.istft(torch.polar(magnitude.exp(), phase), **shape)
    meant = torch.stft(sound, **shape, return_complex=True)[..., 4:-4]
    turned = torch.polar(meant.abs(), y[:, 513:, 4:-4])
    assert relative_l2(torch.view_as_real(turned), torch.view_as_real(meant)) < 1e-5


def test_rounds_bring_the_sound_to_its_magnitudes() -> None:
    """What Griffin and Lim prove: no round takes the sound's own magnitudes further from those of the head."""
    model = lively(ROUNDS).double()
    turn = model.head.rounds[0]
    x = model.head.out(torch.randn(1, 40, 30, dtype=torch.float64))
    errors = []
    for _ in range(12):
        made = turn.stft(turn.istft(x))[:, :513]
        errors.append(float((made - x[:, :513].exp()).norm()))
        x = turn.reading()(x)
    assert all(later <= sooner for sooner, later in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


@pytest.mark.native
@pytest.mark.parametrize("config", [SMALL, CODES, ROUNDS], ids=["mel", "codes", "rounds"])
def test_no_layer_runs_unfused(config: VocosConfig) -> None:
    rows = list(fastvoc.explain(lively(config)))
    assert len(rows) == 2 + 2 + 3 + (config is CODES) + 2 * config.phase_rounds
    assert {row.layer: row.chosen for row in rows if row.chosen != "cpp"} == {}


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (None, ArgumentError, r"expected one of 0..3 for 1.5, 3, 6, 12 kbit/s, got None"),
        (4, ArgumentError, "got 4"),
        (-1, ArgumentError, "got -1"),
        ([0, 9], ArgumentError, "got 9"),
        (True, DtypeError, "torch.bool"),
        (1.0, DtypeError, "torch.float32"),
        ("6 kbps", DtypeError, "expected whole numbers"),
        (torch.tensor([0, 1, 2]), ShapeError, r"expected one number or 2, one per item, got \[3\]"),
    ],
)
def test_wrong_bandwidths_are_named(wrong: Any, error: type[Exception], text: str) -> None:
    model = lively(CODES)
    with pytest.raises(error, match=f"bandwidth_id: .*{text}"):
        model(torch.randn(2, 12, 5), bandwidth_id=wrong)


def test_forms_of_a_bandwidth() -> None:
    model = lively(CODES)
    features = torch.randn(2, 12, 5)
    expected = model(features, bandwidth_id=2)
    forms = (torch.tensor(2), torch.tensor([2]), torch.tensor([[2]]), [2, 2], torch.tensor([2, 2], dtype=torch.int32))
    for form in (*forms, torch.tensor(2).numpy()):
        assert torch.equal(model(features, bandwidth_id=form), expected)


def test_wrong_inputs_are_named() -> None:
    model, coded = lively(SMALL), lively(CODES)
    for mel in (torch.randn(100, 5), torch.randn(1, 101, 5), torch.randn(1, 5, 100), torch.randn(1, 100, 0)):
        with pytest.raises(ShapeError, match=r"mel: expected \[B, 100, T > 0\]"):
            model(mel)
    with pytest.raises(ShapeError, match="expected at least 2 frames, got 1"):
        model(torch.randn(1, 100, 1))
    with pytest.raises(ShapeError, match="expected at least 2 frames, got 1"):
        model(torch.randn(2, 100, 5), torch.tensor([5, 1]))
    with pytest.raises(ArgumentError, match="bandwidth_id: this model has no adaptive norms"):
        model(torch.randn(1, 100, 5), bandwidth_id=0)
    with pytest.raises(ArgumentError, match="this model takes mels"):
        model.codes_to_features(torch.zeros(1, 2, 5, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"1\.\.8"):
        coded.codes_to_features(torch.zeros(1, 9, 5, dtype=torch.int64))
    with pytest.raises(ArgumentError, match=r"0\.\.31, got 0\.\.32"):
        coded.codes_to_features(torch.tensor([[[0, 32]]]))
    with pytest.raises(DtypeError, match="int64"):
        coded.codes_to_features(torch.zeros(1, 2, 5))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 0),
        ("input_channels", True),
        ("dim", 1 << 20),
        ("intermediate_dim", -4),
        ("num_layers", 1 << 30),
        ("kernel_size", 4),
        ("layer_norm_eps", 0.0),
        ("layer_norm_eps", float("nan")),
        ("layer_scale", 0.125),
        ("adanorm_num_embeddings", 0),
        ("n_fft", 1023),
        ("hop_length", 1024),
        ("padding", "valid"),
        ("phase_rounds", -1),
        ("phase_rounds", True),
        ("bandwidths", (1.5,)),
        ("num_codebooks", 1 << 20),
        ("num_codebooks", 4),
        ("num_codebooks", -1),
        ("mel", replace(VOCOS_MEL_24K.mel or pytest.fail("no front end"), n_mels=80)),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: Any) -> None:
    name = "mel" if field == "num_codebooks" and value == 4 else field
    with pytest.raises(ArgumentError, match=rf"VocosConfig\.{name}: got "):
        replace(VOCOS_MEL_24K, **{field: value})


def test_unknown_field_is_named() -> None:
    with pytest.raises(ArgumentError, match="'hidden_size'"):
        VocosConfig.from_dict({"hidden_size": 512})
