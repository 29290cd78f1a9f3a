"""Snake without aliasing, and the residual block that BigVGAN builds from it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.layer import Layer
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.snake import Snake
from fastvoc.ops import snake_aa as op


class SnakeAa(Layer, Snake):
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

    def width(self) -> int:
        return self.alpha.shape[0]


class AmpBlock(nn.Module):
    """A residual block with SnakeAa before every convolution.

    With `pairs` (BigVGAN's AMPBlock1) layer m is activations[2m], convs1[m], dilated, activations[2m + 1], convs2[m];
    without (AMPBlock2), activations[m], convs[m]. A layer adds its result to its input.
    """

    def __init__(
        self, channels: int, kernel_size: int, dilations: Sequence[int], *, pairs: bool, beta: bool, logscale: bool
    ) -> None:
        super().__init__()
        self._convs: list[list[Conv1d]] = []
        for i, name in enumerate(("convs1", "convs2") if pairs else ("convs",)):
            convs = [Conv1d(channels, channels, kernel_size, dilation=1 if i else d) for d in dilations]
            for conv in convs:
                nn.init.normal_(conv.weight, 0.0, 0.01)
            self.add_module(name, nn.ModuleList(convs))
            self._convs.append(convs)
        acts = [SnakeAa(channels, beta=beta, logscale=logscale) for _ in range(len(self._convs) * len(dilations))]
        self.activations = nn.ModuleList(acts)
        self._acts = acts

    def network(self, run: Trace, x: Value) -> Value:
        """The steps of the block."""
        acts = iter(self._acts)
        for layer in zip(*self._convs, strict=True):
            y = x
            for conv in layer[:-1]:
                y = run(conv, run(next(acts), y))
            x = run(layer[-1], run(next(acts), y), x)
        return x
