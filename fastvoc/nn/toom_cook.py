"""How far Toom-Cook may go in the stages of a bfloat16 model, by what it costs in precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor

from fastvoc.nn.mrf import MrfStage
from fastvoc.runtime.packing import TILES, Tile
from fastvoc.runtime.registry import use_exact

MOST_LOST = 10**0.05 - 1  # of the error without Toom-Cook: half a decibel


def settle(
    stages: Sequence[MrfStage],
    weights: Sequence[int],
    run: Callable[[], Tensor],
    meant: Tensor,
    backend: str | None = None,
) -> None:
    """Gives every stage the longest tiles with which `run()` stays within 0.5 dB of its error without Toom-Cook.

    weights: steps of each stage for each input step; meant: what `run` would give in float32. The rounding of stages
    adds up as power, so that each is tried alone, and of the choices that fit the one that multiplies least is taken.
    Deterministic, but not the same on every instruction set, since their sums differ.
    """

    def error() -> float:
        return float((run() - meant).double().square().sum())

    def choose(tiles: Sequence[Tile]) -> float:
        for stage, tile in zip(stages, tiles, strict=True):
            if stage.longest != tile:
                stage.longest = tile
                stage.repack(backend)
        return error()

    with use_exact():
        direct = error()
    if direct == 0 or choose(["long"] * len(stages)) <= (1 + MOST_LOST) * direct:
        return
    added: list[dict[Tile, float]] = []
    for i, stage in enumerate(stages):
        alone: dict[Tile, float] = {"none": 0.0}
        for tile in TILES:
            if tile != "none" and stage.products(tile) < stage.products("none"):
                tried: list[Tile] = ["none"] * len(stages)
                tried[i] = tile
                alone[tile] = max(choose(tried) - direct, 0.0)
        added.append(alone)
    fitting = (
        tiles
        for tiles in itertools.product(*added)
        if sum(a[t] for a, t in zip(added, tiles, strict=True)) <= MOST_LOST * direct
    )

    def work(tiles: Sequence[Tile]) -> float:
        return sum(w * s.products(t) for s, w, t in zip(stages, weights, tiles, strict=True))

    choose(min(fitting, key=work))
