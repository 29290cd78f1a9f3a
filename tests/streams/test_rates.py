"""Streams at the user's rate and in its format: the samples of one call, whatever the chunks and the company."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from codec_models import MONO, STEREO, lively
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_families import FAMILIES, MAKERS, QUICK, mel_of, vocoder
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, ShapeError, StreamError
from fastvoc.ops.noise import triangular_noise
from fastvoc.ops.resample import _native
from fastvoc.sound.formats import to_format
from fastvoc.sound.resampling import resampled, resampled_length
from fastvoc.streams.delivery import Delivery
from fastvoc.vocoder import Vocoder

BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]
DELIVERIES = [
    (8000, "f32", None),
    (16000, "s16", None),
    (48000, "s16", 5),
    (8000, "mulaw", None),
    (None, "alaw", None),
    (None, "s16", 7),
    (22051, "f32", None),
]
each_family = pytest.mark.parametrize("family", FAMILIES)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_delivery = pytest.mark.parametrize(("rate", "kind", "dither"), DELIVERIES)
LONG = settings(QUICK, max_examples=300, derandomize=False)
CUTS = st.lists(st.integers(0, 60), max_size=8)


def streamed(voc: Vocoder, mel: Tensor, cuts: list[int], **out: Any) -> Tensor:
    edges = [0, *sorted(min(cut, mel.shape[-1]) for cut in cuts), mel.shape[-1]]
    with voc.stream(**out) as stream:
        parts = [stream.push(mel[..., a:b]) for a, b in pairwise(edges)]
        return torch.cat([*parts, stream.flush()], -1)


def check(family: str, backend: str, rate: int, kind: str, frames: int, cuts: list[int]) -> None:
    voc = vocoder(family, backend)
    mel = mel_of(voc, max(frames, getattr(voc.config, "min_frames", 1)), frames)
    out: dict[str, Any] = {"rate": rate, "format": kind}
    whole = voc(mel, check=False, exact=True, **out)
    pieces = streamed(voc, mel, cuts, **out)
    assert whole.dtype == pieces.dtype
    assert whole.shape == pieces.shape == (resampled_length(voc.config.samples(mel.shape[1]), voc.sample_rate, rate),)
    if backend == "cpp":
        assert torch.equal(pieces, whole)
    else:  # torch's sums follow the chunks; a rate adds nothing to that
        one = streamed(voc, mel, cuts)
        assert torch.equal(pieces, to_format(resampled(one, voc.sample_rate, rate), kind)[0])


RATES = st.sampled_from([8000, 16000, 48000, 11025, 44100])
KINDS = st.sampled_from(["f32", "s16", "mulaw", "alaw"])


@each_family
@each_backend
@settings(QUICK, max_examples=6)
@given(rate=RATES, kind=KINDS, frames=st.integers(1, 60), cuts=CUTS)
def test_any_chunking_gives_the_samples_of_one_call(
    family: str, backend: str, rate: int, kind: str, frames: int, cuts: list[int]
) -> None:
    check(family, backend, rate, kind, frames, cuts)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 16000])
@each_family
@pytest.mark.native
@LONG
@given(kind=KINDS, frames=st.integers(1, 60), cuts=CUTS)
def test_three_hundred_chunkings(family: str, rate: int, kind: str, frames: int, cuts: list[int]) -> None:
    check(family, "cpp", rate, kind, frames, cuts)


@each_delivery
def test_a_call_is_the_models_samples_converted(rate: int | None, kind: str, dither: int | None) -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 400)
    wav = voc(mel)
    got = voc(mel, rate=rate, format=kind, dither=dither)
    other = resampled(wav, voc.sample_rate, rate or voc.sample_rate)
    noise = None if dither is None else triangular_noise(torch.tensor([dither]), len(other))[0]
    assert torch.equal(got, to_format(other, kind, noise)[0])
    got.add_(1)  # an ordinary tensor
    assert not got.is_inference()


@each_delivery
def test_ragged_batches(rate: int | None, kind: str, dither: int | None) -> None:
    """Items as if alone, silence after them; without dither, whose numbers go by the row."""
    voc = vocoder("hifigan-1", "torch")
    frames = [90, 37, 1]
    mels = [mel_of(voc, n, n) for n in frames]
    out: dict[str, Any] = {"rate": rate, "format": kind, "dither": dither}
    batch = torch.stack([torch.nn.functional.pad(mel, (0, 90 - mel.shape[1])) for mel in mels])
    wavs = voc(batch, frames, **out)
    silence = to_format(torch.zeros(1), kind)[0].item() if dither is None else 0
    for i, (mel, row, each) in enumerate(zip(mels, wavs, voc.each(mels, **out), strict=True)):
        alone = voc(mel, **(out if dither is None else {**out, "dither": dither + i}))
        close: Callable[..., None] = torch.testing.assert_close
        size = resampled_length(voc.config.samples(mel.shape[1]), voc.sample_rate, rate or voc.sample_rate)
        assert len(alone) == len(each) == size
        assert (row[size:] == silence).all()
        close(row[:size].float(), alone.float(), atol=1e-5 if kind == "f32" else 1, rtol=0)
        assert torch.equal(row[:size], each)


@each_delivery
def test_state_moves_to_another_stream(rate: int | None, kind: str, dither: int | None) -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 90)
    out: dict[str, Any] = {"rate": rate, "format": kind, "dither": dither}
    first = voc.stream(**out)
    first.push(mel[:, :45])
    saved = first.state()
    other = voc.stream(**out)
    other.push(mel[:, :3])
    other.restore(saved)
    assert torch.equal(first.push(mel[:, 45:60]), other.push(mel[:, 45:60]))
    rest = torch.cat([other.push(mel[:, 60:]), other.flush()])
    assert torch.equal(rest, torch.cat([first.push(mel[:, 60:]), first.flush()]))
    for wrong in ({}, {"rate": 12000}, {"format": "f32", "rate": 9000}, {"rate": rate, "format": "s16", "dither": 99}):
        with pytest.raises(StreamError, match=r"(rate|format|dither) .*, expected"):
            voc.stream(**wrong).restore(saved)  # type: ignore[arg-type]


def test_a_stream_without_a_rate_refuses_the_state_of_one_with() -> None:
    voc = vocoder("hifigan-1", "torch")
    plain, rated = voc.stream(), voc.stream(rate=8000)
    for stream in (plain, rated):
        stream.push(mel_of(voc, 30))
    with pytest.raises(StreamError):
        plain.restore(rated.state())
    with pytest.raises(StreamError):
        rated.restore(plain.state())


@each_delivery
def test_errors_leave_it_as_it_was_and_reset_begins_anew(rate: int | None, kind: str, dither: int | None) -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 60)
    out: dict[str, Any] = {"rate": rate, "format": kind, "dither": dither}
    stream = voc.stream(**out)
    for _ in range(2):
        head = stream.push(mel[:, :31])
        for wrong in (mel[:-1], mel[:, :3] * torch.nan):
            with pytest.raises((ShapeError, ArgumentError)):
                stream.push(wrong)
        assert torch.equal(torch.cat([head, stream.push(mel[:, 31:]), stream.flush()]), streamed(voc, mel, [31], **out))
        stream.reset()
    empty = voc.stream(**out).flush()
    assert (len(empty), empty.dtype) == (0, head.dtype)


@pytest.mark.native
def test_the_filter_is_there_before_the_first_chunk() -> None:
    """Of rates that share little it takes seconds, which a stream that plays does not have."""
    voc = vocoder("hifigan-1", "cpp")
    mel = mel_of(voc, 9)
    live, pool = voc.stream(rate=7001, check=False), fastvoc.Streams(voc, rate=7013, check=False)
    made = _native.cache_info().misses
    live.push(mel)
    pool.step({"a": mel})
    assert _native.cache_info().misses == made


def test_a_failing_conversion_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 60)
    stream = voc.stream(rate=8000)
    streams = fastvoc.Streams(voc, rate=8000)
    parts, many = [stream.push(mel[:, :31])], [streams.step({"a": mel[:, :31]})["a"]]

    def fail(*args: object, **more: object) -> None:
        raise MemoryError

    with monkeypatch.context() as here:
        here.setattr("fastvoc.sound.resampling.Converter.advance", fail)
        with pytest.raises(MemoryError):
            stream.push(mel[:, 31:40])
        with pytest.raises(MemoryError):
            streams.step({"a": mel[:, 31:40]})
    parts += [stream.push(mel[:, 31:]), stream.flush()]
    many += [streams.step({"a": mel[:, 31:]})["a"], streams.close("a")]
    assert torch.equal(torch.cat(parts), streamed(voc, mel, [31], rate=8000))
    assert torch.equal(torch.cat(many), torch.cat(parts))


def test_a_short_lookahead_keeps_the_rate() -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 60)
    plain, rated = voc.stream(lookahead=1), voc.stream(lookahead=1, rate=8000)
    cuts = [0, 9, 10, 31, 60]
    wav = torch.cat([*[plain.push(mel[:, a:b]) for a, b in pairwise(cuts)], plain.flush()])
    got = torch.cat([*[rated.push(mel[:, a:b]) for a, b in pairwise(cuts)], rated.flush()])
    assert torch.equal(got, resampled(wav, voc.sample_rate, 8000))


@pytest.mark.parametrize("rate", [None, 8000, 48000])
@each_family
def test_samples_come_as_early_as_the_latency_says(family: str, rate: int | None) -> None:
    voc = vocoder(family)
    stream = voc.stream(rate=rate)
    late = stream.latency
    if rate is None:
        assert late == voc.latency
    assert late.ms == pytest.approx(
        1000 * late.samples / (rate or voc.sample_rate), abs=1000 / (rate or voc.sample_rate)
    )
    assert late.frames >= voc.latency.frames
    mel = mel_of(voc, late.frames + 30)
    made = 0
    for t in range(mel.shape[1]):
        made += len(stream.push(mel[:, t : t + 1]))
        position = (t + 1) * voc.hop * (rate or voc.sample_rate) / voc.sample_rate
        assert made >= position - late.samples
        assert made >= (t + 1 - late.frames) * voc.hop * (rate or voc.sample_rate) / voc.sample_rate
    assert fastvoc.Streams(voc, rate=rate).latency == late


def test_batches_and_clipping() -> None:
    voc = MAKERS["vocos-center"]()
    voc.backend = "torch"
    dict(voc.model.named_parameters())["head.out.bias"][:33] += 4.0  # magnitudes e^4 times as large
    mels = torch.stack([mel_of(voc, 40, seed) for seed in range(3)])
    stream = voc.stream(rate=16000, format="s16")
    got = torch.cat([stream.push(mels[..., :13]), stream.push(mels[..., 13:]), stream.flush()], -1)
    clipped = 0
    for mel, row in zip(mels, got, strict=True):
        alone = voc.stream(rate=16000, format="s16")
        one = torch.cat([alone.push(mel[..., :13]), alone.push(mel[..., 13:]), alone.flush()])
        assert (row.int() - one.int()).abs().max() <= 1  # torch's sums follow the batch
        clipped += int(alone.clipped)
        assert row.abs().max() <= 32767
    wavs = streamed(voc, mels, [13], rate=16000)
    assert stream.clipped == clipped == int((wavs.abs() > 1).sum())
    assert clipped > 0


def test_dither_is_seeded_and_triangular() -> None:
    noise = triangular_noise(torch.tensor([3, 4]), 40000)
    assert noise.abs().max() < 1
    assert noise.std(1).tolist() == pytest.approx([6**-0.5] * 2, rel=0.02)
    assert noise.mean(1).abs().max() < 0.01
    assert abs(torch.corrcoef(noise)[0, 1]) < 0.02
    assert torch.equal(triangular_noise(torch.tensor([3]), 5, 100)[0], noise[0, 100:105])
    quiet = torch.full((1, 1, 40000), 0.4 / 32767)  # a level that rounding alone would lose
    y, _ = Delivery(24000, 24000, "s16", 3).whole(quiet)
    assert y.float().mean() == pytest.approx(0.4, abs=0.02)
    assert not Delivery(24000, 24000, "s16").whole(quiet)[0].any()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"rate": 500}, "rate: expected"),
        ({"rate": 8000.5}, "rate: expected"),
        ({"format": "s24"}, "format: expected one of f32, s16, mulaw, alaw"),
        ({"dither": 1}, "dither: only for format s16"),
        ({"format": "s16", "dither": 0.5}, "dither: expected a seed"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], text: str) -> None:
    voc, codec = vocoder("hifigan-1"), Codec(lively(MONO), MONO)
    mel, codes = mel_of(voc, 9), torch.zeros(MONO.n_q, 9, dtype=torch.int64)
    uses: list[Callable[[], Any]] = [
        lambda: voc(mel, **wrong),
        lambda: voc.each([mel], **wrong),
        lambda: voc.stream(**wrong),
        lambda: fastvoc.Streams(voc, **wrong),
        lambda: codec.decode(codes, **wrong),
        lambda: codec.decoding(1).stream(**wrong),
    ]
    for use in uses:
        with pytest.raises(ArgumentError, match=text):
            use()


def test_streams_at_a_rate_are_each_as_alone() -> None:
    """They join and leave at any time, some of them together."""
    voc = vocoder("hifigan-1", "torch")
    streams = fastvoc.Streams(voc, rate=8000, format="s16")
    mels = {name: mel_of(voc, 60, seed) for seed, name in enumerate("abcd")}
    heard: dict[str, list[Tensor]] = {name: [] for name in mels}
    given_ = dict.fromkeys(mels, 0)
    draw = random.Random(0)
    for _ in range(14):
        names = [name for name in mels if draw.random() < 0.6]
        size = draw.choice([0, 3, 3, 3, 5])
        made = streams.step({n: mels[n][:, given_[n] : given_[n] + size] for n in names})
        for name in names:
            given_[name] += size
            heard[name].append(made[name])
    for name, mel in mels.items():
        heard[name].append(streams.close(name, mel[:, given_[name] :]))
        alone = voc(mel, exact=True, rate=8000, format="s16")
        got = torch.cat(heard[name])
        assert got.dtype == torch.int16
        assert len(got) == len(alone)
        assert (got.int() - alone.int()).abs().max() <= 1  # torch's sums follow the batch
    assert len(streams.close("late")) == 0 if "late" in streams else True
    assert not streams._deliverers


@pytest.mark.native
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_many_streams_at_a_rate(count: int) -> None:
    voc = vocoder("hifigan-1", "cpp")
    streams = fastvoc.Streams(voc, count, rate=16000, format="s16")
    draw = random.Random(1)
    mels = [mel_of(voc, draw.randrange(20, 50), i) for i in range(count)]
    given_, heard = [0] * count, [[] for _ in range(count)]
    while live := [i for i in range(count) if given_[i] < mels[i].shape[1]]:
        chosen = {i: mels[i][:, given_[i] : given_[i] + draw.choice([1, 4, 9])] for i in live if draw.random() < 0.8}
        for i, part in streams.step(chosen).items():
            given_[i] += chosen[i].shape[1]  # type: ignore[index]
            heard[i].append(part)  # type: ignore[call-overload]
    for i, mel in enumerate(mels):
        got = torch.cat([*heard[i], streams.close(i)])
        assert torch.equal(got, voc(mel, exact=True, rate=16000, format="s16"))


@each_delivery
def test_codecs(rate: int | None, kind: str, dither: int | None) -> None:
    codec = Codec(lively(MONO), MONO)
    codes = torch.randint(0, MONO.bins, (MONO.n_q, 40), generator=torch.Generator().manual_seed(0))
    out: dict[str, Any] = {"rate": rate, "format": kind, "dither": dither}
    whole = codec.decode(codes, **out)
    stream = codec.decoding(MONO.n_q).stream(**out)
    plain = codec.decoding(MONO.n_q).stream()
    parts = [stream.push(codes[:, :11]), stream.push(codes[:, 11:]), stream.flush()]
    raw = torch.cat([plain.push(codes[:, :11]), plain.push(codes[:, 11:]), plain.flush()], -1)
    got = torch.cat(parts, -1)
    assert got.shape == whole.shape
    assert got.dtype == whole.dtype
    assert torch.equal(got[None], Delivery.of(codec.sample_rate, rate, kind, dither).whole(raw[None])[0])  # type: ignore[union-attr]
    assert stream.latency.samples == plain.latency.samples + (0 if rate is None else _reach(codec.sample_rate, rate))


def _reach(from_rate: int, to_rate: int) -> int:
    return -(-Delivery(from_rate, to_rate).reach * to_rate // from_rate)


@pytest.mark.parametrize("config", [MONO, STEREO])
def test_codecs_on_what_they_encoded(config: Any) -> None:
    codec = Codec(lively(config), config)
    wav = torch.randn(2, config.channels, 5000, generator=torch.Generator().manual_seed(0)) * 0.2
    codes = codec.encode(wav, codec.bandwidths[-1], lengths=[5000, 3100])
    plain = codec.decode(codes)
    got = codec.decode(codes, rate=16000)
    for row, own, count in zip(got, plain, (5000, 3100), strict=True):
        size = resampled_length(count, codec.sample_rate, 16000)
        assert torch.equal(row[:, :size], resampled(own[:, :count], codec.sample_rate, 16000))
        assert not row[:, size:].any()
    if config.channels == 1:
        one = codec.encode(wav[0, 0], codec.bandwidths[-1])
        assert codec.decode(one, rate=8000, format="s16").shape == (resampled_length(5000, codec.sample_rate, 8000),)
