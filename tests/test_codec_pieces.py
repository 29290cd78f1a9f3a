"""Codecs on signals in pieces: what one call gives, in memory that does not grow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import MONO, STEREO, UNUSUAL, codec_implementations, lively, noise

from fastvoc.codec import Codec, Codes
from fastvoc.errors import ArgumentError
from fastvoc.streams import pieces as codec_pieces
from fastvoc.streams.pieces import CodecDecoder, CodecEncoder

PIECEWISE = ("mono", "deep", "identity-shortcut", "zeros", "wide-kernels", "stereo", "normed-identity")


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_pieces, "STRETCH_SECONDS", 0.2)


def encode(codec: Codec, wav: torch.Tensor, size: int) -> list[codec_pieces.Piece]:
    encoder = CodecEncoder(codec, codec.bandwidths[-1])
    pieces = [piece for part in wav.split(size, 1) for piece in encoder.push(part)]
    pieces += encoder.finish()
    assert encoder.samples == wav.shape[1]
    return pieces


def decode(codec: Codec, pieces: list[codec_pieces.Piece], samples: int) -> torch.Tensor:
    decoder = CodecDecoder(codec)
    parts = [decoder.push(*piece) for piece in pieces]
    assert all(part.dtype is torch.float32 for part in parts)
    return torch.cat([*parts, decoder.finish(samples)], 1)


def pieces_of(codes: Codes, size: int) -> list[codec_pieces.Piece]:
    """Segments, or the only one in pieces of `size` steps."""
    segments = [segment[0].numpy().astype(np.uint16) for segment in codes.segments]
    if codes.scale is None:
        return [(segments[0][:, at : at + size], None) for at in range(0, segments[0].shape[1], size)]
    return list(zip(segments, codes.scale[0].tolist(), strict=True))


@pytest.mark.parametrize("backend", codec_implementations())
@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("samples", [1, 37, 7041, 19201, 50001])
def test_pieces_give_what_one_call_gives(name: str, samples: int, backend: str) -> None:
    config = UNUSUAL[name]
    codec = Codec(lively(config), config, backend=backend)
    wav = noise(config, samples)[0]
    streams = config.segment is None  # segments are calls
    codes = codec.encode(wav, codec.bandwidths[-1], exact=streams)
    made = encode(codec, wav, 1003)
    assert torch.equal(torch.from_numpy(np.concatenate([c for c, _ in made], 1).astype(np.int64)), codes.codes[0])
    if codes.scale is not None:
        assert [scale for _, scale in made] == codes.scale[0].tolist()
    whole, ours = codec.decode(codes, exact=streams), decode(codec, pieces_of(codes, 7), samples)
    assert ours.shape == whole.shape
    if backend == "cpp":
        assert torch.equal(ours, whole)
    else:
        assert (ours - whole).abs().max() < 5e-6 * whole.square().mean().sqrt()


_SMALLEST = {"sample_rate": 320, "n_filters": 2, "dimension": 4, "bins": 8, "n_q": 2, "ratios": (2, 2), "lstm": 1}
TINY = {
    "mono": replace(MONO, **_SMALLEST, bandwidths=(0.48,)),
    "stereo": replace(STEREO, **_SMALLEST, bandwidths=(0.48,), segment=0.2, overlap=0.08),
}


def test_any_number_of_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of groups ends the signal, and with how much of its last segment."""
    config = TINY["stereo"]
    codec, hop = Codec(lively(config), config, backend="torch"), config.hop

    def encode_segment(wav: torch.Tensor, books: int, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        frames = torch.nn.functional.pad(wav[:, 0], (0, -wav.shape[2] % hop)).unflatten(1, (-1, hop))
        return (frames.sum(2).abs() * 3).long().clamp(max=7)[:, None].expand(-1, books, -1), wav.abs().amax(
            (1, 2)
        ) + 0.1

    def decode_segment(codes: torch.Tensor, volume: torch.Tensor, *_: Any) -> torch.Tensor:
        return (codes.float().repeat_interleave(hop, 2) + torch.arange(codes.shape[2] * hop)) * volume[:, None, None]

    monkeypatch.setattr(codec.model, "encode_segment", encode_segment)
    monkeypatch.setattr(codec.model, "decode_segment", decode_segment)
    length, stride = config.segment_length, config.segment_stride
    assert (length, stride, hop) == (64, 58, 4)
    sound = noise(config, 66 * stride)[0]
    for count in range(1, 65):
        ends = {count * stride, (count - 1) * stride + length}
        beside = (-1, 0, 1) if count % 8 in (0, 1) else (0,)
        for samples in {end + more for end in ends for more in beside}:
            wav = sound[:, :samples]
            made, expected = encode(codec, wav, 500), codec.encode(wav, codec.bandwidths[0])
            assert [c.tolist() for c, _ in made] == [s[0].tolist() for s in expected.segments]
            whole = codec.decode(expected)
            assert whole.shape == (2, samples)
            assert torch.equal(decode(codec, made, samples), whole)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_any_number_of_stretches(more: int) -> None:
    config = TINY["mono"]
    codec, size = Codec(lively(config), config), codec_pieces._stretch(config) * config.hop
    for samples in (count * size + more for count in (1, 2, 3, 8)):
        wav = noise(config, samples)[0]
        made, expected = encode(codec, wav, 500), codec.encode(wav, codec.bandwidths[0])
        assert sum(c.shape[1] for c, _ in made) == expected.codes.shape[2]
        whole, ours = codec.decode(expected), decode(codec, pieces_of(expected, 7), samples)
        assert ours.shape == whole.shape == (1, samples)
        assert (ours - whole).abs().max() < 2e-5 * whole.square().mean().sqrt()


@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_codes_must_stand_for_the_samples(name: str) -> None:
    config = TINY[name]
    codec = Codec(lively(config), config, backend="torch")
    pieces = pieces_of(codec.encode(noise(config, 1000)[0], codec.bandwidths[0]), 100)
    for wrong in (1300, 100):
        with pytest.raises(ArgumentError, match=rf"samples: the codes stand for \d+ to 1\d\d\d, got {wrong}"):
            decode(codec, pieces, wrong)
    assert decode(codec, [], 0).shape == (codec.channels, 0)
    with pytest.raises(ArgumentError, match="samples: the codes stand for 0 to 0, got 1"):
        decode(codec, [], 1)


def test_a_last_segment_within_the_one_before() -> None:
    config = UNUSUAL["stereo"]
    codec = Codec(lively(config), config, backend="torch")
    assert (config.segment_length, config.segment_stride) == (4000, 3920)
    for samples in (3921, 3950, 4000, 4001, 7840, 7841):
        wav = noise(config, samples)[0]
        codes = codec.encode(wav, codec.bandwidths[0])
        assert torch.equal(decode(codec, pieces_of(codes, 0), samples), codec.decode(codes))


def test_memory_does_not_grow_with_the_signal() -> None:
    for name in ("mono", "stereo"):
        config = UNUSUAL[name]
        codec = Codec(lively(config), config)
        encoder, decoder = CodecEncoder(codec, codec.bandwidths[0]), CodecDecoder(codec)
        wav = noise(config, 4800)[0]
        sizes = []
        for _ in range(60):
            for piece in encoder.push(wav):
                decoder.push(*piece)
            sizes.append(held(encoder) + held(decoder))
        assert max(sizes[30:]) <= max(sizes[:30])


def held(value: Any, depth: int = 3) -> int:
    """Elements of the tensors that an object keeps."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, list | tuple):
        return sum(held(item, depth) for item in value)
    if depth == 0 or not type(value).__module__.startswith("fastvoc.streams.pieces"):
        return 0
    return sum(held(item, depth - 1) for item in vars(value).values())


def test_refusals() -> None:
    for name in ("two-sided", "causal-normed", "trimmed", "replicate"):
        config = UNUSUAL[name]
        codec = Codec(lively(config), config, backend="torch")
        for make in (lambda c=codec: CodecEncoder(c, c.bandwidths[0]), lambda c=codec: CodecDecoder(c)):
            with pytest.raises(ArgumentError, match="neither cuts signals into segments nor is it causal"):
                make()
    codec = Codec(lively(STEREO), STEREO, backend="torch")
    with pytest.raises(ArgumentError, match=r"expected one of 0\.6, 1\.5 kbit/s, got 7"):
        CodecEncoder(codec, 7)
    with pytest.raises(ArgumentError, match="holds no samples"):
        CodecEncoder(codec, 0.6).finish()
