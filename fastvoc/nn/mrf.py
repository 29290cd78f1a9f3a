"""Residual blocks and the stage that averages them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastvoc.nn.prepared import Prepared
from fastvoc.ops import mrf as op
from fastvoc.ops.activation import Activation


class DilatedConv(nn.Module):
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


class ResidualBlock(nn.Module):
    """The weights of one residual block.

    With `pairs` (HiFi-GAN's ResBlock1) layer m is convs1[m], dilated, then convs2[m]; without (ResBlock2), convs[m].
    """

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int], *, pairs: bool) -> None:
        super().__init__()
        dilated = nn.ModuleList(DilatedConv(channels, kernel_size, d) for d in dilations)
        if pairs:
            self.convs1 = dilated
            self.convs2 = nn.ModuleList(DilatedConv(channels, kernel_size, 1) for _ in dilations)
        else:
            self.convs = dilated
        self._pairs = pairs

    def layers(self) -> list[tuple[DilatedConv, ...]]:
        """The layers in order, each the one or two convolutions that it applies."""
        lists = (self.convs1, self.convs2) if self._pairs else (self.convs,)
        return [tuple(layer) for layer in zip(*lists, strict=True)]


class MrfStage:
    """mrf over residual blocks that the model owns."""

    def __init__(self, blocks: Sequence[ResidualBlock], act: Activation, pad_mode: str = "zeros") -> None:
        self._blocks = [block.layers() for block in blocks]
        self._convs = [conv for block in self._blocks for layer in block for conv in layer]
        self._act, self._pad_mode = act, pad_mode
        self.prepared = Prepared(op.OP, self.params, self._tensors)

    def params(self) -> op.MrfParams:
        """The op's view of this stage."""
        blocks = tuple(
            tuple(tuple(op.MrfConv(c.weight, c.bias, c.dilation) for c in layer) for layer in block)
            for block in self._blocks
        )
        return op.MrfParams(blocks, self._act, self._pad_mode)

    def _tensors(self) -> list[Tensor]:
        return [t for c in self._convs for t in (c.weight, c.bias)]

    def __call__(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        return self.prepared(x, lengths, backend=backend)
