"""What the stage kernel of Hopper takes, cut into launches and jobs as csrc/cuda/mrf_stages.cuh cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cost_model import Device

# By channels: rows of a tile and columns of a job, the largest first.
SHAPES = {
    32: ((1024, 32), (512, 32), (256, 32)),
    64: ((512, 64), (256, 64), (128, 64)),
    128: ((256, 128), (128, 128), (128, 64), (128, 32)),
    256: ((128, 256), (128, 64), (128, 32)),
}
_PRODUCTS = 4096  # FLOP a cycle of a multiprocessor at its peak
_BYTES = 24  # a cycle that a multiprocessor gets out of the cache
_FIXED = 2000  # cycles of a job before its first product and behind its last
_EPILOGUE = {"leaky_relu": 14, "snake": 60}  # instructions of a pair of sums


@dataclass(frozen=True)
class Group:
    """Convolutions of one block in one launch: taps, steps that those after the first lose, the first one's halo."""

    taps: tuple[int, ...]
    lead: int
    trail: int
    halo: int


@dataclass(frozen=True)
class Stage:
    """A stage in tiles of a shape: the launches but that of the mean, each with the groups of its jobs.

    `together`: a job of the last launch takes all of its groups.
    """

    device: Device
    width: int
    rows: int
    columns: int
    epilogue: int
    blocks: int
    items: int
    steps: int
    levels: list[list[Group]] = field(default_factory=list)

    def job(self, group: Group, products: float = 1.0) -> float:
        """Cycles of one job, whose products take so many times their cycles at the peak."""
        taps = sum(group.taps)
        half = max(self.columns / 2, 16 + self.columns / 4) * (self.rows // 128) * (self.width // 16) * taps * products
        stores = self.rows * self.columns / 512 * self.epilogue * len(group.taps)
        moved = self.rows * (2 * self.width + 6 * self.columns) / _BYTES
        return max(2 * half, half + stores, 2 * stores) + moved + _FIXED

    def made(self, group: Group) -> int:
        """Steps of a tile."""
        return self.rows - group.lead - group.trail

    def jobs(self, made: int) -> int:
        """So many tiles' jobs."""
        return self.items * ceil(self.steps / made) * (self.width // self.columns)

    def read(self, groups: Sequence[Group]) -> float:
        """Bytes that a job of these groups takes through the cache."""
        rows = [2 * (self.rows + g.halo) * self.width + 6 * self.rows * self.columns for g in groups]
        return sum(2 * sum(g.taps) * self.width * self.columns for g in groups) + sum(rows)

    def apart(self, groups: Sequence[Group], seconds: bool = False) -> float:
        """Cycles, or seconds, of a launch whose jobs are of one group each, those that take longest first."""
        ordered = sorted(groups, key=lambda g: -sum(g.taps))
        cycles, count, after, read = 0.0, 0, 0, 0.0
        for group in ordered:
            jobs = self.jobs(self.made(group))
            count += jobs
            read += jobs * self.read([group])
            turns = max(ceil((count - after) / self.device.multiprocessors), 0)
            cycles += turns * self.job(group, self._slow() if seconds else 1.0)
            after += turns * self.device.multiprocessors
        return self._launch(cycles, read) if seconds else cycles + _cycles(self.device, self.device.node)

    def as_one(self, seconds: bool = False) -> float:
        """The same of the last launch, whose jobs take all groups."""
        groups = self.levels[-1]
        made = self.rows - max(g.lead for g in groups) - max(g.trail for g in groups)
        if made < 16 or self.columns < self.width:
            return inf
        turns = ceil(self.jobs(made) / self.device.multiprocessors)
        cycles = turns * sum(self.job(group, self._slow() if seconds else 1.0) for group in groups)
        if seconds:
            return self._launch(cycles, self.jobs(made) * self.read(groups))
        return cycles + _cycles(self.device, self.device.node)

    def mean(self) -> float:
        """Seconds of the launch that adds results up."""
        moved = self.device.moved(self.items * self.steps * self.width * (4 * self.blocks + 2))
        written = self.items * self.steps * self.width * 4 * self.blocks
        return self.device.node + moved + (0 if written < self.device.cache_bytes / 2 else written / self.device.memory)

    def planned(self) -> tuple[float, bool]:
        """Cycles by which the library chooses a shape, and whether its last launch has jobs of all blocks."""
        bytes_ = self.items * self.steps * self.width * (8 * self.blocks + 2)
        mean = _cycles(self.device, self.device.node + bytes_ / self.device.memory)
        each, one = self.apart(self.levels[-1]) + mean, self.as_one()
        together = one < inf and (self.blocks == 1 or one <= each)
        return sum(map(self.apart, self.levels[:-1])) + (one if together else each), together

    def seconds(self) -> float:
        """By products at the rate that the device keeps up, and by what comes out of the cache."""
        before = sum(self.apart(level, seconds=True) for level in self.levels[:-1])
        if self.planned()[1]:
            return before + self.as_one(seconds=True)
        return before + self.apart(self.levels[-1], seconds=True) + self.mean()

    def launches(self) -> int:
        """Nodes of a graph."""
        return len(self.levels) + (not self.planned()[1])

    def _slow(self) -> float:
        return self.device.multiprocessors * self.device.clock * _PRODUCTS / self.device.tensor

    def _launch(self, cycles: float, read: float) -> float:
        return self.device.node + max(cycles / self.device.clock, read / self.device.cache)


def _cycles(device: Device, seconds: float) -> float:
    return seconds * device.clock


def plan(device: Device, params: Any, items: int, steps: int) -> Stage | None:
    """The stage as it would run; None where the stage kernel does not take it."""
    convs = params.convs()
    kinds = {params.act_before(conv).kind for conv in convs}
    channels = convs[0].weight.shape[0]
    width = max(16, 1 << (channels - 1).bit_length())
    taken = kinds == {"leaky_relu"} or (kinds == {"snake"} and width >= 64)
    if device.tensor <= device.mma or not taken or width not in SHAPES or params.pad_mode == "reflect":
        return None
    epilogue, made = _EPILOGUE[kinds.pop()], []
    for rows, columns in SHAPES[width]:
        stage = Stage(device, width, rows, columns, epilogue, len(params.blocks), items, steps)
        cuts = [_cut(stage, params, block) for block in params.blocks]
        if any(stage.made(group) < 16 for cut in cuts for group in cut):
            continue
        depth = max(map(len, cuts))
        stage.levels.extend([cut[i] for cut in cuts if i + 1 < len(cut)] for i in range(depth - 1))
        stage.levels.append([cut[-1] for cut in cuts])
        made.append(stage)
    return min(made, key=lambda stage: stage.planned()[0], default=None)


def _cut(stage: Stage, params: Any, block: Any) -> list[Group]:
    """The groups of a block: layers, or single convolutions where a job has not all columns."""
    whole = stage.columns == stage.width
    units = [list(layer) for layer in block] if whole else [[conv] for layer in block for conv in layer]
    best: list[tuple[float, list[Group]]] = [(0.0, [])]
    for to in range(1, len(units) + 1):
        options = []
        for first in range(0 if whole else to - 1, to):
            group = _group(params, [conv for unit in units[first:to] for conv in unit])
            if stage.made(group) >= 16 or to - first == 1:
                cycles = best[first][0] + stage.job(group) / max(stage.made(group), 1)
                options.append((cycles, [*best[first][1], group]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def _group(params: Any, convs: Sequence[Any]) -> Group:
    pads = [params.padding(conv) for conv in convs]
    lead, trail = (sum(pad[side] for pad in pads[1:]) for side in (0, 1))
    return Group(tuple(conv.weight.shape[2] for conv in convs), lead, trail, sum(pads[0]))
