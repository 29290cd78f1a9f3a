"""Streams: any chunking gives the samples of one call, and misuse is told without harm."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from stream_families import FAMILIES, LONG, QUICK, mel_of, vocoder
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError, StreamError
from fastvoc.streams.saved import _digest, _parsed
from fastvoc.vocoder import Vocoder
from helpers import relative_l2

BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]
each_family = pytest.mark.parametrize("family", FAMILIES)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
CUTS = st.lists(st.integers(0, 70), max_size=8)


def streamed(voc: Vocoder, mel: Tensor, cuts: list[int]) -> Tensor:
    """The samples of a stream that gets `mel` cut at these frames."""
    edges = [0, *sorted(min(cut, mel.shape[-1]) for cut in cuts), mel.shape[-1]]
    with voc.stream() as stream:
        parts = [stream.push(mel[..., a:b]) for a, b in pairwise(edges)]
        return torch.cat([*parts, stream.flush()], -1)


def check(family: str, backend: str, frames: int, cuts: list[int]) -> None:
    voc = vocoder(family, backend)
    mel = mel_of(voc, max(frames, getattr(voc.config, "min_frames", 1)), frames)
    whole = voc(mel, check=False)
    pieces = streamed(voc, mel, cuts)
    if backend == "cpp":
        assert torch.equal(pieces, voc(mel, check=False, exact=True))
    assert pieces.shape == whole.shape
    assert relative_l2(pieces, whole) < 5e-6


@each_family
@each_backend
@QUICK
@given(frames=st.integers(1, 70), cuts=CUTS)
def test_any_chunking_gives_the_samples_of_one_call(family: str, backend: str, frames: int, cuts: list[int]) -> None:
    check(family, backend, frames, cuts)


@pytest.mark.slow
@each_family
@each_backend
@LONG
@given(frames=st.integers(1, 70), cuts=CUTS)
def test_a_thousand_chunkings(family: str, backend: str, frames: int, cuts: list[int]) -> None:
    check(family, backend, frames, cuts)


@each_family
def test_context_and_latency_are_what_nan_reaches(family: str) -> None:
    voc = vocoder(family)
    left, right = voc.context_frames
    frames = 2 * (left + right) + 9
    middle = frames // 2
    mel = mel_of(voc, frames)
    mel[:, middle] = torch.nan
    touched = voc(mel, check=False, exact=True).isnan().nonzero().flatten()
    assert touched[0] // voc.hop == middle - right
    assert touched[-1] // voc.hop == middle + left
    assert voc.latency.frames == right
    assert voc.latency.samples == right * voc.hop
    assert voc.latency.ms == pytest.approx(1000 * right * voc.hop / voc.sample_rate)


@each_family
def test_samples_come_as_early_as_the_latency_says(family: str) -> None:
    voc = vocoder(family)
    right = voc.latency.frames
    stream = voc.stream()
    mel = mel_of(voc, right + 30)
    made = 0
    for t in range(mel.shape[1]):
        made += len(stream.push(mel[:, t : t + 1]))
        assert made >= (t + 1 - right) * voc.hop
    assert made < (mel.shape[1] - right + 1) * voc.hop


@each_family
@each_backend
def test_batch(family: str, backend: str) -> None:
    voc = vocoder(family, backend)
    mels = torch.stack([mel_of(voc, 40, seed) for seed in range(3)])
    with voc.stream() as stream:
        batched = torch.cat([stream.push(mels[..., :13]), stream.push(mels[..., 13:]), stream.flush()], -1)
    for mel, wav in zip(mels, batched, strict=True):
        alone = streamed(voc, mel, [13])
        assert torch.equal(wav, alone) if backend == "cpp" else relative_l2(wav, alone) < 4e-6


@each_family
@each_backend
def test_state_moves_to_another_stream(family: str, backend: str) -> None:
    voc = vocoder(family, backend)
    mel = mel_of(voc, 90)
    first = voc.stream()
    start = first.push(mel[:, :45])
    saved = first.state()
    other = voc.stream()
    other.push(mel[:, :3])
    other.restore(saved)
    assert torch.equal(first.push(mel[:, 45:60]), other.push(mel[:, 45:60]))
    rest = torch.cat([other.push(mel[:, 60:]), other.flush()])
    assert torch.equal(rest, torch.cat([first.push(mel[:, 60:]), first.flush()]))
    assert len(start) > 0


@each_family
def test_foreign_and_damaged_state(family: str) -> None:
    voc = vocoder(family)
    stream = voc.stream()
    mel = mel_of(voc, 50)
    head = stream.push(mel[:, :31])
    saved = stream.state()
    broken = bytearray(saved)
    broken[-3] ^= 1
    other = vocoder(next(name for name in FAMILIES if name != family)).stream()
    for wrong in (bytes(broken), saved[:-1], b"", b"junk" * 10, other.state(), saved[: len(saved) // 2]):
        with pytest.raises(StreamError, match="state"):
            stream.restore(wrong)
    with pytest.raises(StreamError, match="bytes"):
        stream.restore("text")  # type: ignore[arg-type]
    assert torch.equal(torch.cat([head, stream.push(mel[:, 31:]), stream.flush()]), streamed(voc, mel, [31]))


@pytest.mark.parametrize("version", [2, 3, 5])
def test_state_of_another_version(version: int) -> None:
    """What the revisions before the first release wrote, and what later ones may write."""
    voc = vocoder("hifigan-1")
    stream = voc.stream()
    mel = mel_of(voc, 50)
    head = stream.push(mel[:, :31])
    saved = stream.state()
    tensors, description = _parsed(saved)
    assert description["version"] == 4
    text = json.dumps({**description, "version": version})
    other = save(tensors, {"fastvoc.stream": text, "sha256": _digest(text, tensors)})
    with pytest.raises(StreamError, match=f"state: version {version}, expected 4"):
        stream.restore(other)
    assert torch.equal(torch.cat([head, stream.push(mel[:, 31:]), stream.flush()]), streamed(voc, mel, [31]))


@each_family
def test_misuse_is_told_and_does_no_harm(family: str) -> None:
    voc = vocoder(family)
    mel = mel_of(voc, 40)
    stream = voc.stream()
    head = stream.push(mel[:, :20])
    for wrong, error in (
        (mel[:-1], ShapeError),
        (mel[None, None], ShapeError),
        (mel[None], StreamError),
        (mel.long(), DtypeError),
        (mel.T, ShapeError),
    ):
        with pytest.raises(error, match="chunk"):
            stream.push(wrong)
    rest = torch.cat([stream.push(mel[:, 20:]), stream.push(mel[:, :0]), stream.flush()])
    assert torch.equal(torch.cat([head, rest]), streamed(voc, mel, [20]))
    for use in (lambda: stream.push(mel), stream.flush, stream.state):
        with pytest.raises(StreamError, match="ended"):
            use()
    stream.reset()
    assert torch.equal(torch.cat([stream.push(mel), stream.flush()]), streamed(voc, mel, []))
    stream.close()
    stream.close()
    with pytest.raises(StreamError, match="ended"):
        stream.push(mel)
    with pytest.raises(ArgumentError, match="lookahead"):
        voc.stream(lookahead=1000)
    with pytest.raises(ArgumentError, match="nonsense"):
        voc.stream(nonsense=1)
    assert len(voc.stream().flush()) == 0


def test_two_threads_in_one_stream_are_told() -> None:
    voc = vocoder(FAMILIES[0])
    stream = voc.stream()
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, real: object) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def step(self, *args: object, **more: object) -> object:
            inside.set()
            leave.wait(10)
            return self._real.step(*args, **more)  # type: ignore[attr-defined]

    stream._model = Slow(stream._model)  # type: ignore[assignment]
    results: list[Tensor] = []
    worker = threading.Thread(target=lambda: results.append(stream.push(mel_of(voc, 30))))
    worker.start()
    assert inside.wait(10)
    with pytest.raises(StreamError, match="two threads"):
        stream.push(mel_of(voc, 3))
    leave.set()
    worker.join()
    assert torch.equal(torch.cat([*results, stream.flush()]), streamed(voc, mel_of(voc, 30), []))


def test_many_threads_share_one_model() -> None:
    voc = vocoder(FAMILIES[0])
    mels = [mel_of(voc, 50 + i, i) for i in range(8)]
    expected = [voc(mel, check=False, exact=True) for mel in mels]
    wrong: list[int] = []

    def run(i: int) -> None:
        if not torch.equal(streamed(voc, mels[i], [7, 9, 30]), expected[i]):
            wrong.append(i)

    workers = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if voc.model.layers()["conv_pre"].explain()[1][0].impl == "cpp":
        assert not wrong


def test_asyncio() -> None:
    voc = vocoder(FAMILIES[0])
    mel = mel_of(voc, 45)

    async def chunks() -> AsyncIterator[Tensor]:
        for t in range(0, 45, 10):
            await asyncio.sleep(0)
            yield mel[:, t : t + 10]

    async def run() -> Tensor:
        return torch.cat([wav async for wav in voc.stream().through(chunks())])

    assert torch.equal(asyncio.run(run()), streamed(voc, mel, [10, 20, 30, 40]))


@each_family
def test_shorter_lookahead_is_earlier_and_close(family: str) -> None:
    voc = vocoder(family)
    exact = voc.latency.frames
    mel = mel_of(voc, 80)
    whole = voc(mel, check=False, exact=True)
    errors = []
    for lookahead in (0, exact // 2, exact):
        stream = voc.stream(lookahead=lookahead)
        made, parts = 0, []
        for t in range(0, 80, 5):
            parts.append(stream.push(mel[:, t : t + 5]))
            made += len(parts[-1])
            assert made >= min((t + 5 - lookahead) * voc.hop, voc.config.samples(t + 5))
        wav = torch.cat([*parts, stream.flush()])
        assert wav.shape == whole.shape
        errors.append(relative_l2(wav, whole))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6
