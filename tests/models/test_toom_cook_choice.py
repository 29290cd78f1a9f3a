"""Which stages of a bfloat16 model use Toom-Cook: those whose rounding does not show in the sound."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from checkpoint_files import RVC, random_state
from torch import Tensor

import fastvoc
from fastvoc.checkpoints import Checkpoint
from fastvoc.loading import loaded
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.nn.toom_cook import MOST_LOST, settle
from fastvoc.nn.widening import LEAST
from fastvoc.runtime.packing import TILES, Tile
from fastvoc.sound.mel import HIFIGAN_22K
from fastvoc.sound.probe import probe
from helpers import relative_l2

CONFIG = HifiGanConfig(
    upsample_rates=(4, 4, 2),
    upsample_kernel_sizes=(8, 8, 4),
    upsample_initial_channel=192,
    mel=replace(HIFIGAN_22K, hop_length=32),
)
WORK = {"long": 0.4, "short": 0.6, "none": 1.0}


class _Stage:
    """A stage whose tiles add so much power of error."""

    def __init__(self, adds: dict[str, float]) -> None:
        self.longest: Tile = "long"
        self.packed: Tile = "long"
        self.adds = {"none": 0.0, **adds}

    def products(self, longest: Tile) -> float:
        return WORK[longest]

    def repack(self, backend: str | None = None) -> None:
        self.packed = self.longest


@pytest.mark.parametrize("seed", range(40))
def test_the_least_work_that_fits_is_chosen(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)

    def power() -> float:
        return float(10 ** (3 * torch.rand((), generator=random) - 3.5))

    stages: list[Any] = [_Stage({"long": power(), "short": power()}) for _ in range(3)]
    steps = [1, 8, 64]

    def run() -> Tensor:
        exact = fastvoc.runtime.registry.exact()
        return torch.tensor([1.0 + (0 if exact else sum(s.adds[s.packed] for s in stages))]).sqrt()

    settle(stages, steps, run, torch.zeros(1))

    def cost(tiles: tuple[Tile, ...]) -> tuple[float, float]:
        work = sum(n * s.products(t) for s, n, t in zip(stages, steps, tiles, strict=True))
        return work, sum(s.adds[t] for s, t in zip(stages, tiles, strict=True))

    assert all(s.packed == s.longest for s in stages)
    fitting = [c[0] for c in map(cost, product(TILES, repeat=3)) if c[1] <= MOST_LOST]
    work, added = cost(tuple(s.longest for s in stages))
    assert added <= MOST_LOST * 1.001
    assert work <= min(fitting) * 1.001


def checkpoint(gain: float) -> Checkpoint:
    """A small voice whose residual branches are `gain` times as loud as random ones."""
    torch.manual_seed(5)
    model = HifiGan(CONFIG)
    state = {name: t.detach().clone() for name, t in model.state_dict().items()}
    for name, tensor in state.items():
        if name.startswith("resblocks") and name.endswith("weight"):
            tensor.mul_(gain)
    return Checkpoint(CONFIG, state, "test")


def half(voice: Checkpoint) -> Any:
    return loaded(voice, dtype=torch.bfloat16, backend="cpp")


def mel(frames: int) -> Tensor:
    assert CONFIG.mel is not None
    return probe(CONFIG.mel, CONFIG.num_mels, frames)[0]


def longest(voc: Any) -> list[Tile]:
    return [stage.longest for _, stage in voc.model._stages]


@pytest.mark.native
def test_loud_branches_are_convolved_directly() -> None:
    voice = checkpoint(10.0)
    meant = loaded(voice)(mel(50), exact=True)
    careful, careless = half(voice), half(voice)
    assert longest(careful)[1] == "none"
    for _, stage in careless.model._stages:
        stage.longest = "long"
        stage.repack("cpp")
    off, direct, without = (
        relative_l2(y, meant) for y in (careful(mel(50)), careful(mel(50), exact=True), careless(mel(50)))
    )
    assert off < 1.06 * direct  # 0.5 dB
    assert without > 2 * direct
    assert "mrf direct" in str(fastvoc.explain(careful))
    assert half(voice).model._stages[1][1].longest == longest(careful)[1]


@pytest.mark.native
def test_the_embedded_voice_is_convolved_directly() -> None:
    """Longer tiles leave 40.1 dB of the 45.1 on its worst clip."""
    voc = fastvoc.load("hifigan", dtype="bf16", backend="cpp")
    assert set(longest(voc)) == {"none"}
    assert {row.form for row in fastvoc.explain(voc) if row.layer.startswith("mrf")} == {"direct"}


@pytest.mark.native
def test_pieces_begin_at_the_tiles_that_were_chosen() -> None:
    voc = half(checkpoint(6.0))
    assert len(set(longest(voc))) > 1
    frames = 3 * (16 << 20) // (8 * voc.model._network.widest)
    whole = voc.model._network(mel(frames)[None], backend="cpp")
    assert torch.equal(voc(mel(frames), check=False), whole[0, 0].float())


def test_probes_are_the_same_every_time() -> None:
    for front in (CONFIG.mel, None):
        x = probe(front, 80, 32)
        assert x.shape == (1, 80, 32)
        assert torch.equal(x, probe(front, 80, 32))
        assert x.isfinite().all()
        assert x.std() > 0.5


@pytest.mark.native
def test_what_would_lose_too_much_stays_in_float32() -> None:
    voice = checkpoint(11.0)
    voc, whole = half(voice), loaded(voice)
    assert voc.dtype is torch.bfloat16
    (note,) = voc.notes
    kept = {name for name in voc.layers() if f" {name}," in f"{note},"}
    assert 0 < len(kept) < 5
    assert {name for name, layer in voc.layers().items() if layer.dtype() is torch.bfloat16}
    assert all(voc.layers()[name].dtype() is torch.float32 for name in kept)
    assert relative_l2(voc(mel(32)), whole(mel(32))) <= 10 ** (-LEAST / 20)
    assert str(fastvoc.explain(voc)).startswith(note)
    assert half(voice).notes == voc.notes


@pytest.mark.native
def test_a_voice_told_a_pitch_is_settled_too() -> None:
    voc = loaded(Checkpoint(RVC, random_state(RVC), "test"), dtype=torch.bfloat16, backend="cpp")
    assert voc.dtype is torch.bfloat16
