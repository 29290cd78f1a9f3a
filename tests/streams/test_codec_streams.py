"""Codecs chunk by chunk: the codes and samples of one call."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_families import LONG, QUICK
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DtypeError, ShapeError, StreamError
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import ENCODEC_48K, EncodecConfig
from helpers import relative_l2

BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
HOP = 6


@cache
def codec(backend: str | None = None) -> Codec:
    torch.manual_seed(5)
    config = EncodecConfig(n_filters=4, dimension=12, ratios=(3, 2), bandwidths=(1.5, 3.0), sample_rate=450, n_q=4)
    model = Encodec(config).eval().requires_grad_(False)
    model.prepare(backend=backend)
    return Codec(model, config, backend=backend)


def joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, -1)


def decoded(voc: Codec, codes: Tensor, cuts: list[int]) -> Tensor:
    edges = [0, *sorted(min(cut, codes.shape[1]) for cut in cuts), codes.shape[1]]
    with voc.decoding(len(codes)).stream() as stream:
        return joined([*(stream.push(codes[:, a:b]) for a, b in pairwise(edges)), stream.flush()])


def encoded(voc: Codec, wav: Tensor, cuts: list[int]) -> Tensor:
    edges = [0, *sorted(min(cut, len(wav)) for cut in cuts), len(wav)]
    with voc.encoding(3.0).stream() as stream:
        return joined([*(stream.push(wav[a:b]) for a, b in pairwise(edges)), stream.flush()])


def check_decoding(backend: str, frames: int, cuts: list[int]) -> None:
    voc = codec(backend)
    codes = torch.randint(1024, (4, frames), generator=torch.Generator().manual_seed(frames))
    whole, pieces = voc.decode(codes), decoded(voc, codes, cuts)
    assert pieces.shape == whole.shape
    assert torch.equal(pieces, whole) if backend == "cpp" else relative_l2(pieces, whole) < 1e-5


def check_encoding(backend: str, samples: int, cuts: list[int]) -> None:
    voc = codec(backend)
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    whole = voc.encode(wav, 3.0).segments[0][0]
    pieces = encoded(voc, wav, cuts)
    assert pieces.shape == whole.shape
    assert torch.equal(pieces, whole) if backend == "cpp" else (pieces == whole).float().mean() > 0.9


@each_backend
@QUICK
@given(frames=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_any_chunking_decodes_as_one_call(backend: str, frames: int, cuts: list[int]) -> None:
    check_decoding(backend, frames, cuts)


@each_backend
@QUICK
@given(samples=st.integers(1, 300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_any_chunking_encodes_as_one_call(backend: str, samples: int, cuts: list[int]) -> None:
    check_encoding(backend, samples, cuts)


@pytest.mark.slow
@each_backend
@LONG
@given(frames=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_a_thousand_decodings(backend: str, frames: int, cuts: list[int]) -> None:
    check_decoding(backend, frames, cuts)


@pytest.mark.slow
@each_backend
@LONG
@given(samples=st.integers(1, 300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_a_thousand_encodings(backend: str, samples: int, cuts: list[int]) -> None:
    check_encoding(backend, samples, cuts)


@pytest.mark.native
def test_after_the_seventh_frame_every_frame_sounds_at_once() -> None:
    voc = codec("cpp")
    codes = torch.randint(1024, (4, 20))
    stream = voc.decoding(4).stream()
    made = [stream.push(codes[:, t : t + 1]).shape[1] for t in range(20)]
    assert made == [0] * 6 + [7 * HOP] + [HOP] * 13


@pytest.mark.native
def test_state_and_many_streams() -> None:
    voc = codec("cpp")
    codes = {i: torch.randint(1024, (4, 25 + i)) for i in range(5)}
    streams, got = fastvoc.Streams(voc.decoding(4)), {i: [] for i in codes}
    for t in range(0, 30, 5):
        chunks = {i: c[:, t : t + 5] for i, c in codes.items() if t or i % 2}
        for i, wav in streams.step(chunks).items():
            got[i].append(wav)
        if not t:
            late = {i: c[:, :5] for i, c in codes.items() if not i % 2}
            for i, wav in streams.step(late).items():
                got[i].append(wav)
    for i, c in codes.items():
        assert torch.equal(joined([*got[i], streams.close(i)]), voc.decode(c))
    first, other = voc.decoding(4).stream(), voc.decoding(4).stream()
    head = first.push(codes[4][:, :12])
    other.restore(first.state())
    assert torch.equal(joined([head, other.push(codes[4][:, 12:]), other.flush()]), voc.decode(codes[4]))
    with pytest.raises(StreamError, match="direction 'decoding', expected 'encoding'"):
        voc.encoding(3.0).stream().restore(first.state())


def test_misuse_is_told() -> None:
    voc = codec()
    stream = voc.decoding(4).stream()
    for wrong, error in (
        (torch.randint(1024, (3, 5)), ShapeError),
        (torch.rand(4, 5), DtypeError),
        (torch.full((4, 5), 1024), ArgumentError),
        (torch.full((4, 5), -1), ArgumentError),
    ):
        with pytest.raises(error, match="chunk"):
            stream.push(wrong)
    with pytest.raises(ShapeError, match="chunk"):
        voc.encoding(3.0).stream().push(torch.randn(2, 30))
    for codebooks in (0, 5):
        with pytest.raises(ArgumentError, match="codebooks"):
            voc.decoding(codebooks)
    with pytest.raises(ArgumentError, match="bandwidth"):
        voc.encoding(6.0)
    stereo = Codec(Encodec(ENCODEC_48K).eval(), ENCODEC_48K)
    for side in (stereo.decoding(2), stereo.encoding(3.0)):
        with pytest.raises(ArgumentError, match="segment"):
            side.stream()
