"""Many streams in one batch: each gives what it gives alone, whoever joins, leaves or errs beside it."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
import torch
from model_files import saved
from stream_families import FAMILIES, mel_of, vocoder
from torch import Tensor

import fastvoc
from fastvoc.errors import ArgumentError, ShapeError, StreamError
from helpers import relative_l2

each_family = pytest.mark.parametrize("family", FAMILIES)


def interleave(family: str, backend: str | None, count: int, seed: int) -> None:
    """`count` streams of random lengths and chunks, joining and leaving at random, against each alone."""
    voc = vocoder(family, backend)
    rng = random.Random(seed)
    least = getattr(voc.config, "min_frames", 2)
    mels = {i: mel_of(voc, rng.randint(least, 60), i) for i in range(count)}
    at = dict.fromkeys(mels, 0)
    parts: dict[int, list[Tensor]] = {i: [] for i in mels}
    streams = fastvoc.Streams(voc, max_streams=count)
    waiting, live = list(mels), []
    while waiting or live:
        while waiting and (not live or rng.random() < 0.5):
            live.append(waiting.pop())
        chosen = [i for i in live if rng.random() < 0.7]
        chunks = {}
        for i in chosen:
            size = rng.choice((0, 1, 5, 5, 5, 10, 25))
            chunks[i] = mels[i][:, at[i] : at[i] + size]
            at[i] += size
        for i, wav in streams.step(chunks).items():
            parts[i].append(wav)
        for i in chosen:
            if at[i] >= mels[i].shape[1]:
                parts[i].append(streams.close(i))
                live.remove(i)
    assert len(streams) == 0
    for i, mel in mels.items():
        alone = voc(mel, check=False, exact=True)
        ours = torch.cat(parts[i])
        assert ours.shape == alone.shape
        assert torch.equal(ours, alone) if backend == "cpp" else relative_l2(ours, alone) < 4e-6


@each_family
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
def test_every_stream_is_as_alone(family: str, backend: str) -> None:
    interleave(family, backend, 12, 0)


@each_family
def test_a_chunk_without_frames_does_not_begin_a_stream(family: str) -> None:
    voc = vocoder(family)
    mel = mel_of(voc, 12)
    streams = fastvoc.Streams(voc)
    assert not len(streams.step({"early": mel[:, :0]})["early"])
    got = streams.step({"early": mel, "late": mel})
    assert torch.equal(got["early"], got["late"])
    assert torch.equal(streams.close("early"), streams.close("late"))


def test_a_name_that_is_used_again_begins_anew() -> None:
    voc = vocoder("hifigan-1")
    bad = mel_of(voc, 12)
    bad[0, 3] = torch.nan
    streams = fastvoc.Streams(voc)
    for _ in range(2):
        with pytest.raises(ArgumentError, match="frame 3 of the stream"):
            streams.step({"a": bad})
        streams.step({"a": bad[:, 4:]})
        streams.close("a")


@pytest.mark.slow
@pytest.mark.native
@each_family
def test_two_hundred_streams(family: str) -> None:
    interleave(family, "cpp", 200, 1)


def _tensor_bytes() -> int:
    gc.collect()
    found = [o for o in gc.get_objects() if type(o) is Tensor]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


@each_family
def test_closing_returns_all_memory(family: str) -> None:
    gc.collect()
    gc.freeze()  # what is there already need not be looked through, a second each time
    voc = vocoder(family)
    streams = fastvoc.Streams(voc)
    mel = mel_of(voc, 20)
    streams.step({"first": mel})  # packs the weights
    streams.drop("first")
    before = _tensor_bytes()
    streams.step(dict.fromkeys(range(12), mel))
    held = _tensor_bytes()
    assert held > before
    for i in range(0, 12, 2):
        streams.drop(i)
    half = _tensor_bytes()
    assert before < half < before + 0.6 * (held - before)
    for i in range(1, 12, 2):
        streams.close(i)
    assert len(streams) == 0
    assert _tensor_bytes() == before


@each_family
def test_misuse_leaves_the_others_as_they_are(family: str) -> None:
    voc = vocoder(family)
    mel = mel_of(voc, 60)
    streams = fastvoc.Streams(voc, max_streams=2)
    got = [streams.step({"a": mel[:, :10], "b": mel[:, :3]})["a"]]
    for wrong, error in (
        ({"a": mel[:, 10:20], "b": mel[:-1]}, ShapeError),
        ({"a": mel[:, 10:20], "b": mel[None]}, ShapeError),
        ({"a": mel[:, 10:20], "c": mel}, StreamError),
    ):
        with pytest.raises(error):
            streams.step(wrong)
    for use in (lambda: streams.close("c"), lambda: streams.drop("c"), lambda: streams.open("a")):
        with pytest.raises(StreamError, match="open"):
            use()
    with pytest.raises(ArgumentError, match="max_streams"):
        fastvoc.Streams(voc, max_streams=0)
    streams.drop("b")
    assert "b" not in streams
    streams.open("d")
    with pytest.raises(ArgumentError, match="nonsense"):
        streams.drop("d") or streams.open("e", nonsense=1)
    assert len(streams) == 1
    got += [streams.step({"a": mel[:, 10:]})["a"], streams.close("a")]
    alone = voc.stream()
    assert torch.equal(torch.cat(got), torch.cat([alone.push(mel[:, :10]), alone.push(mel[:, 10:]), alone.flush()]))
    streams.open("x")
    assert len(streams.close("x")) == 0


@pytest.mark.parametrize("family", ["hift-sample", "hift-causal"])
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
def test_f0_comes_with_the_chunks(family: str, backend: str) -> None:
    voc = vocoder(family, backend)
    lengths = {"a": 31, "b": 24, "c": 31}
    mels = {name: mel_of(voc, frames, i) for i, (name, frames) in enumerate(lengths.items())}
    pitch = {name: 120 + 100 * torch.rand(frames) for name, frames in lengths.items()}
    streams = fastvoc.Streams(voc)
    for name in ("a", "b"):
        streams.open(name, f0=True)
    parts: dict[str, list[Tensor]] = {name: [] for name in lengths}
    for t in range(0, 31, 8):
        chunks = {name: mel[:, t : t + 8] for name, mel in mels.items()}
        own = {name: pitch[name][t : t + 8] for name in ("a", "b")}
        for name, wav in streams.step(chunks, f0=own).items():
            parts[str(name)].append(wav)
    for name, mel in mels.items():
        ours = torch.cat([*parts[name], streams.close(name)])
        given = {} if name == "c" else {"f0": pitch[name]}
        alone = voc(mel, check=False, exact=True, **given)
        assert ours.shape == alone.shape
        assert torch.equal(ours, alone) if backend == "cpp" else relative_l2(ours, alone) < 2e-6


def test_f0_comes_to_a_model_that_reads_all_frames_for_it(tmp_path: Path) -> None:
    voc = fastvoc.load_vocoder(saved("hift-jdc", tmp_path))
    mel, f0 = mel_of(voc, 90), 120 + 100 * torch.rand(90)
    with pytest.raises(ArgumentError, match="f0: expected True"):
        voc.stream()
    stream = voc.stream(f0=True)
    ours = torch.cat([stream.push(mel[:, :50], f0=f0[:50]), stream.flush(mel[:, 50:], f0=f0[50:])])
    assert 0 < stream.latency.frames < 40
    assert relative_l2(ours, voc(mel, f0=f0, check=False, exact=True)) < 2e-6


def test_f0_for_the_wrong_stream_is_refused() -> None:
    voc = vocoder("hift-sample")
    streams = fastvoc.Streams(voc)
    streams.open("given", f0=True)
    streams.open("read")
    mel, f0 = mel_of(voc, 20), torch.full((20,), 150.0)
    with pytest.raises(ArgumentError, match="f0: for 'other'"):
        streams.step({"given": mel}, f0={"other": f0})
    with pytest.raises(ArgumentError, match="f0: expected with every chunk"):
        streams.step({"given": mel})
    with pytest.raises(ArgumentError, match="f0: expected only"):
        streams.step({"read": mel}, f0={"read": f0})
    with pytest.raises(ShapeError, match="f0"):
        streams.step({"given": mel}, f0={"given": f0[:5]})
    first = streams.step({"given": mel}, f0={"given": f0})["given"]
    ours = torch.cat([first, streams.close("given", mel, f0=f0)])
    twice = voc(torch.cat([mel, mel], 1), f0=torch.cat([f0, f0]), check=False, exact=True)
    assert relative_l2(ours, twice) < 2e-6
