"""The halves of DAC (Kumar et al. 2023, arXiv 2306.06546): residual units with Snakes between strided convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.depthwise import DepthwiseConv
from fastvoc.nn.model import Stated
from fastvoc.nn.mrf import BlockConv, DilatedConv, MrfStage
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.snake import Snake
from fastvoc.nn.snaked import SnakeConv1d, SnakeUpsample
from fastvoc.ops.activation import TANH
from fastvoc.ops.conv1d import Conv1dParams, conv1d
from fastvoc.ops.upsample import upsample

DILATIONS = (1, 3, 9)
ENDS_KERNEL = 7


class ResidualUnit(nn.Module):
    """Weights of x + conv2(snake2(conv1(snake1(x)))): conv1 has 7 taps and a dilation, conv2 one."""

    def __init__(self, channels: int, dilation: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.snake1 = Snake(channels)
        self.conv1 = (DepthwiseConv if depthwise else DilatedConv)(channels, ENDS_KERNEL, dilation)
        self.snake2 = Snake(channels)
        self.conv2 = DilatedConv(channels, 1, 1)

    def layer(self) -> tuple[BlockConv, ...]:
        """The convolutions, as `MrfStage` runs them."""
        return BlockConv(self.conv1, self.snake1), BlockConv(self.conv2, self.snake2)


class Stage(nn.Module):
    """Three residual units, res_unit1 to res_unit3, which run as one op, called after `name`."""

    def __init__(self, name: str, channels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self._units = [ResidualUnit(channels, dilation, depthwise=depthwise) for dilation in DILATIONS]
        self._as_one = MrfStage(f"{name}.res_units", [self])

    def layers(self) -> list[tuple[BlockConv, ...]]:
        """The layers of the units in order."""
        return [unit.layer() for unit in self._units]

    def add_units(self) -> None:
        """Makes the units modules of this one, at the place in its state that they have in upstream's."""
        for i, unit in enumerate(self._units, 1):
            self.add_module(f"res_unit{i}", unit)

    def units(self, run: Trace, x: Value) -> Value:
        """x through the units."""
        return run(self._as_one, x)


class EncoderStage(Stage):
    """Residual units, then a Snake and a convolution that takes every `stride`th step and doubles the channels."""

    def __init__(self, name: str, channels: int, stride: int, *, depthwise: bool = False) -> None:
        super().__init__(name, channels, depthwise=depthwise)
        self.add_units()
        self.snake1 = Snake(channels)
        beside = -(-stride // 2)
        self.conv1 = SnakeConv1d(self.snake1, 2 * channels, 2 * stride, stride=stride, padding=(beside, beside))

    def network(self, run: Trace, x: Value) -> Value:
        """[B, channels, T] -> [B, 2 * channels, T / stride]."""
        return run(self.conv1, self.units(run, x))


class DecoderStage(Stage):
    """A Snake and a transposed convolution that halves the channels, then residual units.

    An odd stride gives a step less than T * stride: upstream pads nothing at the end.
    """

    def __init__(self, name: str, channels: int, stride: int) -> None:
        super().__init__(name, channels // 2)
        self.snake1 = Snake(channels)
        self.conv_t1 = SnakeUpsample(self.snake1, channels // 2, 2 * stride, stride, -(-stride // 2))
        self.add_units()

    def network(self, run: Trace, x: Value) -> Value:
        """[B, channels, T] -> [B, channels / 2, T * stride - stride % 2]."""
        return self.units(run, run(self.conv_t1, x))


class DacEncoder(Stated):
    """[B, 1, S] -> [B, latent, S / prod(strides)]."""

    def __init__(self, channels: int, strides: Sequence[int], latent: int) -> None:
        super().__init__()
        self.conv1 = Conv1d(1, channels, ENDS_KERNEL)
        stages = [EncoderStage(f"encoder.block.{i}", channels << i, stride) for i, stride in enumerate(strides)]
        self.block = nn.ModuleList(stages)
        self.snake1 = Snake(channels << len(strides))
        self.conv2 = SnakeConv1d(self.snake1, latent, 3)
        self._stages, self._hop = stages, prod(strides)

    def network(self, run: Trace, wav: Value) -> Value:
        """The steps from samples to the latent."""
        x = run(self.conv1, wav)
        for stage in self._stages:
            x = stage.network(run, x)
        return run(self.conv2, x)

    def forward(self, wav: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, 1, S] samples -> [B, latent, T]; what makes no whole frame at the end is bent or left off, as there."""
        network = self.reading(per_frame=(self._hop,))
        if wav.shape[2] % self._hop:  # no pieces of whole frames
            return network(wav, lengths=lengths, backend=backend)
        return self.run(network, wav, lengths=lengths, backend=backend)


class DacDecoder(Stated):
    """[B, latent, T] -> [B, 1, S], S less than T * prod(strides) where a stride is odd."""

    def __init__(self, channels: int, strides: Sequence[int], latent: int) -> None:
        super().__init__()
        self.conv1 = Conv1d(latent, channels, ENDS_KERNEL)
        self.stages = [DecoderStage(f"decoder.block.{i}", channels >> i, stride) for i, stride in enumerate(strides)]
        self.block = nn.ModuleList(self.stages)
        self.snake1 = Snake(channels >> len(strides))
        self.conv2 = SnakeConv1d(self.snake1, 1, ENDS_KERNEL, post=TANH)

    def network(self, run: Trace, x: Value) -> Value:
        """The steps from the latent to samples."""
        x = run(self.conv1, x)
        for stage in self.stages:
            x = stage.network(run, x)
        return run(self.conv2, x)

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, latent, T] -> [B, 1, S] samples."""
        return self.run(self.reading(), x, lengths=lengths, backend=backend)


def decode_unpadded(decoder: DacDecoder, x: Tensor, backend: str | None = None) -> Tensor:
    """The decoder with no zeros at the ends, as upstream decodes the chunks of a long `.dac` file.

    [B, latent, T] -> [B, 1, S]: a convolution gives only what lies within its input, a transposed one everything that
    its input reaches, and a residual unit's input loses as much at either end as its convolutions do.
    """
    x = conv1d(x, _bare(decoder.conv1.params()), backend=backend)
    for stage in decoder.stages:
        x = upsample(x, replace(stage.conv_t1.params(), crop=(0, 0)), backend=backend)
        for layer in stage.layers():
            y = x
            for conv, snake in layer:
                assert snake is not None
                params = Conv1dParams(conv.weight, conv.bias, 1, conv.dilation, pre=snake.activation())
                y = conv1d(y, params, backend=backend)
            lost = (x.shape[2] - y.shape[2]) // 2
            x = x[:, :, lost : x.shape[2] - lost] + y
    return conv1d(x, _bare(decoder.conv2.params()), backend=backend)


def _bare(params: Conv1dParams) -> Conv1dParams:
    return replace(params, padding=(0, 0))
