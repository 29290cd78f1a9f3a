"""DAC and SNAC chunk by chunk: the codes and samples of one exact call."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_families import QUICK
from torch import Tensor
from whole_codecs import CONFIGS, random_codes, sound, whole_codec

import fastvoc
from fastvoc.codec import Codec, Codes
from fastvoc.errors import ArgumentError, DtypeError, ShapeError, StreamError
from fastvoc.streams.codec import Decoding, Encoding
from helpers import relative_l2

each_config = pytest.mark.parametrize("name", CONFIGS)
BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
Side = Decoding | Encoding


def edges(cuts: list[int], end: int) -> list[int]:
    return [0, *sorted(min(cut, end) for cut in cuts), end]


def streamed(side: Side, x: Tensor, cuts: list[int], **options: int) -> Tensor:
    with side.stream(**options) as stream:
        parts = [stream.push(x[..., a:b]) for a, b in pairwise(edges(cuts, x.shape[-1]))]
        return torch.cat([*parts, stream.flush()], -1)


def check_decoding(name: str, backend: str, frames: int, cuts: list[int], dtype: torch.dtype = torch.float32) -> None:
    codec = whole_codec(name, backend, dtype)
    codes = random_codes(codec, frames, seed=frames)[0]
    whole, pieces = codec.decode(codes, exact=True), streamed(codec.decoding(), codes, cuts)
    assert pieces.shape == whole.shape
    assert torch.equal(pieces, whole) if backend == "cpp" else relative_l2(pieces, whole) < 1e-5


def check_encoding(name: str, backend: str, samples: int, cuts: list[int], dtype: torch.dtype = torch.float32) -> None:
    codec = whole_codec(name, backend, dtype)
    wav = sound(samples, seed=samples)[0, 0]
    whole, pieces = codec.encode(wav, exact=True).codes[0], streamed(codec.encoding(), wav, cuts)
    assert pieces.shape == whole.shape
    assert torch.equal(pieces, whole) if backend == "cpp" else (pieces == whole).float().mean() > 0.9


@each_config
@each_backend
@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3], list(range(1, 25)), [5, 5, 20]])
def test_chunks_decode_as_one_call(name: str, backend: str, cuts: list[int]) -> None:
    for frames in (1, 2, 25):
        check_decoding(name, backend, frames, cuts)


@each_config
@each_backend
@pytest.mark.parametrize("cuts", [[], [1], [40, 41, 42, 100], list(range(7, 400, 7))])
def test_chunks_encode_as_one_call(name: str, backend: str, cuts: list[int]) -> None:
    hop = whole_codec(name, backend).hop
    for samples in (1, hop - 1, 4 * hop, 11 * hop + 5):
        check_encoding(name, backend, samples, cuts)


@pytest.mark.native
@each_config
@pytest.mark.parametrize("step", [1, 3])
def test_bfloat16_chunks_are_one_call(name: str, step: int) -> None:
    """Where a call keeps float32 between ops a stream does, and a residual is added before anything is rounded."""
    codec = whole_codec(name, "cpp")
    for frames in (1, 2, 25):
        check_decoding(name, "cpp", frames, list(range(step, frames, step)), torch.bfloat16)
    for samples in (1, 4 * codec.hop, 11 * codec.hop + 5):
        check_encoding(name, "cpp", samples, list(range(7, samples, 7 * step)), torch.bfloat16)


@pytest.mark.native
@QUICK
@given(name=st.sampled_from(sorted(CONFIGS)), frames=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_any_chunking_decodes_as_one_call(name: str, frames: int, cuts: list[int]) -> None:
    check_decoding(name, "cpp", frames, cuts)


@pytest.mark.native
@QUICK
@given(
    name=st.sampled_from(sorted(CONFIGS)), samples=st.integers(1, 900), cuts=st.lists(st.integers(0, 900), max_size=6)
)
def test_any_chunking_encodes_as_one_call(name: str, samples: int, cuts: list[int]) -> None:
    check_encoding(name, "cpp", samples, cuts)


@pytest.mark.native
@each_config
def test_samples_come_as_soon_as_nothing_later_can_change_them(name: str) -> None:
    codec = whole_codec(name, "cpp")
    side = codec.decoding()
    ahead = side.latency.frames
    codes = random_codes(codec, 60)[0]
    stream = side.stream()
    made = 0
    for t in range(60):
        made += stream.push(codes[:, t : t + 1]).shape[-1]
        assert made >= (t + 1 - ahead) * codec.hop - codec.hop // 2
    other = codes.clone()
    other[:, 40:] = codes[:, 40:].flip(1)
    whole, changed = codec.decode(codes, exact=True), codec.decode(other, exact=True)
    same = int((whole != changed)[0].nonzero()[0])
    assert 40 - ahead - 1 <= same / codec.hop
    assert torch.equal(whole[:, : (40 - ahead) * codec.hop], changed[:, : (40 - ahead) * codec.hop])


@pytest.mark.native
@each_config
def test_state_and_many_streams(name: str) -> None:
    codec = whole_codec(name, "cpp")
    codes = {i: random_codes(codec, 25 + i, seed=i)[0] for i in range(4)}
    side = codec.decoding()
    streams, got = fastvoc.Streams(side), {i: [] for i in codes}
    options = {i: {"seed": i} if "seed" in codec.model.decode_inputs else {} for i in codes}
    for i, own in options.items():
        streams.open(i, **own)
    for t in range(0, 30, 5):
        for i, wav in streams.step({i: c[:, t : t + 5] for i, c in codes.items() if t or i % 2}).items():
            got[i].append(wav)
        if not t:
            for i, wav in streams.step({i: c[:, :5] for i, c in codes.items() if not i % 2}).items():
                got[i].append(wav)
    for i, c in codes.items():
        assert torch.equal(torch.cat([*got[i], streams.close(i)], -1), codec.decode(c, exact=True, **options[i]))
    first, other = side.stream(), codec.decoding().stream()
    head = first.push(codes[3][:, :12])
    other.restore(first.state())
    whole = codec.decode(codes[3], exact=True)
    assert torch.equal(torch.cat([head, other.push(codes[3][:, 12:]), other.flush()], -1), whole)
    wav = sound(5 * codec.hop + 3)[0, 0]
    first, other = codec.encoding().stream(), codec.encoding().stream()
    head = first.push(wav[: codec.hop + 1])
    other.restore(first.state())
    whole = codec.encode(wav, exact=True).codes[0]
    assert torch.equal(torch.cat([head, other.push(wav[codec.hop + 1 :]), other.flush()], -1), whole)


@pytest.mark.native
def test_levels_go_in_frame_by_frame() -> None:
    codec = whole_codec("snac", "cpp")
    wav = sound(6 * codec.hop)[0, 0]
    codes = codec.encode(wav)
    levels = [level[0] for level in codes.levels]
    assert [len(level) for level in levels] == [6, 12, 24]
    stream = codec.decoding().stream(seed=7)
    rates = codec.config.rates
    parts = [stream.push([lv[t * r : (t + 1) * r] for lv, r in zip(levels, rates, strict=True)]) for t in range(6)]
    made = torch.cat([*parts, stream.flush()], -1)
    assert torch.equal(made, codec.decode(levels, seed=7, exact=True))
    assert torch.equal(made[0], codec.decode(codes, seed=7, exact=True))
    silent = streamed(codec.decoding(), codec.packed(levels), [2], noise=0)
    assert torch.equal(silent, codec.decode(levels, noise=0, exact=True))


def test_misuse_is_told() -> None:
    dac, snac = whole_codec("dac"), whole_codec("snac")
    with pytest.raises(ArgumentError, match="seed: Dac takes none"):
        dac.decoding().stream(seed=1)
    with pytest.raises(ArgumentError, match="noise: a stream"):
        snac.decoding().stream(noise=3)
    with pytest.raises(ShapeError, match="chunk"):
        dac.decoding(2).stream().push(torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(ShapeError, match="levels"):
        snac.decoding().stream().push([torch.zeros(2, dtype=torch.int64)] * 3)
    with pytest.raises(ArgumentError, match="codebooks"):
        Codec.decoding(dac, 9)
    for seed in (1.5, "1"):
        with pytest.raises(DtypeError, match="seed"):
            snac.decoding().stream(seed=seed)  # type: ignore[arg-type]


def test_codes_of_other_models_are_refused() -> None:
    dac, snac, silent = whole_codec("dac"), whole_codec("snac"), whole_codec("snac-silent")
    codes = dac.encode(sound(100)[0], codebooks=1)
    for other in (snac, silent):
        with pytest.raises(ArgumentError, match=f"codes: made by dac with {dac.hop} .* snac with {other.hop}"):
            other.decode(codes)
    again = pickle.loads(pickle.dumps(codes)).to("cpu")
    assert torch.equal(dac.decode(again), dac.decode(codes))
    by_hand = Codes(codes.segments, None, codes.lengths, codes.bandwidth, codes.sample_rate)
    assert torch.equal(dac.decode(by_hand)[0], dac.decode(codes))


def test_noise_that_is_none_is_told() -> None:
    snac = whole_codec("snac")
    codes = random_codes(snac, 3)[0]
    for noise in (0.0, torch.zeros(3), [torch.zeros(1, 1, 5).numpy()] * 2):
        with pytest.raises(DtypeError, match="noise"):
            snac.decode(codes, noise=noise)  # type: ignore[arg-type]


def test_a_state_of_the_other_noise_is_refused() -> None:
    side = whole_codec("snac").decoding()
    for one, other in ((0, None), (None, 0)):
        state = side.stream(noise=one).state()
        with pytest.raises(StreamError, match="belongs to another"):
            side.stream(noise=other).restore(state)


@each_config
def test_what_comes_out_may_be_changed_in_place(name: str) -> None:
    codec = whole_codec(name)
    codes, wav = random_codes(codec, 30)[0], sound(30 * codec.hop)[0]
    for side, x in ((codec.decoding(), codes), (codec.encoding(), wav)):
        stream, streams = side.stream(), fastvoc.Streams(side)
        for made in (stream.push(x), stream.flush(), streams.step({"a": x})["a"], streams.close("a")):
            assert not made.is_inference()
            made.add_(1)
    stream = codec.decoding().stream(rate=8000, format="s16")
    assert not stream.push(codes).is_inference()
    stream.clipped = 3
    stream.reset()
    assert stream.clipped == 0
