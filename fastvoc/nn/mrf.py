"""Residual blocks and the stage that averages them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fastvoc.nn.depthwise import DepthwiseConv
from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import QuantizedInput
from fastvoc.nn.snake import Snake
from fastvoc.nn.wide import WideOnCpu
from fastvoc.ops import mrf as op
from fastvoc.ops.activation import IDENTITY, Activation
from fastvoc.ops.mrf_params import MrfConv, MrfParams
from fastvoc.runtime.packing import Tile


class DilatedConv(QuantizedInput):
    """The weights of one convolution: weight [C, C, K], bias [C]."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))
        self.dilation = dilation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.01, as HiFi-GAN starts its training; bias 0."""
        nn.init.normal_(self.weight, 0.0, 0.01)
        nn.init.zeros_(self.bias)


class BlockConv(NamedTuple):
    """A convolution of a residual block and the Snake before it, None where the stage's activation comes before it."""

    conv: DilatedConv | DepthwiseConv
    snake: Snake | None


class Block(Protocol):
    """A module with the weights of a residual block."""

    def layers(self) -> list[tuple[BlockConv, ...]]:
        """The layers in order, each the one or two convolutions that it applies."""

    def modules(self) -> Iterator[nn.Module]:
        """As `torch.nn.Module.modules`."""


class ResidualBlock(nn.Module):
    """The weights of one residual block.

    With `pairs` (HiFi-GAN's ResBlock1) layer m is convs1[m], dilated, then convs2[m]; without (ResBlock2), convs[m].
    `snake` makes the Snake before each convolution: activations1[m] and activations2[m], or activations[m].
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilations: Sequence[int],
        *,
        pairs: bool,
        snake: Callable[[], Snake] | None = None,
    ) -> None:
        super().__init__()
        self._lists: list[tuple[list[DilatedConv], list[Snake] | list[None]]] = []
        for i, suffix in enumerate(("1", "2") if pairs else ("",)):
            convs = [DilatedConv(channels, kernel_size, d if i == 0 else 1) for d in dilations]
            self.add_module(f"convs{suffix}", nn.ModuleList(convs))
            snakes = [] if snake is None else [snake() for _ in dilations]
            if snakes:
                self.add_module(f"activations{suffix}", nn.ModuleList(snakes))
            self._lists.append((convs, snakes or [None] * len(convs)))

    def layers(self) -> list[tuple[BlockConv, ...]]:
        """The layers in order, each the one or two convolutions that it applies."""
        rows = []
        for convs, snakes in self._lists:
            rows.append([BlockConv(*pair) for pair in zip(convs, snakes, strict=True)])
        return list(zip(*rows, strict=True))


class WideResidualBlock(WideOnCpu, ResidualBlock):
    """ResidualBlock that stays in float32 or float64 on the CPU where the network around it is cast to less."""


class MrfStage(Layer):
    """mrf over residual blocks that the model owns; `act` comes before the convolutions without a Snake."""

    def __init__(self, name: str, blocks: Sequence[Block], act: Activation = IDENTITY, pad_mode: str = "zeros") -> None:
        self.name, self._owned = name, list(blocks)
        self._blocks = [block.layers() for block in blocks]
        self._convs = [conv for block in self._blocks for layer in block for conv in layer]
        self._act, self._pad_mode = act, pad_mode
        self.longest: Tile = "long"  # of its tiles in bfloat16; a change wants `repack`
        self.prepared = Prepared(op.OP, self.params, self._tensors)

    def params(self) -> MrfParams:
        """The op's view of this stage."""
        blocks = tuple(
            tuple(tuple(_params(conv, snake) for conv, snake in layer) for layer in block) for block in self._blocks
        )
        return MrfParams(blocks, self._act, self._pad_mode, self.longest)

    def width(self) -> int:
        return self._convs[0].conv.weight.shape[0]

    def owners(self) -> list[nn.Module]:
        return [module for block in self._owned for module in block.modules()]

    def products(self, longest: Tile) -> float:
        """Multiply-adds of the C++ kernel for each step where no tile is longer."""
        return op.products(replace(self.params(), longest=longest))

    def saved_by_bytes(self) -> float:
        kept = sum((0.25 if isinstance(c, DilatedConv) else 1.0) * c.weight.numel() for c, _ in self._convs)
        return op.products(self.params()) - kept

    def runs_on(self, backend: str | None = None) -> str | None:
        """The implementation that runs it."""
        return next((v.impl for v in self.prepared.explain(backend)[1] if v.chosen), None)

    def repack(self, backend: str | None = None) -> None:
        """Packs the weights anew, as `Model.prepare` does."""
        self.prepared.repack(backend)

    def _tensors(self) -> list[Tensor]:
        rows = [(*conv.held(), *((snake.alpha, snake.beta) if snake else ())) for conv, snake in self._convs]
        return [t for row in rows for t in row if t is not None]

    def tiles(self) -> tuple[int, int]:
        return op.tiles(self.params())

    __call__ = Layer.forward


def _params(conv: DilatedConv | DepthwiseConv, snake: Snake | None) -> MrfConv:
    act = None if snake is None else snake.activation()
    return MrfConv(conv.weight, conv.bias, conv.dilation, act, conv.input_range)
