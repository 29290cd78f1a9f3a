"""Random parameters of the ops, in odd sizes, and their meaning in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fastvoc.ops.activation import TANH, Activation, elu, gelu, leaky_relu, snake
from fastvoc.ops.attention_block import AttentionBlockParams, attention_block_ref
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.convnext_block import ConvNextBlockParams
from fastvoc.ops.depthwise import DepthwiseParams
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.ops.lstm import LstmParams
from fastvoc.ops.mrf_params import MrfConv, MrfParams
from fastvoc.ops.seanet_block import SeanetBlockParams
from fastvoc.ops.snake_aa import SnakeAaParams
from fastvoc.ops.upsample import UpsampleParams


def conv1d_params(
    cin: int = 5, cout: int = 7, kernel: int = 7, *, dilation: int = 1, stride: int = 1, pad: tuple[int, int] = (3, 3)
) -> Conv1dParams:
    weight = torch.randn(cout, cin, kernel) / (cin * kernel) ** 0.5
    return Conv1dParams(weight, torch.randn(cout), stride, dilation, pad)


def random_snake(channels: int) -> Activation:
    return snake(torch.rand(channels) * 3 + 0.1, torch.rand(channels) + 0.1)


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
    "elu": lambda: replace(conv1d_params(20, 9, 3, pad=(1, 1)), pre=elu(), post=elu()),
    "gelu": lambda: replace(conv1d_params(9, 33, 5, pad=(2, 2)), pre=gelu(), post=gelu()),
    "snake": lambda: replace(conv1d_params(19, 21, 3, pad=(1, 1)), pre=random_snake(19), post=random_snake(21)),
    "snake-then-tanh": lambda: replace(conv1d_params(33, 1, 7, pad=(3, 3)), pre=random_snake(33), post=TANH),
    "tanh-first": lambda: replace(conv1d_params(5, 6, 3, pad=(1, 1)), pre=TANH),
    "replicate": lambda: replace(conv1d_params(7, 18, 5, dilation=3, pad=(6, 9)), pad_mode="replicate"),
    "replicate-wide": lambda: replace(conv1d_params(4, 3, 2, pad=(40, 70)), pad_mode="replicate", pre=elu()),
    "padded-past-the-kernel": lambda: conv1d_params(6, 5, 3, stride=2, pad=(11, 4)),
    "reflect-past-the-kernel": lambda: replace(conv1d_params(6, 5, 3, pad=(11, 13)), pad_mode="reflect"),
    "source-k30-s15": lambda: conv1d_params(18, 40, 30, stride=15, pad=(7, 7)),
    "codec-k16-s8": lambda: replace(conv1d_params(24, 36, 16, stride=8, pad=(8, 3)), pad_mode="reflect", pre=elu()),
    "kernel-41": lambda: conv1d_params(17, 16, 41, stride=4, pad=(20, 20)),
    "wide": lambda: conv1d_params(120, 272, 5, dilation=2, stride=2, pad=(3, 4)),
    "wide-pointwise": lambda: conv1d_params(300, 520, 1, pad=(0, 0)),
}


def attention_params(
    channels: int,
    hidden: int,
    heads: int,
    size: int,
    window: int,
    *,
    kv_heads: int | None = None,
    scaled: bool = True,
    theta: float = 10000.0,
) -> AttentionBlockParams:
    kept = heads if kv_heads is None else kv_heads

    def weight(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs) / inputs**0.5

    def norm() -> LayerNormParams:
        return LayerNormParams(1 + 0.3 * torch.randn(channels), 0.3 * torch.randn(channels), 1e-5)

    scales = [0.5 * torch.randn(channels) if scaled else None for _ in range(2)]
    return AttentionBlockParams(
        2 * weight(heads * size, channels),
        2 * weight(kept * size, channels),
        weight(kept * size, channels),
        weight(channels, heads * size),
        weight(hidden, channels),
        weight(channels, hidden),
        norm(),
        norm(),
        *scales,
        heads,
        kept,
        window,
        theta,
    )


ATTENTION = {
    "one-head": lambda: attention_params(6, 10, 1, 4, 3),
    "odd": lambda: attention_params(19, 33, 3, 6, 7, scaled=False),
    "panels": lambda: attention_params(32, 64, 4, 8, 9),
    "no-past": lambda: attention_params(12, 5, 2, 6, 1),
    "shared-keys": lambda: attention_params(20, 41, 6, 10, 40, kv_heads=2),
    "wide-heads": lambda: attention_params(24, 48, 2, 130, 17, theta=100.0),
    "tiles": lambda: attention_params(64, 96, 4, 16, 40),
    "widest": lambda: attention_params(16, 20, 1, 256, 33),
    "mimi": lambda: attention_params(512, 2048, 8, 64, 250),
}


def with_attention_ranges(params: AttentionBlockParams, x: Tensor) -> AttentionBlockParams:
    """The same parameters with the ranges of their products' inputs, as x [B, C, T] makes them."""
    seen: list[Tensor] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.linear:
                seen.append(torch.stack([*torch.aminmax(args[0])]).float())
            return func(*args, **(kwargs or {}))

    with Watch():
        attention_block_ref(x, params)
    spans = torch.stack(seen).unflatten(0, (-1, 6))
    low, high = spans[:, 2:, 0].amin(0), spans[:, 2:, 1].amax(0)
    return replace(params, ranges=0.95 * torch.stack([low, high], 1))


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
    "elu": lambda: replace(upsample_params(18, 9, 8, 4, (0, 4)), pre=elu()),
    "snake": lambda: replace(upsample_params(21, 8, 4, 2, (1, 1)), pre=random_snake(21)),
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


def with_snakes(params: MrfParams) -> MrfParams:
    """The same stage with a Snake of its own before every convolution."""
    return each_conv(params, lambda conv: replace(conv, act=random_snake(conv.weight.shape[0])))


def depthwise_first(params: MrfParams) -> MrfParams:
    """The same stage with a depthwise convolution at the beginning of every layer."""
    blocks = tuple(
        tuple(
            (replace(first, weight=first.weight[:, :1] * len(first.weight) ** 0.5), second) for first, second in block
        )
        for block in params.blocks
    )
    return replace(params, blocks=blocks)


def each_conv(params: MrfParams, change: Callable[[MrfConv], MrfConv]) -> MrfParams:
    """The stage with every convolution changed."""
    blocks = tuple(tuple(tuple(change(conv) for conv in layer) for layer in block) for block in params.blocks)
    return replace(params, blocks=blocks)


MRF = {
    "v1": lambda: mrf_params(32, (3, 7, 11), ((1, 3, 5),) * 3, 2),
    "v2-narrow": lambda: mrf_params(8, (3, 7, 11), ((1, 3, 5),) * 3, 2),
    "v3": lambda: mrf_params(24, (3, 5, 7), ((1, 2), (2, 6), (3, 12)), 1),
    # Three layers of one convolution: the only shape that needs both buffers of a CUDA block's state.
    "v3-deep": lambda: mrf_params(9, (3, 5), ((1, 2, 3),) * 2, 1),
    "one-block": lambda: mrf_params(5, (5,), ((2,),), 2),
    "odd-channels": lambda: mrf_params(19, (3, 9), ((1, 4), (7, 2)), 2),
    "kernel-1": lambda: mrf_params(16, (1, 3), ((1,), (1,)), 1),
    "even-kernel": lambda: mrf_params(6, (4,), ((2, 4),), 1),
    "reflect": lambda: mrf_params(12, (3, 7), ((1, 3), (1, 3)), 2, "reflect"),
    "causal": lambda: mrf_params(21, (3, 7, 11), ((1, 3, 5),) * 3, 2, "causal"),
    "causal-even-kernel": lambda: mrf_params(6, (4, 2), ((2, 5), (3, 1)), 1, "causal"),
    "wide": lambda: mrf_params(128, (3,), ((1, 3),), 2),
    "snake": lambda: with_snakes(mrf_params(32, (3, 7), ((1, 3, 5),) * 2, 2)),
    "snake-causal": lambda: with_snakes(mrf_params(17, (7,), ((1, 3, 5),), 2, "causal")),
    "snake-one-block": lambda: with_snakes(mrf_params(19, (7,), ((1, 3, 5),), 2)),
    "elu": lambda: replace(mrf_params(9, (3,), ((1, 2),), 2), act=elu()),
    "depthwise": lambda: with_snakes(depthwise_first(mrf_params(33, (7,), ((1, 3, 9),), 2))),
    "depthwise-blocks": lambda: depthwise_first(mrf_params(19, (3, 5), ((1, 4), (7, 2)), 2)),
    "depthwise-causal": lambda: with_snakes(depthwise_first(mrf_params(48, (6, 3), ((1, 3),) * 2, 2, "causal"))),
    "depthwise-reflect": lambda: depthwise_first(mrf_params(21, (7,), ((1, 3),), 2, "reflect")),
    "one-snake": lambda: replace(mrf_params(9, (3, 5), ((1, 2),) * 2, 1), act=random_snake(9)),
}

# Stages of half a panel and of one, which have kernels of their own on the CPU.
NARROW_MRF = {
    "half-panel-v3": lambda: mrf_params(8, (3, 5, 7), ((1, 2), (2, 6), (3, 12)), 1),
    "half-panel-causal": lambda: mrf_params(7, (2, 11), ((1, 5), (3, 4)), 2, "causal"),
    "half-panel-reflect": lambda: mrf_params(3, (7, 5), ((1, 3), (4, 1)), 2, "reflect"),
    "half-panel-elu": lambda: replace(mrf_params(8, (3,), ((1, 4),), 1), act=elu()),
    "half-panel-snake": lambda: with_snakes(mrf_params(8, (3, 7), ((1, 5), (3, 1)), 2)),
    "one-channel": lambda: mrf_params(1, (3,), ((1, 3),), 2),
    "half-panel-depthwise": lambda: with_snakes(depthwise_first(mrf_params(7, (7, 3, 5), ((1, 3), (1,), (2,)), 2))),
    "panel-v2": lambda: mrf_params(16, (3, 7, 11), ((1, 3, 5),) * 3, 2),
    "panel-v3": lambda: mrf_params(16, (7, 11), ((12, 5), (1, 12)), 1),
    "panel-snake": lambda: with_snakes(mrf_params(13, (7,), ((1, 3),), 2)),
}


# A depthwise convolution beside whole numbers is an op of its own, which pads zeros on either side.
INT8_MRF = {n: make for n, make in (MRF | NARROW_MRF).items() if n not in ("depthwise-causal", "depthwise-reflect")}


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


def depthwise_params(channels: int, kernel: int = 7, dilation: int = 1) -> DepthwiseParams:
    weight = torch.randn(channels, 1, kernel) / kernel**0.5
    return DepthwiseParams(weight, torch.randn(channels), dilation)


DEPTHWISE = {
    "plain": lambda: depthwise_params(24),
    "one": lambda: depthwise_params(1, 3),
    "odd": lambda: replace(depthwise_params(29, 5, 4), pre=leaky_relu(0.2)),
    "snake": lambda: replace(depthwise_params(48, 7, 9), pre=random_snake(48)),
    "snake-odd": lambda: replace(depthwise_params(19, 7, 3), pre=random_snake(19)),
    "no-bias": lambda: replace(depthwise_params(33, 11), bias=None),
    "kernel-1": lambda: replace(depthwise_params(5, 1), pre=elu()),
    "wide": lambda: replace(depthwise_params(300, 7, 27), pre=random_snake(300)),
}


def double(params: Any) -> Any:
    """The same parameters, nested ones included, in float64."""
    return cast(params, torch.float64)


def cast(params: Any, to: torch.dtype | str) -> Any:
    """The same parameters, nested ones included, in a dtype or on a device; integers keep their dtype."""
    if isinstance(params, Tensor):
        return params.to(to) if params.is_floating_point() or isinstance(to, str) else params
    if isinstance(params, dict):
        return {name: cast(value, to) for name, value in params.items()}
    if isinstance(params, tuple):
        return tuple(cast(value, to) for value in params)
    if is_dataclass(params) and not isinstance(params, type):
        return replace(params, **{f.name: cast(getattr(params, f.name), to) for f in fields(params) if f.init})
    return params


def with_ranges(params: Any, x: Tensor) -> Any:
    """The same parameters with the range of every convolution's input, as x [B, C, T] makes it."""
    if isinstance(params, MrfParams):
        span = torch.tensor([-0.6, 1.1]) * x.abs().max()
        return each_conv(params, lambda conv: conv if conv.depthwise else replace(conv, input_range=span))
    y = params.pre(x.float())
    return replace(params, input_range=torch.stack([y.min(), y.max()]) * 0.9)


def channels(params: Any) -> int:
    """Input channels."""
    if isinstance(params, MrfParams):
        return int(params.convs()[0].weight.shape[0])
    if isinstance(params, SnakeAaParams):
        return len(params.alpha)
    if isinstance(params, AttentionBlockParams):
        return params.channels
    if isinstance(params, LstmParams):
        return params.inputs
    if isinstance(params, SeanetBlockParams):
        return int(params.conv1.weight.shape[1])
    return int(params.weight.shape[0 if isinstance(params, UpsampleParams | DepthwiseParams) else 1])


def strided(x: Tensor) -> dict[str, Tensor]:
    """The same [B, C, T] values in several memory layouts."""
    batch, count, steps = x.shape
    wide = torch.zeros(batch, count + 3, 2 * steps + 1, dtype=x.dtype)
    sliced = wide[:, 2 : 2 + count, 1::2]
    sliced.copy_(x)
    return {
        "channel-major": x.contiguous(),
        "time-major": x.transpose(1, 2).contiguous().transpose(1, 2),
        "sliced": sliced,
        "batch-last": x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    }


def norm_params(channels: int, rows: int | None = None) -> LayerNormParams:
    shape = (channels,) if rows is None else (rows, channels)
    return LayerNormParams(1 + 0.3 * torch.randn(shape), 0.3 * torch.randn(shape), eps=0.01)  # no default


def block_params(channels: int, hidden: int, kernel: int = 7, rows: int | None = None) -> ConvNextBlockParams:
    return ConvNextBlockParams(
        torch.randn(channels, 1, kernel) / kernel**0.5,
        torch.randn(channels) * 0.1,
        norm_params(channels, rows),
        torch.randn(hidden, channels) / channels**0.5,
        torch.randn(hidden) * 0.1,
        torch.randn(channels, hidden) / hidden**0.5,
        torch.randn(channels) * 0.1,
        torch.randn(channels),
    )
