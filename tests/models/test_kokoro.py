"""Kokoro's decoder: golden cases, its files, ragged batches, noise, what it says of streams and of wrong inputs."""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import KOKORO, random_state, write_kokoro
from stream_families import randomised
from torch import Tensor

import fastvoc
from fastvoc.errors import (
    ArgumentError,
    AssumptionWarning,
    DeviceError,
    DtypeError,
    FastvocError,
    LoadError,
    ShapeError,
)
from fastvoc.models import kokoro_config
from fastvoc.models.kokoro_config import KokoroConfig
from fastvoc.nn import pieces
from fastvoc.styled import StyledVocoder
from helpers import assert_golden, golden, implementations, relative_l2

IMPLS = implementations("adain")
each_impl = pytest.mark.parametrize("impl", IMPLS)


def load(folder: Path, impl: str | None = None) -> StyledVocoder:
    voc = fastvoc.load(folder / "kokoro-v1_0.pth", backend=impl)
    assert isinstance(voc, StyledVocoder)
    return voc


@pytest.mark.golden
@each_impl
def test_golden(impl: str) -> None:
    case = golden("kokoro_istftnet")
    voc = load(case.dir, impl)
    assert (voc.sample_rate, voc.hop, voc.n_mels, voc.config.style_dim) == (24000, 600, 20, 24)
    assert (voc.config.channels, voc.config.asr_channels) == (28, 8)
    asr, f0, n, style = (case.inputs[name] for name in ("asr", "f0", "n", "style"))
    har = torch.cat([case.inputs["har_magnitude"], case.inputs["har_phase"]], 1)
    assert_golden(voc.decode(asr, f0, n, style, har=har)[:, None], case, "wav_given_har")
    single = voc.decode(asr[0].numpy(), f0[0], n[0].numpy(), style[0].tolist(), har=har[0])
    assert_golden(single[None, None], case, "wav_given_har")
    source = case.inputs["har_source"].mT
    assert_golden(voc(asr, f0=f0, n=n, style=style, source=source)[:, None], case, "wav")


@pytest.mark.golden
@each_impl
def test_golden_parts(impl: str) -> None:
    case = golden("kokoro_istftnet")
    model: Any = load(case.dir, impl).model
    asr, f0, n = (case.inputs[name] for name in ("asr", "f0", "n"))
    assert_golden(model.F0_conv(f0[:, None], backend=impl), case, "mid.f0_conv")
    assert_golden(model.N_conv(n[:, None], backend=impl), case, "mid.n_conv")
    assert_golden(model.asr_res[0](asr, backend=impl), case, "mid.asr_res")
    source = model.make_source(f0, noise=case.inputs["noise_unit"].mT, backend=impl)
    assert_golden(source.mT, case, "mid.har_source")
    har = model.stft(case.inputs["har_source"].mT.contiguous(), backend=impl)
    assert_golden(har[:, :11], case, "mid.har_magnitude")
    # Where bins are real the angle of a negative one is +pi, never -pi.
    assert (har[:, 11:] - case.inputs["har_phase"]).abs().max() < 1e-2
    styles = model._styles_of(case.inputs["style"], 1, impl)
    network = model.reading("spectrum", (1, 2, 2, 120, 0))
    har = torch.cat([case.inputs["har_magnitude"], case.inputs["har_phase"]], 1)
    spectrum = network(asr, f0[:, None], n[:, None], har, styles, backend=impl)
    assert_golden(spectrum[:, :11], case, "mid.log_magnitude")
    assert_golden(spectrum[:, 11:].sin(), case, "mid.phase")


@cache
def small(impl: str | None = None) -> StyledVocoder:
    """A decoder with random weights that keep signals lively."""
    made = randomised(KOKORO)
    for name, parameter in made.model.named_parameters():
        if name.endswith((".norm.weight", ".alpha")):
            parameter.abs_().add_(0.5)
    voc = StyledVocoder(made.model, KOKORO, backend=impl)
    voc.model.prepare(backend=impl)
    return voc


def spoken(batch: int, frames: int) -> dict[str, Tensor]:
    """What one calls it with."""
    f0 = 100 + 200 * torch.rand(batch, 2 * frames)
    f0[:, ::7] = 0
    style = torch.randn(batch, KOKORO.style_dim)
    return {"mel": torch.randn(batch, KOKORO.num_mels, frames), "f0": f0, "n": torch.rand(f0.shape), "style": style}


@each_impl
@pytest.mark.parametrize("given", ["seed", "source", "har"])
def test_an_item_is_as_if_alone(given: str, impl: str, nan_poison: None) -> None:
    voc, lengths = small(impl), [7, 12, 1]
    inputs = spoken(3, 12)
    shapes = voc.model.input_shapes(12)
    inputs[given] = torch.tensor([4, 5, 6]) if given == "seed" else torch.randn(3, *shapes[given])
    steps = {"mel": 1, "f0": 2, "n": 2, "source": voc.hop}
    for i, n in enumerate(lengths):
        for name, rate in steps.items():
            if name in inputs:
                inputs[name][i, ..., n * rate :] = torch.nan
        if given == "har":
            inputs["har"][i, :, n * voc.hop // KOKORO.istft_hop + 1 :] = torch.nan
    mel = inputs.pop("mel")
    wavs = voc(mel, lengths, check=False, **inputs)
    for i, n in enumerate(lengths):
        own = {name: value[i] for name, value in inputs.items()}
        for name, rate in steps.items():
            if name in own:
                own[name] = own[name][..., : n * rate]
        if given == "har":
            own["har"] = own["har"][:, : n * voc.hop // KOKORO.istft_hop + 1]
        if given == "seed":
            own["seed"] = int(own["seed"])
        one = voc(mel[i, :, :n], **own)
        assert torch.equal(wavs[i, : len(one)], one) if impl == "cpp" else relative_l2(wavs[i, : len(one)], one) < 1e-5
        assert not wavs[i, len(one) :].any()


@each_impl
@pytest.mark.parametrize("frames", [1, 2, 3, 17, 100])
def test_equals_float64(frames: int, impl: str) -> None:
    voc = small(impl)
    inputs = spoken(2, frames)
    inputs["source"] = torch.randn(2, 1, frames * voc.hop)
    # Angles of the source's spectrum are read from one transform: at -pi and pi rounding decides.
    inputs["har"] = voc.model.stft(inputs.pop("source"), backend="torch")
    wide = copy.deepcopy(voc.model).double()
    theirs = wide(**{name: tensor.double() for name, tensor in inputs.items()}, backend="torch")
    ours = voc(inputs.pop("mel"), **inputs)
    assert relative_l2(ours, theirs[:, 0]) < 3e-6


@each_impl
def test_the_seed_decides_the_noise(impl: str) -> None:
    voc = small(impl)
    inputs = spoken(1, 9)
    asr = inputs.pop("mel")
    one = voc(asr, seed=3, **inputs)
    assert torch.equal(voc(asr, seed=[3], **inputs), one)
    assert torch.equal(voc(asr, **inputs), voc(asr, seed=0, **inputs))
    assert not torch.equal(voc(asr, seed=4, **inputs), one)


@pytest.mark.native
def test_long_batches_run_item_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    voc = small("cpp")
    inputs = spoken(3, 20)
    asr = inputs.pop("mel")
    whole = voc(asr, [20, 9, 13], **inputs)
    again = copy.deepcopy(voc.model)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1)
    assert torch.equal(StyledVocoder(again, KOKORO, backend="cpp")(asr, [20, 9, 13], **inputs), whole)


def test_numbers_and_one_style_stand_for_all() -> None:
    voc = small()
    asr, style = torch.randn(2, KOKORO.num_mels, 5), torch.randn(KOKORO.style_dim)
    levels = {"f0": torch.full((2, 10), 120.0), "n": torch.full((2, 10), 0.5)}
    expected = voc(asr, style=style.expand(2, -1), **levels)
    for same in (style, style[None], style.double(), style.numpy(), style.tolist()):
        assert torch.equal(voc.decode(asr, 120, 0.5, same), expected)
    assert torch.equal(voc.decode(asr[1], levels["f0"][1], 0.5, style), expected[1])


WRONG: dict[str, tuple[dict[str, Any], type[FastvocError], str]] = {
    "no f0": ({"f0": None}, ArgumentError, r"f0: expected \[B, 2 \* T\] in Hz, or a number"),
    "no energy": ({"n": None}, ArgumentError, r"n: expected \[B, 2 \* T\], or a number"),
    "no style": ({"style": None}, ArgumentError, r"style: expected \[B, 24\], or \[24\] for all items"),
    "an f0 a frame": ({"f0": torch.zeros(2, 9)}, ShapeError, r"f0: expected \[2, 18\], got \[2, 9\]"),
    "a whole row": ({"style": torch.zeros(2, 48)}, ShapeError, r"style: expected \[2, 24\], or \[24\] for all items"),
    "too many styles": ({"style": torch.zeros(3, 24)}, ShapeError, r"style: expected \[2, 24\]"),
    "a name": ({"style": "af_heart"}, DtypeError, "style: expected floating-point values"),
    "whole numbers": ({"style": torch.zeros(24, dtype=torch.int64)}, DtypeError, "style: expected floating-point"),
    "not a style": ({"style": torch.full((24,), torch.nan)}, ArgumentError, "style: holds NaN or infinity"),
    "elsewhere": ({"style": torch.zeros(24, device="meta")}, DeviceError, "style: expected a tensor on cpu"),
    "not an energy": ({"n": torch.full((2, 18), torch.inf)}, ArgumentError, "n: holds NaN or infinity"),
    "a short source": ({"source": torch.zeros(2, 1, 9)}, ShapeError, r"source: expected \[2, 1, 5400\]"),
    "a short spectrum": ({"har": torch.zeros(2, 22, 1080)}, ShapeError, r"har: expected \[2, 22, 1081\]"),
    "a phase": ({"phase": 3}, ArgumentError, "phase: Kokoro has no such input; it takes f0, n, style, har"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_are_named(name: str) -> None:
    inputs, error, message = WRONG[name]
    given = {"f0": 100.0, "n": 0.0, "style": torch.zeros(24), **inputs}
    with pytest.raises(error, match=message):
        small()(torch.zeros(2, KOKORO.num_mels, 9), **{k: v for k, v in given.items() if v is not None})


def test_wrong_features_are_called_asr() -> None:
    voc, bands = small(), KOKORO.num_mels
    other = {"f0": 100.0, "n": 0.0, "style": torch.zeros(24)}
    for asr, error, message in (
        (torch.zeros(bands + 1, 9), ShapeError, "asr: expected"),
        (torch.zeros(9, bands), ShapeError, r"asr: .* it is transposed; pass asr\.transpose"),
        (torch.full((bands, 9), torch.nan), ArgumentError, "asr: holds NaN or infinity"),
        (torch.zeros(bands, 9, dtype=torch.int64), DtypeError, "asr: expected"),
    ):
        with pytest.raises(error, match=message):
            voc.decode(asr, **other)


def test_there_are_no_streams() -> None:
    voc = small()
    for name, use in (
        ("stream", voc.stream),
        ("latency", lambda: voc.latency),
        ("context_frames", lambda: voc.context_frames),
        ("stream", lambda: fastvoc.Streams(voc).open("a")),
    ):
        with pytest.raises(ArgumentError, match=f"^{name}: Kokoro's norms .* whole utterance.* sentence by sentence"):
            use()  # type: ignore[operator]
    with pytest.raises(ArgumentError, match="mel: the model takes a latent"):
        voc.mel(torch.zeros(4000))
    assert voc.warmup(5) is voc
    assert "adain" in {row.op for row in fastvoc.explain(voc)}


def test_bfloat16_keeps_what_reads_styles_in_float32() -> None:
    half = StyledVocoder(copy.deepcopy(small().model), KOKORO).to(torch.bfloat16)
    model: Any = half.model
    wide = (model.F0_conv, model.N_conv, model.m_source, model.encode.norm1.fc, model.resblocks[0].adain1[0].fc)
    assert {part.weight.dtype for part in wide} == {torch.float32}
    assert (half.dtype, half.input_dtype) == (torch.bfloat16, torch.bfloat16)
    inputs = spoken(2, 20)
    asr = inputs.pop("mel")
    inputs["har"] = small().model.stft(torch.randn(2, 1, 20 * half.hop))
    assert relative_l2(half(asr, [20, 13], **inputs), small()(asr, [20, 13], **inputs)) < 3e-2


def test_bad_configurations_name_the_field() -> None:
    base = KOKORO.to_dict()
    assert KokoroConfig.from_dict(json.loads(json.dumps(base))) == KOKORO
    wrong: dict[str, Any] = {
        "channels": 0,
        "style_dim": 1.5,
        "upsample_rates": (10, 0),
        "upsample_kernel_sizes": (20, 11),
        "upsample_initial_channel": 3,
        "resblock_kernel_sizes": (3, 4),
        "resblock_dilation_sizes": ((1, 3),),
        "harmonics": -1,
        "n_fft": 9,
        "mel": 3,
    }
    for field, value in wrong.items():
        with pytest.raises(ArgumentError, match=rf"KokoroConfig\.{field}: got "):
            KokoroConfig.from_dict({**base, field: value})
    with pytest.raises(ArgumentError, match="unknown field 'x'"):
        KokoroConfig.from_dict({**base, "x": 1})
    shapes = dict(kokoro_config.KOKORO.tensors())
    assert shapes["encode.conv1.weight"] == (1024, 514, 3)
    assert shapes["decode.3.pool.weight"] == (1090, 1, 3)
    assert shapes["noise_convs.0.weight"] == (256, 22, 12)
    assert shapes["resblocks.5.adain2.2.fc.weight"] == (256, 128)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("norms", [True, False])
def test_files_tell_the_whole_configuration(norms: bool, wrapped: bool, whole: bool, tmp_path: Path) -> None:
    state = random_state(KOKORO)
    path = write_kokoro(tmp_path, state, norms=norms, wrapped=wrapped, whole=whole)
    voc = fastvoc.load(path)
    assert voc.config == KOKORO
    assert not voc.assumed
    for name, tensor in voc.model.state_dict().items():
        absent = not norms and ".norm." in name
        expected = torch.full_like(tensor, float(name.endswith("weight"))) if absent else state[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7, msg=name)
    fastvoc.save(voc, tmp_path / "own.safetensors")
    again = fastvoc.load(tmp_path / "own.safetensors")
    assert isinstance(again, StyledVocoder)
    asr, style = torch.randn(KOKORO.num_mels, 3), np.zeros(KOKORO.style_dim, dtype=np.float32)
    assert torch.equal(again.decode(asr, 100, 0.5, style), voc(asr, f0=100, n=0.5, style=style))


@pytest.mark.golden
def test_a_file_without_its_configuration(tmp_path: Path) -> None:
    case = golden("kokoro_istftnet")
    shutil.copy(case.dir / "kokoro-v1_0.pth", tmp_path)
    with pytest.warns(AssumptionWarning, match=r"upsample_rates \(10, 6\) is assumed: no config.json says it") as told:
        voc = fastvoc.load(tmp_path)
    assert len(told) == 1
    assert voc.config == load(case.dir).config


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = random_state(KOKORO)
    cut = state["decode.1.norm1.fc.weight"][:-2]
    for change, message in (
        ({"encode.conv1.bias": None}, r"tensor 'encode\.conv1\.bias' .* is missing"),
        ({"decode.1.norm1.fc.weight": cut}, r"tensor .*decode\.1\.norm1\.(fc|norm)\.weight'"),
        ({"other.weight": torch.zeros(3)}, r"other\.weight"),
        ({"conv_post.bias": torch.full_like(state["conv_post.bias"], torch.nan)}, r"conv_post\.bias' holds NaN"),
    ):
        changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        with pytest.raises(LoadError, match=message):
            fastvoc.load(write_kokoro(tmp_path, changed))
    for field, value, message in (
        ("upsample_rates", [10, 5], "illegal configuration: KokoroConfig.upsample_kernel_sizes"),
        ("gen_istft_n_fft", 16, r"noise_convs\.0\.weight' has shape \[12, 22, 12\]"),
        ("resblock_kernel_sizes", "x", "istftnet.resblock_kernel_sizes"),
    ):
        path = write_kokoro(tmp_path, state)
        text = json.loads((tmp_path / "config.json").read_text())
        text["istftnet"][field] = value
        (tmp_path / "config.json").write_text(json.dumps(text))
        with pytest.raises(LoadError, match=message):
            fastvoc.load(path)
