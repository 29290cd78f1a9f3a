"""What Kokoro's decoder is made of beside plain convolutions: norms that take a style, two ways to double a rate."""

from __future__ import annotations

from fastvoc.exporting.convolutions import activated, convolved, held
from fastvoc.exporting.emitters import emits, emits_part
from fastvoc.exporting.wire import Wire
from fastvoc.models.kokoro import Doubled, Pool
from fastvoc.nn.adain import AdaIn
from fastvoc.ops.square_conv import SquareConvParams


@emits_part(AdaIn)
def adain(part: AdaIn, x: Wire, styles: Wire) -> Wire:
    """Each channel of an item normalised over its steps, scaled and shifted by the norm's part of the style."""
    params, channels = part.params(), x.known(1)
    gamma = styles.sliced(1, part.first, part.first + channels) + 1.0
    beta = styles.sliced(1, part.first + channels, part.first + 2 * channels)
    away = x - _mean(x)
    gain = gamma / (_mean(away.square()) + params.eps).unary("Sqrt")
    y = away * (gain * params.weight[:, None]) + (gamma * params.bias[:, None] + beta)
    return activated(y, params.act)


def _mean(x: Wire) -> Wire:
    """[B, C, 1] over the steps."""
    return x.graph.add("ReduceMean", x, shape=(*x.shape[:2], 1), axes=[2], keepdims=1)


@emits(SquareConvParams)
def square_conv(params: SquareConvParams, x: Wire, residual: Wire | None = None) -> Wire:
    """A convolution that keeps channels and length, and an addend."""
    half = params.dilation * (params.weight.shape[2] // 2)
    y = convolved(x, params.weight, params.bias, (half, half), dilation=params.dilation)
    return y if residual is None else y + residual


@emits_part(Doubled)
def doubled(part: Doubled, x: Wire) -> Wire:
    """Each step twice."""
    return held(x, 2)


@emits_part(Pool)
def pool(part: Pool, x: Wire) -> Wire:
    """A transposed convolution of each channel by itself, at twice the rate."""
    channels = part.width()
    return x.graph.add(
        "ConvTranspose",
        x,
        x.graph.weight(part.weight, x.dtype),
        x.graph.weight(part.bias, x.dtype),
        shape=(x.shape[0], channels, None if x.shape[2] is None else 2 * x.shape[2]),
        kernel_shape=[3],
        strides=[2],
        pads=[1, 1],
        output_padding=[1],
        group=channels,
    )
