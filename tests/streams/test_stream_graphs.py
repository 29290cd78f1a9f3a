"""Chunks of live streams from graphs: the same bits, one graph for each chunk size and number of streams."""

from __future__ import annotations

import pytest
import torch
from codec_models import MONO, lively
from recording import Rerun
from stream_families import FAMILIES, mel_of, vocoder

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DeviceError, StreamError

pytestmark = pytest.mark.native


def pools(model: object, capture: Rerun, **options: float) -> tuple[fastvoc.Streams, fastvoc.Streams]:
    return fastvoc.Streams(model, graphs_mb=options.get("mb", 64), capture=capture), fastvoc.Streams(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_from_graphs_give_the_bits_of_streams(family: str) -> None:
    voc, capture = vocoder(family), Rerun()
    ours, plain = pools(voc, capture)
    mels = {name: mel_of(voc, 150, seed=i) for i, name in enumerate("abc")}
    for t in range(0, 150, 5):
        # b joins late and is at another point for a while; c leaves early.
        chunks = {
            n: m[:, t : t + 5] for n, m in mels.items() if not (n == "b" and t < 20) and not (n == "c" and t > 90)
        }
        made, wanted = ours.step(chunks), plain.step(chunks)
        for name in chunks:
            assert torch.equal(made[name], wanted[name]), (name, t)
        if t == 90:
            assert torch.equal(ours.close("c"), plain.close("c"))
    for name in "ab":
        assert torch.equal(ours.close(name), plain.close(name))
    assert ours.graphs is not None
    assert ours.graphs.replays >= 10
    assert 1 <= capture.live <= 6


def test_a_warm_pool_captures_nothing_more() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun()
    ours, plain = pools(voc, capture)
    ours.warmup([mel_of(voc, 5), mel_of(voc, 8)], batch=(1, 2))
    made = capture.made
    assert made == 4
    for t in range(0, 120, 5):
        chunks = {name: mel_of(voc, 120, seed=i)[:, t : t + 5] for i, name in enumerate("ab")}
        for name, wav in ours.step(chunks).items():
            assert torch.equal(wav, plain.step({name: chunks[name]})[name])
    ours.step({"a": mel_of(voc, 3)})
    assert capture.made == made
    assert ours.graphs is not None
    assert ours.graphs.replays > 10
    with pytest.raises(StreamError, match="no stream open"):
        ours.warmup([mel_of(voc, 5)])
    with pytest.raises(StreamError, match="graphs_mb"):
        plain.warmup([mel_of(voc, 5)])


def test_memory_keeps_within_the_cap() -> None:
    voc, capture = vocoder("hifigan-1"), Rerun(size=2**20)
    ours, plain = pools(voc, capture, mb=2.5)
    for size in (5, 6, 7, 5):
        mel = mel_of(voc, size * 30, seed=size)
        for t in range(0, size * 30, size):
            chunk = {size: mel[:, t : t + size]}
            assert torch.equal(ours.step(chunk)[size], plain.step(chunk)[size])
            assert ours.graphs is not None
            assert ours.graphs.bytes <= 2.5 * 2**20
        assert torch.equal(ours.close(size), plain.close(size))
    assert capture.live == len(ours.graphs) <= 2
    ours.graphs.clear()
    assert capture.live == 0


def test_codecs_decode_live_from_graphs() -> None:
    model, capture = Codec(lively(MONO), MONO), Rerun()
    ours, plain = pools(model.decoding(4), capture)
    codes = torch.randint(0, MONO.bins, (4, 120))
    for t in range(0, 120, 4):
        chunk = {"a": codes[:, t : t + 4]}
        assert torch.equal(ours.step(chunk)["a"], plain.step(chunk)["a"])
    assert torch.equal(ours.close("a"), plain.close("a"))
    assert ours.graphs is not None
    assert ours.graphs.replays > 10


def test_graphs_want_a_device_and_memory() -> None:
    voc = vocoder("hifigan-1")
    with pytest.raises(DeviceError, match="CUDA device"):
        fastvoc.Streams(voc, graphs_mb=10)
    with pytest.raises(ArgumentError, match="graphs_mb"):
        fastvoc.Streams(voc, graphs_mb=0, capture=Rerun())
