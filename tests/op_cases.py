"""Random parameters of the ops, in odd sizes, and their meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops.activation import TANH, leaky_relu
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.mrf import MrfConv, MrfParams
from fastvoc.ops.snake_aa import SnakeAaParams
from fastvoc.ops.upsample import UpsampleParams


def conv1d_params(
    cin: int = 5, cout: int = 7, kernel: int = 7, *, dilation: int = 1, stride: int = 1, pad: tuple[int, int] = (3, 3)
) -> Conv1dParams:
    weight = torch.randn(cout, cin, kernel) / (cin * kernel) ** 0.5
    return Conv1dParams(weight, torch.randn(cout), stride, dilation, pad)


CONV1D = {
    "pre-mel": lambda: conv1d_params(80, 37, 7),
    "post-tanh": lambda: replace(conv1d_params(17, 1, 7), pre=leaky_relu(0.01), post=TANH),
    "no-bias": lambda: replace(conv1d_params(8, 16, 3, pad=(1, 1)), bias=None),
    "dilated": lambda: conv1d_params(16, 32, 11, dilation=5, pad=(25, 25)),
    "stride-3": lambda: conv1d_params(18, 33, 6, stride=3, pad=(1, 1)),
    "kernel-1": lambda: replace(conv1d_params(40, 48, 1, pad=(0, 0)), post=leaky_relu(0.2)),
    "causal": lambda: conv1d_params(9, 9, 4, pad=(3, 0)),
    "reflect": lambda: replace(conv1d_params(9, 20, 7, dilation=2, pad=(6, 6)), pad_mode="reflect"),
    "reflect-stride": lambda: replace(conv1d_params(3, 5, 5, stride=2, pad=(2, 3)), pad_mode="reflect"),
    "even-kernel": lambda: conv1d_params(21, 65, 2, pad=(1, 0)),
}


def upsample_params(cin: int, cout: int, kernel: int, stride: int, crop: tuple[int, int]) -> UpsampleParams:
    weight = torch.randn(cin, cout, kernel) / (cin * kernel / stride) ** 0.5
    return UpsampleParams(weight, torch.randn(cout), stride, crop, leaky_relu(0.1))


UPSAMPLE = {
    "k16-s8": lambda: upsample_params(24, 12, 16, 8, (4, 4)),
    "k11-s5": lambda: upsample_params(33, 17, 11, 5, (3, 3)),
    "k7-s3": lambda: upsample_params(8, 48, 7, 3, (2, 2)),
    "k4-s2": lambda: upsample_params(16, 8, 4, 2, (1, 1)),
    "kernel-is-stride": lambda: upsample_params(5, 3, 4, 4, (0, 0)),
    "output-padding": lambda: upsample_params(6, 9, 10, 5, (3, 2)),
    "appended": lambda: upsample_params(4, 4, 3, 3, (0, -2)),
    "trim-right": lambda: upsample_params(7, 16, 8, 4, (0, 4)),
    "no-activation-no-bias": lambda: UpsampleParams(torch.randn(3, 2, 6), None, 2, (2, 2)),
    "kernel-below-stride": lambda: upsample_params(4, 5, 2, 3, (0, 0)),
}


def mrf_params(
    channels: int, kernels: tuple[int, ...], dilations: tuple[tuple[int, ...], ...], depth: int, pad_mode: str = "zeros"
) -> MrfParams:
    def conv(kernel: int, dilation: int) -> MrfConv:
        weight = torch.randn(channels, channels, kernel) * 0.5 / (channels * kernel) ** 0.5
        return MrfConv(weight, torch.randn(channels) * 0.1, dilation)

    blocks = tuple(
        tuple(tuple(conv(k, d if i == 0 else 1) for i in range(depth)) for d in row)
        for k, row in zip(kernels, dilations, strict=True)
    )
    return MrfParams(blocks, leaky_relu(0.1), pad_mode)


MRF = {
    "v1": lambda: mrf_params(32, (3, 7, 11), ((1, 3, 5),) * 3, 2),
    "v2-narrow": lambda: mrf_params(8, (3, 7, 11), ((1, 3, 5),) * 3, 2),
    "v3": lambda: mrf_params(24, (3, 5, 7), ((1, 2), (2, 6), (3, 12)), 1),
    "one-block": lambda: mrf_params(5, (5,), ((2,),), 2),
    "odd-channels": lambda: mrf_params(19, (3, 9), ((1, 4), (7, 2)), 2),
    "kernel-1": lambda: mrf_params(16, (1, 3), ((1,), (1,)), 1),
    "even-kernel": lambda: mrf_params(6, (4,), ((2, 4),), 1),
    "reflect": lambda: mrf_params(12, (3, 7), ((1, 3), (1, 3)), 2, "reflect"),
    "wide": lambda: mrf_params(128, (3,), ((1, 3),), 2),
}


def snake_aa_params(count: int, scale: float = 1.0) -> SnakeAaParams:
    return SnakeAaParams((torch.randn(count) * 0.5).exp() * scale, (torch.randn(count) * 0.5).exp())


SNAKE_AA = {
    "one": lambda: snake_aa_params(1),
    "three": lambda: snake_aa_params(3),
    "odd": lambda: snake_aa_params(29),
    "panel": lambda: snake_aa_params(48),
    "blocks": lambda: snake_aa_params(131),
    "fast": lambda: snake_aa_params(24, 20.0),
    "other-filter": lambda: replace(snake_aa_params(6), taps=torch.randn(12)),
}


def double(params: Any) -> Any:
    """The same parameters in float64."""
    if isinstance(params, SnakeAaParams):
        return SnakeAaParams(params.alpha.double(), params.inverse.double(), params.taps.double())
    if isinstance(params, MrfParams):
        blocks = tuple(
            tuple(
                tuple(
                    replace(c, weight=c.weight.double(), bias=None if c.bias is None else c.bias.double())
                    for c in layer
                )
                for layer in block
            )
            for block in params.blocks
        )
        return replace(params, blocks=blocks)
    bias = None if params.bias is None else params.bias.double()
    return replace(params, weight=params.weight.double(), bias=bias)


def channels(params: Any) -> int:
    """Input channels."""
    if isinstance(params, MrfParams):
        return int(params.convs()[0].weight.shape[0])
    if isinstance(params, SnakeAaParams):
        return len(params.alpha)
    return int(params.weight.shape[0 if isinstance(params, UpsampleParams) else 1])


def strided(x: Tensor) -> dict[str, Tensor]:
    """The same [B, C, T] values in several memory layouts."""
    batch, count, steps = x.shape
    wide = torch.zeros(batch, count + 3, 2 * steps + 1)
    sliced = wide[:, 2 : 2 + count, 1::2]
    sliced.copy_(x)
    return {
        "channel-major": x.contiguous(),
        "time-major": x.transpose(1, 2).contiguous().transpose(1, 2),
        "sliced": sliced,
        "batch-last": x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    }
