"""The halves of SNAC (Siuzdak et al. 2024, arXiv 2410.14411): DAC's with depthwise units, noise and local attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.dac import ENDS_KERNEL, EncoderStage, Stage
from fastvoc.nn.depthwise import Depthwise
from fastvoc.nn.local_attention import LocalAttention
from fastvoc.nn.model import Stated
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.snake import Snake
from fastvoc.nn.snaked import SnakeConv1d, SnakeUpsample
from fastvoc.ops.activation import TANH

# (stage, what it upsampled [B, C, T]) -> the stage's noise [B, 1, T], None for none
NoiseBeside = Callable[[int, Value], Value | None]


class SnacDecoderStage(Stage):
    """A Snake and a transposed convolution that halves the channels, noise, residual units.

    The noise has one channel; a convolution of kernel 1, `noise`, says how much of it each channel gets.
    """

    def __init__(self, name: str, channels: int, stride: int, *, depthwise: bool, noise: bool) -> None:
        super().__init__(name, channels // 2, depthwise=depthwise)
        half = channels // 2
        self.snake1 = Snake(channels)
        self.conv_t1 = SnakeUpsample(self.snake1, half, 2 * stride, stride, -(-stride // 2), stride % 2)
        self.noise = Conv1d(half, half, 1, bias=False) if noise else None
        self.add_units()

    def network(self, run: Trace, x: Value, beside: Callable[[Value], Value | None]) -> Value:
        """[B, channels, T] -> [B, channels / 2, T * stride]; `beside` makes the noise beside what is upsampled."""
        x = run(self.conv_t1, x)
        noise = beside(x)
        if self.noise is not None and noise is not None:
            x = run.join(_added, x, run(self.noise, x), noise)
        return self.units(run, x)


def _added(x: Tensor, share: Tensor, noise: Tensor) -> Tensor:
    return torch.addcmul(x, share, noise)


class SnacEncoder(Stated):
    """[B, 1, S] -> [B, latent, S / prod(strides)]."""

    def __init__(self, channels: int, strides: Sequence[int], *, window: int | None, depthwise: bool) -> None:
        super().__init__()
        latent = channels << len(strides)
        self.conv1 = Conv1d(1, channels, ENDS_KERNEL)
        self._stages = [
            EncoderStage(f"encoder.block.{i}", channels << i, stride, depthwise=depthwise)
            for i, stride in enumerate(strides)
        ]
        self.block = nn.ModuleList(self._stages)
        self.attention = None if window is None else LocalAttention(latent, window)
        self.conv2 = Depthwise(latent, ENDS_KERNEL) if depthwise else Conv1d(latent, latent, ENDS_KERNEL)

    def network(self, run: Trace, wav: Value) -> Value:
        """The steps from samples to the latent."""
        x = run(self.conv1, wav)
        for stage in self._stages:
            x = stage.network(run, x)
        if self.attention is not None:
            x = self.attention.network(run, x)
        return run(self.conv2, x)


class SnacDecoder(Stated):
    """[B, latent, T], and what makes the noise of every stage, -> [B, 1, T * prod(strides)]."""

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        latent: int,
        *,
        window: int | None,
        depthwise: bool,
        noise: bool,
    ) -> None:
        super().__init__()
        self.conv0 = Depthwise(latent, ENDS_KERNEL) if depthwise else None
        self.conv1 = Conv1d(latent, channels, 1 if depthwise else ENDS_KERNEL)
        self.attention = None if window is None else LocalAttention(channels, window)
        self._stages = [
            SnacDecoderStage(f"decoder.block.{i}", channels >> i, stride, depthwise=depthwise, noise=noise)
            for i, stride in enumerate(strides)
        ]
        self.block = nn.ModuleList(self._stages)
        self.snake1 = Snake(channels >> len(strides))
        self.conv2 = SnakeConv1d(self.snake1, 1, ENDS_KERNEL, post=TANH)

    def network(self, run: Trace, x: Value, noise: NoiseBeside) -> Value:
        """The steps from the latent to samples."""
        if self.conv0 is not None:
            x = run(self.conv0, x)
        x = run(self.conv1, x)
        if self.attention is not None:
            x = self.attention.network(run, x)
        for i, stage in enumerate(self._stages):
            x = stage.network(run, x, partial(noise, i))
        return run(self.conv2, x)

    def given(self, run: Trace, x: Value, *noise: Value) -> Value:
        """The same with the noise [B, 1, T_i] of every stage."""
        return self.network(run, x, lambda i, _: noise[i])
