"""Streams that run for long: the end equals the offline call, and memory does not grow."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import gcd
from typing import Any

import mimi_models
import pytest
import torch
from stream_families import PUBLISHED_STEPS, mel_of, vocoder
from torch import Tensor

from fastvoc.codec import Codec
from fastvoc.models.checks import item_seeds
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.ops.noise import normal_noise
from fastvoc.sound.resampling import resampled
from fastvoc.vocoder import Vocoder
from helpers import need_native

CHUNK = 25
GROWTH_MB = 4
each_family = pytest.mark.parametrize("family", sorted(PUBLISHED_STEPS))
each_length = pytest.mark.parametrize(
    "seconds", [60, pytest.param(3600, marks=pytest.mark.slow)], ids=["a minute", "an hour"]
)


def memory_mb() -> float:
    """Resident memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def last_of(stream: Any, chunk: Callable[[int], Tensor], chunks: int, kept: int) -> Tensor:
    """The last `kept` steps of a stream of so many chunks, whose second half may take no more memory than its first.

    They lie in a ring: outputs that are kept one by one part the heap into pieces of free memory.
    """
    first = stream.push(chunk(0))
    ring, made = first.new_zeros(*first.shape[:-1], kept), 0

    def keep(part: Tensor) -> None:
        nonlocal made
        ring.index_copy_(-1, (made + torch.arange(part.shape[-1])) % kept, part)
        made += part.shape[-1]

    keep(first)
    early = 0.0
    for i in range(1, chunks):
        keep(stream.push(chunk(i)))
        if i == chunks // 2:
            early = memory_mb()
    assert memory_mb() - early < GROWTH_MB
    keep(stream.flush())
    return ring.roll(-(made % kept), -1)


@pytest.mark.native
@each_length
@each_family
def test_the_end_of_a_long_stream(family: str, seconds: int) -> None:
    need_native()
    voc = vocoder(family, "cpp")
    chunks = seconds * voc.sample_rate // voc.hop // CHUNK
    block = mel_of(voc, 50 * CHUNK)
    kept = 10 * voc.sample_rate
    end = last_of(voc.stream(), lambda i: block[:, i % 50 * CHUNK :][:, :CHUNK], chunks, kept)
    assert torch.equal(end, offline_end(voc, block, chunks * CHUNK, kept))


@pytest.mark.native
@each_length
@pytest.mark.parametrize("rate", [8000, 48000])
def test_the_end_of_a_long_stream_at_a_rate(rate: int, seconds: int) -> None:
    """Against the end of the model's samples, from a whole period of both rates on."""
    need_native()
    voc = vocoder("hifigan", "cpp")
    chunks = seconds * voc.sample_rate // voc.hop // CHUNK
    block = mel_of(voc, 50 * CHUNK)
    period = voc.sample_rate // gcd(voc.sample_rate, rate)
    samples = chunks * CHUNK * voc.hop
    kept = 10 * voc.sample_rate + (samples - 10 * voc.sample_rate) % period
    meant = resampled(offline_end(voc, block, chunks * CHUNK, kept), voc.sample_rate, rate)
    size = len(meant) - rate
    end = last_of(voc.stream(rate=rate), lambda i: block[:, i % 50 * CHUNK :][:, :CHUNK], chunks, size)
    assert torch.equal(end, meant[-size:])


def offline_end(voc: Vocoder, block: Tensor, frames: int, kept: int) -> Tensor:
    """The last samples of one call on a mel that repeats `block`, from the frames on which they depend.

    What goes by the absolute position, the phase of a source and noise, is made for the whole length.
    """
    wanted = min(-(-kept // voc.hop) + voc.context_frames[0] + 1, frames)
    first = frames - wanted
    mel = block[:, torch.arange(first, frames) % block.shape[1]]
    inputs = {}
    if voc.config.family == "univnet":
        start = torch.tensor([first])
        inputs["noise"] = normal_noise(item_seeds(0, 1, mel.device), voc.config.model_in_channels, wanted, start)[0]
    if voc.config.family == "hiftnet":
        whole = block[:, torch.arange(frames) % block.shape[1]]
        with torch.inference_mode():
            f0 = voc.model.predict_f0(whole[None], backend="cpp")
            inputs["source"] = voc.model.make_source(f0, backend="cpp")[0, :, first * voc.hop :]
    return voc(mel, check=False, exact=True, **inputs)[-kept:]


@cache
def codec() -> Codec:
    """EnCodec's strides with few channels."""
    torch.manual_seed(5)
    config = EncodecConfig(n_filters=2, dimension=12, bandwidths=(1.5, 3.0), n_q=4)
    model = Encodec(config).eval().requires_grad_(False)
    model.prepare(backend="cpp")
    return Codec(model, config, backend="cpp")


@pytest.mark.native
@each_length
def test_the_end_of_a_long_decoding(seconds: int) -> None:
    need_native()
    voc = codec()
    block = torch.randint(1024, (4, 50 * CHUNK), generator=torch.Generator().manual_seed(1))
    frames, kept = seconds * 75, 10 * 24000
    stream = voc.decoding(4).stream()
    end = last_of(stream, lambda i: block[:, i % 50 * CHUNK :][:, :CHUNK], frames // CHUNK, kept)
    assert torch.equal(end, voc.decode(block[:, torch.arange(frames) % block.shape[1]])[..., -kept:])


@pytest.mark.native
@each_length
def test_the_end_of_a_long_encoding(seconds: int) -> None:
    need_native()
    voc, step = codec(), CHUNK * 320
    block = torch.randn(50 * step, generator=torch.Generator().manual_seed(1)) * 0.3
    stream = voc.encoding(3.0).stream()
    chunks = seconds * 24000 // step
    end = last_of(stream, lambda i: block[i % 50 * step :][:step], chunks, 750)
    whole = voc.encode(block[torch.arange(chunks * step) % len(block)], 3.0)
    assert torch.equal(end, whole.segments[0][0][:, -750:])


@cache
def mimi() -> Codec:
    """Mimi's strides, steps of its transformers and window, with few channels."""
    config = replace(mimi_models.SMALL, ratios=(8, 6, 5, 4), window=250)
    model = mimi_models.lively(config)
    model.prepare(backend="cpp")
    return Codec(model, config, backend="cpp")


@pytest.mark.native
@each_length
def test_the_end_of_a_long_decoding_of_mimi(seconds: int) -> None:
    """Frame by frame of 80 ms."""
    need_native()
    codec = mimi()
    block = torch.randint(codec.config.bins, (4, 500), generator=torch.Generator().manual_seed(1))
    frames, kept = int(seconds * codec.frame_rate), 10 * 24000
    end = last_of(codec.decoding(4).stream(), lambda i: block[:, i % 500][:, None], frames, kept)
    assert torch.equal(end, codec.decode(block[:, torch.arange(frames) % 500], exact=True)[..., -kept:])


@pytest.mark.native
@each_length
def test_the_end_of_a_long_encoding_of_mimi(seconds: int) -> None:
    need_native()
    codec, hop = mimi(), mimi().hop
    block = torch.randn(500 * hop, generator=torch.Generator().manual_seed(1)) * 0.3
    frames = int(seconds * codec.frame_rate)
    stream = codec.encoding(codebooks=4).stream()
    end = last_of(stream, lambda i: block[i % 500 * hop :][:hop], frames, 125)
    whole = codec.encode(block[torch.arange(frames * hop) % len(block)], codebooks=4, exact=True)
    assert torch.equal(end, whole.segments[0][0][:, -125:])
