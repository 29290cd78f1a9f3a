"""Snake without aliasing, and the residual block that BigVGAN builds from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.snake import Snake
from fastvoc.ops import snake_aa as op
from fastvoc.ops.join import Join


class SnakeAa(Snake):
    """snake_aa with its parameters, those of a Snake."""

    def __init__(self, channels: int, *, beta: bool, logscale: bool) -> None:
        super().__init__(channels, beta=beta, logscale=logscale)
        self.prepared = Prepared(op.OP, self.params, self._tensors)

    def params(self) -> op.SnakeAaParams:
        """The op's view of this layer."""
        curve = self.activation()
        assert curve.alpha is not None
        assert curve.inverse is not None
        return op.SnakeAaParams(curve.alpha, curve.inverse)

    def _tensors(self) -> list[Tensor]:
        return list(self.parameters())

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        return self.prepared(x, lengths, backend=backend)


class AmpBlock(nn.Module):
    """A residual block with SnakeAa before every convolution.

    With `pairs` (BigVGAN's AMPBlock1) layer m is activations[2m], convs1[m], dilated, activations[2m + 1], convs2[m];
    without (AMPBlock2), activations[m], convs[m]. A layer adds its result to its input.
    """

    def __init__(
        self, channels: int, kernel_size: int, dilations: Sequence[int], *, pairs: bool, beta: bool, logscale: bool
    ) -> None:
        super().__init__()
        self._convs: list[list[tuple[str, Conv1d]]] = []
        for i, name in enumerate(("convs1", "convs2") if pairs else ("convs",)):
            convs = [Conv1d(channels, channels, kernel_size, dilation=1 if i else d) for d in dilations]
            for conv in convs:
                nn.init.normal_(conv.weight, 0.0, 0.01)
            self.add_module(name, nn.ModuleList(convs))
            self._convs.append([(f"{name}.{m}", conv) for m, conv in enumerate(convs)])
        acts = [SnakeAa(channels, beta=beta, logscale=logscale) for _ in range(len(self._convs) * len(dilations))]
        self.activations = nn.ModuleList(acts)
        self._acts = acts

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        acts = iter(self._acts)
        for layer in zip(*self._convs, strict=True):
            y = x
            for _, conv in layer[:-1]:
                y = conv(next(acts)(y, lengths, backend), lengths, backend)
            x = layer[-1][1](next(acts)(y, lengths, backend), lengths, backend, residual=x)
        return x

    def joins(self) -> list[Join]:
        """What a stream needs beside the layers: where each layer's result meets its input."""
        return [Join(2) for _ in self._convs[0]]

    def step(self, x: Tensor, run: Callable[[Any, Tensor], Tensor], joins: Sequence[Join]) -> Tensor:
        """`forward` on a chunk [B, C, n] of a stream; `run(layer, chunk)` takes it through one layer."""
        acts = iter(self._acts)
        for layer, join in zip(zip(*self._convs, strict=True), joins, strict=True):
            y = x
            for _, conv in layer:
                y = run(conv, run(next(acts), y))
            x, y = join(x, y)
            x = y + x
        return x

    def layers(self) -> dict[str, Prepared]:
        """The layers by name, in order of use."""
        convs = [entry for layer in zip(*self._convs, strict=True) for entry in layer]
        named: dict[str, Prepared] = {}
        for k, (act, (name, conv)) in enumerate(zip(self._acts, convs, strict=True)):
            named |= {f"activations.{k}": act.prepared, name: conv.prepared}
        return named
