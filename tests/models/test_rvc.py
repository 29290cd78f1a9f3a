"""RVC's generator: golden cases, its files, the source and its noise, streams in which F0 comes, wrong inputs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import RVC, random_state, rvc_values, write_rvc
from hypothesis import given
from hypothesis import strategies as st
from stream_families import QUICK, SungAt150, mel_of, nsf, vocoder
from torch import Tensor

import fastvoc
from fastvoc.errors import ArgumentError, DtypeError, FastvocError, LoadError, ShapeError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.nsf_hifigan import RVC_40K, NsfHifiGanConfig
from fastvoc.vocoder import Vocoder
from helpers import assert_golden, golden, implementations, relative_l2

IMPLS = implementations("mrf")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden(impl: str) -> None:
    case = golden("rvc_nsf_hifigan")
    voc = fastvoc.load(case.dir / "voice.pth", backend=impl)
    assert (voc.sample_rate, voc.hop, voc.n_mels, voc.config.gin_channels) == (40000, 400, 24, 16)
    latent, f0, speaker = (case.inputs[name] for name in ("latent", "f0", "speaker_embedding"))
    noise = case.inputs["noise_unit"].mT
    for who in (speaker, case.inputs["speaker_id"], case.inputs["speaker_id"].numpy()):
        assert_golden(voc(latent, f0=f0, speaker=who, noise=noise)[:, None], case, "wav")
    quiet = voc(latent, f0=f0, speaker=speaker, noise=torch.zeros_like(noise))
    assert_golden(quiet[:, None], case, "wav_zero_noise")
    source = voc.model.make_source(f0, noise=noise, backend=impl)
    assert_golden(source.mT, case, "mid.har_source")
    given_source = voc(latent, source=case.middle["har_source"].mT, speaker=speaker)
    assert_golden(given_source[:, None], case, "wav")
    single = voc(latent[1], f0=f0[1].numpy(), speaker=speaker[1, :, 0], noise=noise[1])
    assert relative_l2(single, case.outputs["wav"][1, 0]) < 1e-4


@pytest.mark.golden
def test_golden_parts_of_the_source() -> None:
    case = golden("rvc_nsf_hifigan")
    model = fastvoc.load(case.dir / "voice.pth").model
    source = case.middle["har_source"].mT.contiguous()
    for i, conv in enumerate(model.noise_convs):
        assert_golden(conv(source), case, f"mid.noise{i}")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("exact", [False, True])
def test_an_item_is_as_if_alone(impl: str, exact: bool, nan_poison: None) -> None:
    voc, lengths = _voiced(impl), [9, 23, 1]
    latents, f0 = torch.randn(3, voc.n_mels, 23), 100 + 300 * torch.rand(3, 23)
    f0[:, ::5] = 0
    for i, n in enumerate(lengths):
        latents[i, :, n:], f0[i, n:] = torch.nan, torch.nan
    inputs: dict[str, Any] = {"speaker": [2, 0, 1], "seed": [5, 6, 7]}
    wavs = voc(latents, lengths, f0=f0, exact=exact, **inputs)
    for i, n in enumerate(lengths):
        own = {name: values[i] for name, values in inputs.items()}
        one = voc(latents[i, :, :n], f0=f0[i, :n], exact=exact, **own)
        assert _alike(wavs[i, : len(one)], one, impl)
        assert not wavs[i, len(one) :].any()


@cache
def _voiced(backend: str | None = None) -> Vocoder:
    """The family's vocoder without the F0 that it has for tests which know of none."""
    voc = nsf()
    voc.backend = backend
    voc.model.prepare(backend=backend)
    return voc


def _alike(ours: Tensor, alone: Tensor, impl: str | None) -> bool:
    """Bit for bit, but for torch, whose sums depend on its threads."""
    return torch.equal(ours, alone) if impl == "cpp" else relative_l2(ours, alone) < 1e-5


@pytest.mark.parametrize("impl", IMPLS)
def test_the_seed_decides_the_noise(impl: str) -> None:
    voc = _voiced(impl)
    latent = torch.randn(2, voc.n_mels, 12)
    f0 = torch.full((2, 12), 150.0)
    one = voc(latent, f0=f0, seed=3)
    assert torch.equal(voc(latent, f0=f0, seed=[3, 3]), one)
    assert torch.equal(voc(latent, f0=f0), voc(latent, f0=f0, seed=0))
    other = voc(latent, f0=f0, seed=[3, 4])
    assert torch.equal(other[0], one[0])
    assert not torch.equal(other[1], one[1])


def test_the_pitch_is_that_of_f0() -> None:
    """The source's strongest component lies where F0 does; of unvoiced frames there is noise of a third of the sine."""
    voc = nsf()
    voc.model.m_source.weight.fill_(1.0)
    voc.model.m_source.bias.zero_()
    frames = 200
    for pitch in (110.0, 205.0, 400.0):
        source = voc.model.make_source(torch.full((1, frames), pitch))[0, 0]
        spectrum = torch.fft.rfft(source * torch.hann_window(len(source))).abs()
        assert spectrum.argmax().item() * voc.sample_rate / len(source) == pytest.approx(pitch, abs=1.0)
    silent = voc.model.make_source(torch.zeros(1, frames))[0, 0]
    assert silent.std().item() == pytest.approx(0.1 / 3, rel=0.05)


def test_a_number_is_the_f0_of_all_frames() -> None:
    voc = _voiced()
    latents = torch.randn(2, voc.n_mels, 9)
    assert torch.equal(voc(latents, f0=180), voc(latents, f0=torch.full((2, 9), 180.0)))
    for number in (np.float32(180), np.float64(180), np.int64(180)):
        assert torch.equal(voc(latents, f0=number), voc(latents, f0=180))
    assert torch.equal(voc(latents[0], f0=180.0), voc(latents[0], f0=np.full(9, 180, dtype=np.float32)))
    assert torch.equal(torch.stack(voc.each(list(latents), f0=0)), voc(latents, f0=torch.zeros(2, 9)))


WRONG: dict[str, tuple[dict[str, Any], type[FastvocError], str]] = {
    "no f0": ({}, ArgumentError, r"f0: expected \[B, T\] in Hz"),
    "an f0 too long": ({"f0": torch.zeros(2, 10)}, ShapeError, r"f0: expected \[2, 9\], got \[2, 10\]"),
    "one f0": ({"f0": torch.zeros(9)}, ShapeError, r"f0: expected \[2, 9\], got \[9\]"),
    "whole numbers": ({"f0": torch.zeros(2, 9, dtype=torch.int64)}, DtypeError, "f0: expected a floating-point"),
    "nan": ({"f0": float("nan")}, ArgumentError, r"f0: expected a finite number or \[2, 9\], got nan"),
    "infinity": ({"f0": np.float32("inf")}, ArgumentError, r"f0: expected a finite number or \[2, 9\]"),
    "a huge number": ({"f0": 10**5000}, ArgumentError, "f0: .* got an integer of 16610 bits"),
    "a truth": ({"f0": True}, DtypeError, "f0: expected a floating-point tensor, got bool"),
    "a name": ({"f0": "a"}, DtypeError, "f0: expected a floating-point tensor, got str"),
    "not a number": ({"f0": torch.full((2, 9), torch.nan)}, ArgumentError, "f0: holds NaN or infinity"),
    "a short source": ({"source": torch.zeros(2, 1, 9)}, ShapeError, r"source: expected \[2, 1, 180\]"),
    "a short noise": ({"f0": 1, "noise": torch.zeros(2, 1, 9)}, ShapeError, r"noise: expected \[2, 1, 180\]"),
    "a seed too many": ({"f0": 1, "seed": [1, 2, 3]}, ShapeError, r"seed: expected an integer or \[2\]"),
    "a speaker too high": ({"f0": 1, "speaker": 3}, ArgumentError, r"speaker: expected 0\.\.2, got 3"),
    "a phase": ({"f0": 1, "phase": 3}, ArgumentError, "phase: NsfHifiGan has no such input; it takes f0, source, seed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_are_named(name: str) -> None:
    inputs, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        _voiced()(torch.zeros(2, 6, 9), **inputs)


def test_streams_say_what_they_want() -> None:
    voc = _voiced()
    with pytest.raises(ArgumentError, match="f0: expected True, as it comes with every chunk, or a number in Hz, got"):
        voc.stream(f0=False)
    with pytest.raises(ArgumentError, match="f0: expected with every chunk"):
        voc.stream().push(torch.zeros(6, 9))
    with pytest.raises(ArgumentError, match="f0: expected only for a stream"):
        voc.stream(f0=100.0).push(torch.zeros(6, 9), f0=torch.zeros(9))
    with pytest.raises(ShapeError, match="f0: expected"):
        voc.stream().push(torch.zeros(6, 9), f0=torch.zeros(8))
    for f0 in ("abc", [200, None], [[1.0], [1.0, 2.0]], {}, 9 * [1]):
        with pytest.raises(DtypeError, match="f0: expected floating-point values in Hz, got"):
            voc.stream().push(torch.zeros(6, 9), f0=f0)
    with pytest.raises(ArgumentError, match="noise: no such input of a stream"):
        voc.stream().push(torch.zeros(6, 9), noise=torch.zeros(9))
    with pytest.raises(fastvoc.StreamError, match="options 'f0', expected 'f0=True'"):
        voc.stream(f0=True).restore(voc.stream(f0=100.0).state())


@QUICK
@given(st.data())
def test_streams_sing_as_calls_do(data: Any) -> None:
    voc = _voiced(data.draw(st.sampled_from(["cpp", "torch"])))
    frames = data.draw(st.integers(1, 40))
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=4)))
    batch = data.draw(st.integers(1, 2))
    latent = torch.stack([mel_of(voc, frames, i) for i in range(batch)])
    f0 = torch.where(torch.rand(batch, frames) < 0.2, 0.0, 80 + 400 * torch.rand(batch, frames))
    options = {"speaker": data.draw(st.sampled_from([None, 1])), "seed": data.draw(st.sampled_from([None, 9]))}
    stream = voc.stream(**options)
    spans = list(zip([0, *cuts], [*cuts, frames], strict=True))
    pieces = [stream.push(latent[..., a:b], f0=f0[:, a:b]) for a, b in spans]
    got, whole = torch.cat([*pieces, stream.flush()], -1), voc(latent, f0=f0, exact=True, **options)
    assert torch.equal(got, whole) if voc.backend == "cpp" else relative_l2(got, whole) < 1e-5
    assert relative_l2(voc(latent, f0=f0, **options), whole) < 1e-5


@pytest.mark.native
def test_a_pool_of_voices() -> None:
    voc = _voiced("cpp")
    latents, f0 = {n: mel_of(voc, 30, i) for i, n in enumerate("abc")}, {n: 90 + 200 * torch.rand(30) for n in "ab"}
    options: dict[str, dict[str, Any]] = {"a": {"speaker": 2, "seed": 4}, "b": {}, "c": {"f0": 130.0, "speaker": 1}}
    streams = fastvoc.Streams(voc)
    for name, own in options.items():
        streams.open(name, **own)
    parts: dict[str, list[Tensor]] = {name: [] for name in options}
    for t in range(0, 30, 6):
        chunks = {name: latents[name][:, t : t + 6] for name in options}
        for name, wav in streams.step(chunks, f0={n: values[t : t + 6] for n, values in f0.items()}).items():
            parts[str(name)].append(wav)
    for name, own in options.items():
        whole = voc(latents[name], exact=True, **{**own, **({"f0": f0[name]} if name in f0 else {})})
        assert torch.equal(torch.cat([*parts[name], streams.close(name)]), whole)


@pytest.mark.native
def test_a_state_goes_on_with_its_phase() -> None:
    voc = _voiced("cpp")
    latent, f0 = mel_of(voc, 20), 100 + 100 * torch.rand(20)
    one, two = voc.stream(speaker=2, seed=8), voc.stream(speaker=0, seed=1)
    first = one.push(latent[:, :8], f0=f0[:8])
    two.restore(one.state())
    rest = two.flush(latent[:, 8:], f0=f0[8:])
    assert torch.equal(torch.cat([first, rest]), voc(latent, f0=f0, speaker=2, seed=8, exact=True))


def test_bad_configurations_name_the_field() -> None:
    base = RVC.to_dict()
    wrong: dict[str, Any] = {
        "harmonics": -1,
        "noise_std": -0.1,
        "voiced_threshold": "x",
        "upsample_rates": (2, 4, 3),
        "upsample_kernel_sizes": (16, 16, 5),
    }
    for field, value in wrong.items():
        with pytest.raises(ArgumentError, match=rf"NsfHifiGanConfig\.{field}: got "):
            NsfHifiGanConfig.from_dict({**base, field: value})
    assert NsfHifiGanConfig.from_dict(base) == RVC


def test_overtones() -> None:
    """A source of more sines has their merging weights, and draws their start phases from the seed."""
    voc = nsf(harmonics=3)
    assert voc.model.m_source.weight.shape == (4,)
    latent = torch.randn(6, 12)
    assert not torch.equal(voc(latent, f0=100, seed=1), voc(latent, f0=100, seed=2))
    assert voc.model.input_shapes(2)["noise"] == (4, 40)


@pytest.mark.parametrize("rate", [40000, "40k", "32k", 48000])
def test_files_tell_the_whole_configuration(rate: int | str, tmp_path: Path) -> None:
    path = write_rvc(tmp_path, rate=rate)
    hertz = rate if isinstance(rate, int) else 1000 * int(rate[:-1])
    voc = fastvoc.load(path)
    assert voc.config == NsfHifiGanConfig.from_dict({**RVC.to_dict(), "sample_rate": hertz})
    assert not voc.assumed
    state = random_state(RVC)
    assert all(torch.equal(tensor, state[name].half().float()) for name, tensor in voc.model.state_dict().items())
    fastvoc.save(voc, tmp_path / "own.safetensors")
    again = fastvoc.load(tmp_path / "own.safetensors")
    latent = torch.randn(voc.n_mels, 8)
    assert torch.equal(again(latent, f0=200, speaker=1), voc(latent, f0=200, speaker=1))


def test_a_voice_without_pitch_is_a_plain_hifigan(tmp_path: Path) -> None:
    plain = HifiGanConfig.from_dict({k: v for k, v in RVC.to_dict().items() if k in HifiGanConfig().to_dict()})
    voc = fastvoc.load(write_rvc(tmp_path, plain))
    assert voc.config == plain
    assert len(voc(torch.randn(voc.n_mels, 8), speaker=1)) == 8 * voc.hop


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    values = rvc_values(RVC, 40000)
    for config, message in (
        (values[:-1], "field 'config': expected a list of 18 values, got 17 values"),
        ("48k", "field 'config': expected a list of 18 values, got str"),
        ([*values[:-1], "44k"], "field 'config: sr': expected a rate in Hz or 32k, 40k, 48k, got '44k'"),
        ([*values[:-1], 4.5], "field 'config: sr': expected an integer"),
        ([*values[:12], 3, *values[13:]], "field 'config: upsample_rates': expected a list of integers, got 3"),
        ([*values[:12], [4, 4, 2], *values[13:]], "illegal configuration: NsfHifiGanConfig.upsample_kernel_sizes"),
        ([*values[:13], 32, *values[14:]], r"tensor 'weight\.dec\..* has shape"),
    ):
        with pytest.raises(LoadError, match=message):
            fastvoc.load(write_rvc(tmp_path, config=config))
    state = random_state(RVC)
    for change, message in (
        ({"noise_convs.1.weight": None}, r"tensor 'noise_convs\.1\.weight' .* is missing"),
        ({"noise_convs.2.weight": torch.zeros(8, 1, 3)}, r"tensor 'weight\.dec\.noise_convs\.2\.weight' has shape"),
        ({"m_source.weight": torch.zeros(1, 9)}, "RVC's source has one sine"),
        ({"other.weight": torch.zeros(3)}, r"other\.weight"),
    ):
        changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        with pytest.raises(LoadError, match=message):
            fastvoc.load(write_rvc(tmp_path, state=changed))


def test_the_source_stays_in_float32() -> None:
    voc = nsf()
    latent, f0 = torch.randn(2, 6, 30), 100 + 100 * torch.rand(2, 30)
    exact = voc(latent, f0=f0, speaker=[2, 0])
    half = voc.to(torch.bfloat16)
    assert (half.dtype, half.input_dtype) == (torch.bfloat16, torch.float32)
    model = voc.model
    assert {model.m_source.weight.dtype, model.noise_convs[0].weight.dtype} == {torch.float32}
    assert relative_l2(half(latent, f0=f0, speaker=[2, 0]), exact) < 2e-2


def test_the_published_shape() -> None:
    assert (RVC_40K.hop, RVC_40K.samples(7)) == (400, 2800)
    shapes = dict(RVC_40K.tensors())
    assert shapes["noise_convs.0.weight"] == (256, 1, 80)
    assert shapes["noise_convs.3.weight"] == (32, 1, 1)


def test_the_families_voice_sings_at_150_hertz() -> None:
    voc = vocoder("rvc")
    assert isinstance(voc.model, SungAt150)
    latent = mel_of(voc, 9)
    assert torch.equal(voc(latent), _voiced()(latent, f0=150))
