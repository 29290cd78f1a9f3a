"""Mimi as users have it: `load`, calls, live streams and pools, long signals in pieces."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mimi_models import SMALL, lively, noise
from stream_families import QUICK
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn import pieces
from helpers import golden, relative_l2

BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
HOP = SMALL.hop


@cache
def codec(backend: str | None = None) -> Codec:
    model = lively(SMALL)
    model.prepare(backend=backend)
    return Codec(model, SMALL, backend=backend)


def same(ours: Tensor, theirs: Tensor, backend: str) -> bool:
    if backend == "cpp":
        return torch.equal(ours, theirs)
    if ours.is_floating_point():
        return relative_l2(ours, theirs) < 1e-5
    return bool((ours == theirs).float().mean() > 0.9)


@pytest.mark.golden
def test_a_folder_loads_and_a_file_of_ours_is_the_same(tmp_path: Path) -> None:
    case = golden("mimi_hf")
    loaded = fastvoc.load_codec(case.dir)
    assert (loaded.sample_rate, loaded.frame_rate, loaded.channels, loaded.hop) == (24000, 12.5, 1, 1920)
    assert loaded.assumed == {}
    audio = case.inputs["audio"]
    codes = loaded.encode(audio, codebooks=3)
    assert torch.equal(codes.codes, case.outputs["codes_n3"])
    assert codes.bandwidth == pytest.approx(3 * 6 * 12.5 / 1000)
    assert torch.equal(loaded.encode(audio).codes, case.outputs["codes"])  # all of them
    assert loaded.decode(codes).shape == audio.shape
    assert relative_l2(loaded.decode(codes.codes), case.outputs["audio_n3"]) < 1e-4
    fastvoc.save(loaded, tmp_path / "mimi.safetensors")
    again = fastvoc.load_codec(tmp_path / "mimi.safetensors")
    assert again.config == loaded.config
    assert torch.equal(again.decode(codes), loaded.decode(codes))
    assert "12.5" not in repr(again) or "Mimi" in repr(again)


def test_numbers_of_codebooks() -> None:
    voc = codec()
    wav = noise(SMALL, 100)[0, 0]
    all_of_them = voc.encode(wav)
    for count in range(1, 5):
        codes = voc.encode(wav, codebooks=count)
        assert torch.equal(codes.codes, all_of_them.codes[:, :count])
        assert torch.equal(voc.encode(wav, voc.bandwidths[count - 1]).codes, codes.codes)
        assert voc.decode(codes).shape == wav.shape
    for wrong in (0, 5):
        with pytest.raises(ArgumentError, match=r"codebooks: expected 1\.\.4"):
            voc.encode(wav, codebooks=wrong)
    with pytest.raises(ShapeError, match="codes: expected"):
        voc.decode(torch.zeros(5, 3, dtype=torch.int64))


@each_backend
@QUICK
@given(frames=st.integers(1, 40), cuts=st.lists(st.integers(1, 9), max_size=6))
def test_any_chunking_decodes_as_one_call(backend: str, frames: int, cuts: list[int]) -> None:
    voc = codec(backend)
    codes = torch.randint(32, (4, frames), generator=torch.Generator().manual_seed(frames))
    parts, at = [], 0
    with voc.decoding(4).stream() as stream:
        for n in cuts:
            parts.append(stream.push(codes[:, at : at + n]))
            at = min(at + n, frames)
            assert parts[-1].shape[-1] % HOP == 0
        parts.append(stream.flush(codes[:, at:]))
    assert same(torch.cat(parts, -1), voc.decode(codes), backend)


@each_backend
@QUICK
@given(samples=st.integers(1, 300), cuts=st.lists(st.integers(1, 90), max_size=6))
def test_any_chunking_encodes_as_one_call(backend: str, samples: int, cuts: list[int]) -> None:
    voc = codec(backend)
    wav = noise(SMALL, samples, seed=samples)[0, 0]
    parts, at = [], 0
    with voc.encoding(codebooks=3).stream() as stream:
        for n in cuts:
            parts.append(stream.push(wav[at : at + n]))
            at = min(at + n, samples)
        parts.append(stream.flush(wav[at:]))
    assert same(torch.cat(parts, -1), voc.encode(wav, codebooks=3).codes[0], backend)


@each_backend
def test_streams_of_any_age_run_as_one_batch(backend: str) -> None:
    voc = codec(backend)
    draw = torch.Generator().manual_seed(2)
    codes = {name: torch.randint(32, (4, 60), generator=draw) for name in "abc"}
    pool, side = fastvoc.Streams(voc.decoding(4)), voc.decoding(4)
    begun, got = {"a": 0, "b": 17, "c": 31}, {name: [torch.empty(1, 0)] for name in codes}
    for step in range(60):
        chunks = {n: codes[n][:, step - at : step - at + 1] for n, at in begun.items() if at <= step}
        for name, part in pool.step(chunks).items():
            got[name].append(part)
    groups = {id(group) for group in pool._groups.values()}
    assert len(groups) == 1
    for name, at in begun.items():
        alone = side.stream()
        whole = alone.push(codes[name][:, : 60 - at])
        assert same(torch.cat(got[name], 1), whole, backend)
    del side


@each_backend
def test_a_saved_state_goes_on_anywhere(backend: str) -> None:
    voc = codec(backend)
    codes = torch.randint(32, (4, 30), generator=torch.Generator().manual_seed(4))
    first = voc.decoding(4).stream()
    begin = first.push(codes[:, :13])
    state = first.state()
    first.push(codes[:, 20:])
    for _ in range(2):
        other = voc.decoding(4).stream()
        other.restore(state)
        rest = other.flush(codes[:, 13:])
        assert same(torch.cat([begin, rest], 1), voc.decode(codes), backend)


@pytest.mark.native
@pytest.mark.parametrize("missing", [0, HOP // 2 + 1])
def test_long_signals_in_pieces(missing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between two transformer layers runs piece by piece: the same bits, also without a whole last frame."""
    wav = noise(SMALL, 3000 * HOP - missing, 2)
    lengths = [3000 * HOP - missing, 1234 * HOP + 5]
    results = []
    for limit in (1 << 40, 1 << 14):
        monkeypatch.setattr(pieces, "PIECE_BYTES", limit)
        model = lively(SMALL)
        model.prepare()
        voc = Codec(model, SMALL)
        codes = voc.encode(wav, lengths=lengths)
        results.append((codes.codes, voc.decode(codes)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_explain_names_every_layer() -> None:
    names = [row.layer for row in fastvoc.explain(codec())]
    for name in (
        "encoder.layers.0.conv",
        "encoder_transformer.layers.1",
        "quantizer.acoustic.encode",
        "quantizer.decode.semantic.rvq",
        "quantizer.decode.acoustic.output_proj",
        "decoder.layers.2.conv",
    ):
        assert name in names, names
    assert len(names) == len(set(names))
