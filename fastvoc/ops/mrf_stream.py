"""mrf on a signal in chunks: every convolution keeps its own tail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from fastvoc.ops.join import Join
from fastvoc.ops.stream import Geometry, TailStream

if TYPE_CHECKING:
    from fastvoc.ops.mrf import MrfConv, MrfParams


class _Block:
    """One residual block: h = h + conv(act(conv(act(h)))) for every layer."""

    def __init__(self, layers: tuple[tuple[MrfConv, ...], ...], convs: list[TailStream]) -> None:
        self._depths = [len(layer) for layer in layers]
        self.convs = convs
        self.joins = [Join(2) for _ in layers]

    def step(self, x: Tensor, final: bool) -> Tensor:
        convs = iter(self.convs)
        for depth, join in zip(self._depths, self.joins, strict=True):
            y = x
            for _ in range(depth):
                y = next(convs).step(y, final)
            x, y = join(x, y)
            x = y + x
        return x


class MrfStream:
    """The state of a stage, from `run(conv, rows)`: one convolution without padding, its activation before it."""

    def __init__(self, params: MrfParams, run: Callable[[MrfConv, Tensor], Tensor]) -> None:
        def conv(c: MrfConv) -> TailStream:
            span = (c.weight.shape[2] - 1) * c.dilation + 1
            geometry = Geometry(span, 1, c.padding, c.padding, params.pad_mode)
            return TailStream(geometry, c.weight.shape[0], lambda rows: run(c, rows))

        self._blocks = [_Block(b, [conv(c) for layer in b for c in layer]) for b in params.blocks]
        self._join = Join(len(params.blocks))
        self._halo = max(sum(c.padding for layer in b for c in layer) for b in params.blocks)

    def _parts(self) -> dict[str, TailStream | Join]:
        parts: dict[str, TailStream | Join] = {"join": self._join}
        for i, block in enumerate(self._blocks):
            parts |= {f"{i}.conv{j}": conv for j, conv in enumerate(block.convs)}
            parts |= {f"{i}.join{j}": join for j, join in enumerate(block.joins)}
        return parts

    @property
    def counters(self) -> tuple[int, ...]:
        return tuple(n for part in self._parts().values() for n in part.counters)

    def tensors(self) -> dict[str, Tensor]:
        return {f"{name}.{key}": t for name, part in self._parts().items() for key, t in part.tensors().items()}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        rest = list(counters)
        for name, part in self._parts().items():
            count = len(part.counters)
            own = {key[len(name) + 1 :]: t for key, t in tensors.items() if key.startswith(f"{name}.")}
            part.restore(own, tuple(rest[:count]))
            del rest[:count]

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._halo, last + self._halo

    def step(self, x: Tensor, final: bool) -> Tensor:
        first, *rest = self._join(*(block.step(x, final) for block in self._blocks))
        total = first
        for y in rest:
            total = y + total
        return total * (1 / (1 + len(rest))) if rest else total
