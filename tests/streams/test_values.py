"""NaN, infinity and codes outside the codebooks are refused before a stream changes; the stream goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from stream_families import FAMILIES, mel_of, vocoder
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.runtime import flags

VALUES = (torch.nan, torch.inf, -torch.inf)
each_family = pytest.mark.parametrize("family", FAMILIES)


def spoiled(x: Tensor, step: int, value: float) -> Tensor:
    x = x.clone()
    x[-1, step] = value
    return x


def run(stream: Any, x: Tensor, size: int, refused: Callable[[int, Tensor], None]) -> Tensor:
    """The whole of x [C, T] in chunks, before each of which `refused` tries something."""
    parts = []
    for t in range(0, x.shape[1], size):
        refused(t, x[:, t : t + size])
        parts.append(stream.push(x[:, t : t + size]))
    refused(x.shape[1], x[:, :size])
    return torch.cat([*parts, stream.flush()], -1)


@pytest.mark.parametrize("lookahead", [None, 0])
@each_family
def test_a_vocoder_goes_on(family: str, lookahead: int | None) -> None:
    voc = vocoder(family)
    mel = mel_of(voc, 40)
    stream = voc.stream(lookahead=lookahead)

    def refused(given: int, chunk: Tensor) -> None:
        for value in VALUES:
            second = (given + 3) * voc.hop / voc.sample_rate
            text = rf"chunk: NaN or infinity in frame {given + 3} of the stream \({second:.3f} s\)"
            with pytest.raises(ArgumentError, match=text):
                stream.push(spoiled(chunk, 3, value))
            with pytest.raises(ArgumentError, match="item 1"):
                voc.stream().push(torch.stack([chunk, spoiled(chunk, 3, value)]))
        with pytest.raises(ArgumentError, match="NaN"):
            stream.flush(spoiled(chunk, 0, torch.nan))

    assert torch.equal(
        run(stream, mel, 8, refused), run(voc.stream(lookahead=lookahead), mel, 8, lambda given, chunk: None)
    )


def test_a_refused_chunk_does_not_choose_the_batch() -> None:
    voc = vocoder("hifigan-1")
    mel, stream = mel_of(voc, 9), voc.stream()
    with pytest.raises(ArgumentError, match="NaN"):
        stream.push(torch.full((2, voc.n_mels, 9), torch.nan))
    assert torch.equal(torch.cat([stream.push(mel), stream.flush()]), voc(mel, check=False, exact=True))


def test_what_comes_with_a_chunk() -> None:
    voc = vocoder("hift-sample")
    mel, f0 = mel_of(voc, 8), torch.full((8,), 120.0)
    stream, other = voc.stream(f0=True), voc.stream(f0=True)
    with pytest.raises(ArgumentError, match="f0: NaN or infinity in frame 5"):
        stream.push(mel, f0=spoiled(f0[None], 5, torch.inf)[0])
    assert torch.equal(stream.push(mel, f0=f0), other.push(mel, f0=f0))


def test_the_largest_values_are_taken() -> None:
    voc = vocoder("hifigan-1")
    voc.stream().push(torch.full((voc.n_mels, 4), 1e6))


def test_whoever_looks_for_himself() -> None:
    voc = vocoder("hifigan-1")
    bad = spoiled(mel_of(voc, 30), 9, torch.nan)
    assert torch.cat([(stream := voc.stream(check=False)).push(bad), stream.flush()]).isnan().any()
    voc.check()
    voc.stream(check="later").push(mel_of(voc, 30))
    voc.check()
    voc.stream(check="later").push(bad)
    with pytest.raises(ArgumentError, match="NaN"):
        voc.check()
    assert not flags.take(voc.device, flags.NOT_FINITE)
    fastvoc.Streams(voc, check=False).step({"a": bad})


def codec() -> Codec:
    torch.manual_seed(1)
    return Codec(lively(MONO), MONO)


def test_an_encoder_goes_on() -> None:
    made = codec()
    wav = torch.randn(1, 20 * made.hop) * 0.2
    stream = made.encoding(3.6).stream()

    def refused(given: int, chunk: Tensor) -> None:
        for value in VALUES:
            with pytest.raises(ArgumentError, match=f"NaN or infinity in sample {given + 7} of the stream"):
                stream.push(spoiled(chunk, 7, value))

    got = run(stream, wav, 3 * made.hop, refused)
    assert torch.equal(got, run(made.encoding(3.6).stream(), wav, 3 * made.hop, lambda given, chunk: None))


def test_a_decoder_goes_on() -> None:
    made = codec()
    codes = torch.randint(MONO.bins, (4, 24))
    stream = made.decoding(4).stream()

    def refused(given: int, chunk: Tensor) -> None:
        for value in (-1, MONO.bins):
            text = rf"chunk: expected codes in 0..{MONO.bins - 1}, got {value} in frame {given + 2} of the stream"
            with pytest.raises(ArgumentError, match=text):
                stream.push(spoiled(chunk, 2, value))

    got = run(stream, codes, 4, refused)
    assert torch.equal(got, run(made.decoding(4).stream(), codes, 4, lambda given, chunk: None))


@each_family
def test_a_pool_names_the_stream_and_changes_none(family: str) -> None:
    voc = vocoder(family)
    mels = {name: mel_of(voc, 48, i) for i, name in enumerate("abc")}
    pool, quiet = fastvoc.Streams(voc), fastvoc.Streams(voc)
    got: dict[str, list[Tensor]] = {name: [] for name in mels}
    wanted: dict[str, list[Tensor]] = {name: [] for name in mels}
    for t in range(0, 48, 8):
        chunks = {name: mel[:, t : t + 8] for name, mel in mels.items()}
        with pytest.raises(ArgumentError, match=f"stream 'b': chunk: NaN or infinity in frame {t + 4} of") as caught:
            pool.step({**chunks, "new": mels["a"], "b": spoiled(chunks["b"], 4, torch.nan)})
        assert caught.value.stream == "b"
        with pytest.raises(ShapeError, match="stream 'c'") as shape:
            pool.step({**chunks, "c": chunks["c"][:-1]})
        assert shape.value.stream == "c"
        assert "new" not in pool
        for streams, parts in ((pool, got), (quiet, wanted)):
            for name, wav in streams.step(chunks).items():
                parts[str(name)].append(wav)
    for name in mels:
        with pytest.raises(ArgumentError, match=f"stream '{name}'"):
            pool.close(name, spoiled(mels[name], 0, torch.inf))
        assert torch.equal(torch.cat([*got[name], pool.close(name)]), torch.cat([*wanted[name], quiet.close(name)]))
