"""Streams with exact=False: near the default call and the exact one however the signal is cut."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from op_cases import MRF, channels, mrf_params, with_snakes
from stream_families import FAMILIES, mel_of, vocoder
from torch import Tensor

import fastvoc
from fastvoc.errors import StreamError
from fastvoc.ops.mrf import OP
from fastvoc.vocoder import Vocoder
from helpers import relative_l2

each_family = pytest.mark.parametrize("family", FAMILIES)


def streamed(voc: Vocoder, mel: Tensor, cuts: list[int], **options: Any) -> Tensor:
    with voc.stream(**options) as live:
        parts = [live.push(mel[:, a:b]) for a, b in pairwise([0, *cuts, mel.shape[1]])]
        return torch.cat([*parts, live.flush()])


def some_cuts(frames: int) -> list[list[int]]:
    rng = random.Random(frames)
    return [[], list(range(1, frames)), list(range(5, frames, 5)), sorted(rng.choices(range(frames + 1), k=7))]


@each_family
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
def test_any_cuts_agree_with_the_default_call(family: str, backend: str, nan_poison: None) -> None:
    voc = vocoder(family, backend)
    mel = mel_of(voc, 61)
    default, exact = voc(mel, check=False), voc(mel, check=False, exact=True)
    for cuts in some_cuts(61):
        wav = streamed(voc, mel, cuts, exact=False)
        assert wav.shape == default.shape
        assert relative_l2(wav, default) < 5e-6
        assert relative_l2(wav, exact) < 5e-6


@pytest.mark.native
def test_the_option_chooses_another_algorithm() -> None:
    voc = vocoder("hifigan-1", "cpp")
    mel = mel_of(voc, 40)
    fast, exact = (streamed(voc, mel, [11, 20], exact=exact) for exact in (False, True))
    assert not torch.equal(fast, exact)
    assert torch.equal(exact, voc(mel, check=False, exact=True))


@pytest.mark.native
@pytest.mark.parametrize("family", ["hifigan-1", "hift-sample"])
def test_states_go_to_streams_of_the_same_kind_only(family: str) -> None:
    voc = vocoder(family, "cpp")
    mel = mel_of(voc, 40)
    for exact in (False, True):
        whole = streamed(voc, mel, [13], exact=exact)
        live = voc.stream(exact=exact)
        begin = live.push(mel[:, :13])
        state = live.state()
        with pytest.raises(StreamError, match="exact"):
            voc.stream(exact=not exact).restore(state)
        moved = voc.stream(exact=exact)
        moved.restore(state)
        assert torch.equal(torch.cat([begin, moved.push(mel[:, 13:]), moved.flush()]), whole)


@pytest.mark.native
def test_kinds_side_by_side_in_one_pool() -> None:
    voc = vocoder("hifigan-1", "cpp")
    kinds = {"a": True, "b": False, "c": True, "d": False}
    mels = {name: mel_of(voc, 30, i) for i, name in enumerate(kinds)}
    streams = fastvoc.Streams(voc)
    for name, exact in kinds.items():
        streams.open(name, exact=exact)
    parts: dict[str, list[Tensor]] = {name: [] for name in kinds}
    for t in range(0, 30, 10):
        for name, wav in streams.step({n: mel[:, t : t + 10] for n, mel in mels.items()}).items():
            parts[str(name)].append(wav)
    for name, exact in kinds.items():
        ours = torch.cat([*parts[name], streams.close(name)])
        assert torch.equal(ours, streamed(voc, mels[name], [10, 20], exact=exact)), name


def chunked(params: Any, x: Tensor, cuts: list[int]) -> Tensor:
    """A stage with the weights of a default call, cut at these steps."""
    impl = OP.impls["cpp"]
    assert impl.stream is not None
    stream = impl.stream(params, impl.packed(params, False))
    parts = [stream.step(x[:, :, a:b], False) for a, b in pairwise([0, *cuts, x.shape[2]])]
    return torch.cat([*parts, stream.step(x[:, :, :0], True)], 2)


STAGES = MRF | {
    "wide-snake": lambda: with_snakes(mrf_params(72, (11,), ((1, 3, 5),), 2)),
    "wide-v1": lambda: mrf_params(40, (3, 7, 11), ((1, 3, 5),) * 3, 2),
    "wide-causal": lambda: mrf_params(40, (5, 7), ((1, 3, 5),) * 2, 2, "causal"),
    "wide-reflect": lambda: mrf_params(40, (3, 11), ((1, 3, 5),) * 2, 2, "reflect"),
}


@pytest.mark.native
@pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)
def test_a_stage_cut_anywhere(make: Callable[[], Any], nan_poison: None) -> None:
    params = make()
    before = torch.get_num_threads()
    for steps in (61, 137, 400):
        x = torch.randn(2, channels(params), steps)
        whole = OP(x, params, backend="cpp")
        for cuts in ([1, 1, 2], list(range(7, steps, 7)), *some_cuts(steps)):
            if len(cuts) > 200:
                continue  # single steps, as in the shorter signals
            results = []
            few = (1, 2, 5) if steps == 137 else (2,)
            for threads in few if len(cuts) < 9 else (1,):
                torch.set_num_threads(threads)
                results.append(chunked(params, x, cuts))
                alone = chunked(params, x[:1], cuts)
                assert torch.equal(alone, results[-1][:1])
            torch.set_num_threads(before)
            assert results[0].shape == whole.shape
            assert all(torch.equal(results[0], other) for other in results)
            assert relative_l2(results[0], whole) < 2e-6, (steps, cuts)
