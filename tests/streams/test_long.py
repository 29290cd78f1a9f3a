"""Streams that run for long: the end equals the offline call, and memory does not grow."""

from __future__ import annotations

import resource

import pytest
import torch
from stream_families import FAMILIES, mel_of, vocoder

from helpers import need_native

CHUNK = 25


def memory_mb() -> float:
    """Resident memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def run_for(family: str, seconds: float) -> None:
    need_native()
    voc = vocoder(family, "cpp")
    frames = int(seconds * voc.sample_rate / voc.hop)
    frames -= frames % CHUNK
    block = mel_of(voc, 50 * CHUNK)  # the same minute again and again, from another place each time
    tail_samples = min(10 * voc.sample_rate, frames * voc.hop // 2)
    stream = voc.stream()
    kept: list[torch.Tensor] = []
    held, early = 0, 0.0
    for i in range(frames // CHUNK):
        kept.append(stream.push(block[:, i % 50 * CHUNK :][:, :CHUNK]))
        held += len(kept[-1])
        while held - len(kept[0]) > tail_samples:
            held -= len(kept.pop(0))
        if i == frames // CHUNK // 2:
            early = memory_mb()
    late = memory_mb()
    kept.append(stream.flush())
    streamed = torch.cat(kept)[-tail_samples:]
    whole = offline_tail(family, block, frames, tail_samples)
    assert torch.equal(streamed, whole)
    assert late - early < 8


def offline_tail(family: str, block: torch.Tensor, frames: int, samples: int) -> torch.Tensor:
    """The last samples of one call, on the frames that they depend on: all of them where a model looks back forever."""
    voc = vocoder(family, "cpp")
    left = voc.context_frames[0]
    # A source's phase, to which every frame before adds, and noise, which goes by the position.
    whole = hasattr(voc.model, "m_source") or voc.config.family == "univnet"
    wanted = frames if whole else min(-(-samples // voc.hop) + left + 1, frames)
    index = torch.arange(frames - wanted, frames) % block.shape[1]
    return voc(block[:, index], check=False, exact=True)[-samples:]


@pytest.mark.native
@pytest.mark.parametrize("family", FAMILIES)
def test_a_minute(family: str) -> None:
    run_for(family, 60)


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("family", FAMILIES)
def test_an_hour(family: str) -> None:
    run_for(family, 3600)
