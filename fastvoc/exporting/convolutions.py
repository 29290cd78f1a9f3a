"""Convolutions and what is fused with them, residual stages, and the blocks made of them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from fastvoc.exporting.emitters import emits, emits_part
from fastvoc.exporting.wire import Wire, concat
from fastvoc.nn.depthwise_upsample import DepthwiseUpsample
from fastvoc.nn.noise import NoiseSignal, NormalNoise
from fastvoc.nn.seanet import SeanetConv, SeanetUpsample
from fastvoc.ops.activation import Activation
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.conv2d import Conv2dParams
from fastvoc.ops.convnext_block import ConvNextBlockParams
from fastvoc.ops.depthwise import DepthwiseParams
from fastvoc.ops.group_norm_act import GroupNormParams
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.ops.lvc import LvcParams
from fastvoc.ops.mrf_params import MrfParams
from fastvoc.ops.seanet_block import SeanetBlockParams
from fastvoc.ops.snake_aa import SnakeAaParams
from fastvoc.ops.upsample import UpsampleParams

PADS = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}


def activated(x: Wire, act: Activation) -> Wire:
    """An activation, by its own meaning in torch."""
    made: Any = act(cast(Any, x))
    assert isinstance(made, Wire)
    return made


def convolved(
    x: Wire,
    weight: Tensor,
    bias: Tensor | None,
    pads: tuple[int, int] = (0, 0),
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Wire:
    """A convolution of a signal between zeros."""
    graph, length = x.graph, x.shape[2]
    count, _, taps = weight.shape
    reach = dilation * (taps - 1) + 1
    made = None if length is None else (length + sum(pads) - reach) // stride + 1
    return graph.add(
        "Conv",
        x,
        graph.weight(weight, x.dtype),
        None if bias is None else graph.weight(bias, x.dtype),
        shape=(x.shape[0], count, made),
        kernel_shape=[taps],
        pads=list(pads),
        strides=[stride],
        dilations=[dilation],
        group=groups,
    )


@emits(Conv1dParams)
def conv1d(params: Conv1dParams, x: Wire, residual: Wire | None = None) -> Wire:
    """pad(pre(x)), the convolution, the residual, post."""
    y, pads = activated(x, params.pre), params.padding
    if params.pad_mode != "zeros" and any(pads):
        y, pads = y.padded(*pads, PADS[params.pad_mode]), (0, 0)
    if y.dtype is torch.float64:
        y = _products(y.padded(*pads), params)
    else:
        y = convolved(y, params.weight, params.bias, pads, stride=params.stride, dilation=params.dilation)
    return activated(y if residual is None else y + residual, params.post)


def _products(x: Wire, params: Conv1dParams) -> Wire:
    """The convolution in float64, for which runtimes have matrix products but no Conv."""
    if params.stride != 1:
        raise x.graph.refuse(f"a convolution of stride {params.stride} in float64 cannot be exported")
    taps, parts = params.weight.shape[2], []
    for k in range(taps):
        start, left = k * params.dilation, (taps - 1 - k) * params.dilation
        parts.append(x.sliced(2, start, -left if left else None))
    rows = concat(parts, 1) if taps > 1 else x
    weight = params.weight.transpose(1, 2).flatten(1)
    made = x.like(weight) @ rows
    return made if params.bias is None else made + params.bias[:, None]


@emits(UpsampleParams)
def upsample(params: UpsampleParams, x: Wire) -> Wire:
    """The transposed convolution without what is cropped; a negative crop on the right appends the bias."""
    left, right = params.crop
    if left < 0 or -right >= params.stride:
        raise x.graph.refuse(f"a transposed convolution with the crop {params.crop} cannot be exported")
    graph, steps = x.graph, x.shape[2]
    _, channels, taps = params.weight.shape
    return graph.add(
        "ConvTranspose",
        activated(x, params.pre),
        graph.weight(params.weight, x.dtype),
        None if params.bias is None else graph.weight(params.bias, x.dtype),
        shape=(x.shape[0], channels, None if steps is None else params.output_length(steps)),
        kernel_shape=[taps],
        strides=[params.stride],
        pads=[left, max(right, 0)],
        output_padding=[max(-right, 0)],
    )


@emits(DepthwiseParams)
def depthwise(params: DepthwiseParams, x: Wire) -> Wire:
    """Every channel convolved with itself alone."""
    pads = (params.padding, params.padding)
    y = activated(x, params.pre)
    return convolved(y, params.weight, params.bias, pads, dilation=params.dilation, groups=len(params.weight))


@emits_part(DepthwiseUpsample)
def depthwise_upsample(part: DepthwiseUpsample, x: Wire) -> Wire:
    """A transposed convolution of each channel by itself, cut on the right so that it sees the past only."""
    channels, _, taps = part.weight.shape
    return x.graph.add(
        "ConvTranspose",
        x,
        x.graph.weight(part.weight, x.dtype),
        shape=(x.shape[0], channels, None if x.shape[2] is None else x.shape[2] * part.stride),
        kernel_shape=[taps],
        strides=[part.stride],
        pads=[0, taps - part.stride],
        group=channels,
    )


@emits(MrfParams)
def mrf(params: MrfParams, x: Wire) -> Wire:
    """The mean over residual blocks."""
    total: Wire | None = None
    for block in params.blocks:
        h = x
        for layer in block:
            y = h
            for conv in layer:
                y, pads = activated(y, params.act_before(conv)), params.padding(conv)
                if params.pad_mode == "reflect":
                    y, pads = y.padded(*pads, "reflect"), (0, 0)
                groups = len(conv.weight) if conv.depthwise else 1
                y = convolved(y, conv.weight, conv.bias, pads, dilation=conv.dilation, groups=groups)
            h = h + y
        total = h if total is None else total + h
    assert total is not None
    return total if len(params.blocks) == 1 else total / len(params.blocks)


@emits(SnakeAaParams)
def snake_aa(params: SnakeAaParams, x: Wire) -> Wire:
    """Interpolation by 2, snake, decimation by 2: filters of one channel each."""
    channels, taps = x.known(1), params.taps
    up = x.graph.add(
        "ConvTranspose",
        x.padded(5, 5, "edge"),
        x.like((2 * taps).expand(channels, 1, -1)),
        shape=(x.shape[0], channels, None if x.shape[2] is None else 2 * x.shape[2]),
        kernel_shape=[len(taps)],
        strides=[2],
        pads=[15, 15],
        group=channels,
    )
    curve = Activation("snake", 0.0, params.alpha, params.inverse)
    return convolved(
        activated(up, curve).padded(5, 6, "edge"), taps.expand(channels, 1, -1), None, stride=2, groups=channels
    )


def normalised(x: Wire, params: LayerNormParams, row: Wire | None) -> Wire:
    """Layer norm over the last axis of [B, T, C]; `row` [B] picks the scale and the shift of an adaptive one."""
    graph = x.graph
    if params.rows is None:
        scale, shift = (graph.weight(t, x.dtype) for t in params.tensors())
        return graph.add("LayerNormalization", x, scale, shift, shape=x.shape, axis=-1, epsilon=params.eps)
    if row is None:
        raise graph.refuse("an adaptive norm without its row cannot be exported")
    ones = x.like(torch.ones_like(params.weight[0]))
    y = graph.add("LayerNormalization", x, ones, shape=x.shape, axis=-1, epsilon=params.eps)
    picked = [
        graph.add("Gather", graph.weight(t, x.dtype), row, shape=(*row.shape, t.shape[1]), dtype=x.dtype, axis=0)
        for t in params.tensors()
    ]
    scale, shift = (t.unsqueeze(1) for t in picked)
    return y * scale + shift


@emits(LayerNormParams)
def layer_norm(params: LayerNormParams, x: Wire, row: Wire | None = None) -> Wire:
    """Every step normalised over its channels."""
    return normalised(x.transpose(1, 2), params, row).transpose(1, 2)


@emits(ConvNextBlockParams)
def convnext_block(params: ConvNextBlockParams, x: Wire, row: Wire | None = None) -> Wire:
    """x + gamma * project(gelu(expand(norm(depthwise(x)))))."""
    channels, _, taps = params.depthwise_weight.shape
    pads = taps // 2, taps // 2
    y = convolved(x, params.depthwise_weight, params.depthwise_bias, pads, groups=channels)
    y = normalised(y.transpose(1, 2), params.norm, row)
    y = (y @ params.expand_weight.t() + params.expand_bias).gelu()
    y = y @ params.project_weight.t() + params.project_bias
    return x + (y if params.gamma is None else y * params.gamma).transpose(1, 2)


@emits(GroupNormParams)
def group_norm_act(params: GroupNormParams, x: Wire, residual: Wire | None = None) -> Wire:
    """All channels and steps of an item normalised together."""
    centred = x - _mean(x)
    deviation = (_mean(centred.square()) + params.eps).unary("Sqrt")
    y = centred / deviation * params.weight[:, None] + params.bias[:, None]
    return activated(y if residual is None else y + residual, params.act)


def _mean(x: Wire) -> Wire:
    """[B, 1, 1] over channels and steps: of the channels' means, since runtimes may add up in order."""
    rows = x.graph.add("ReduceMean", x, shape=(*x.shape[:2], 1), axes=[2], keepdims=1)
    return x.graph.add("ReduceMean", rows, shape=(x.shape[0], 1, 1), axes=[1], keepdims=1)


@emits(Conv2dParams)
def conv2d(params: Conv2dParams, x: Wire, residual: Wire | None = None) -> Wire:
    """The convolution over time and frequency, the residual, leaky ReLU, the largest of every few frequencies."""
    graph, (time, frequency) = x.graph, params.weight.shape[2:]
    y = graph.add(
        "Conv",
        x,
        graph.weight(params.weight, x.dtype),
        graph.weight(params.bias, x.dtype),
        shape=(x.shape[0], params.weight.shape[0], *x.shape[2:]),
        kernel_shape=[time, frequency],
        pads=[time // 2, frequency // 2, time // 2, frequency // 2],
    )
    y = y if residual is None else y + residual
    if params.slope != 1.0:
        y = graph.add("LeakyRelu", y, shape=y.shape, alpha=params.slope)
    if params.pool == 1:
        return y
    shape = (*y.shape[:3], y.known(3) // params.pool)
    kernel = [1, params.pool]
    return graph.add("MaxPool", y, shape=shape, kernel_shape=kernel, strides=kernel)


def reflected(params: Conv1dParams, x: Wire, residual: Wire | None = None) -> Wire:
    """A convolution that reflects its signal; one too short for that gets zeros appended, which are cut off later."""
    longest = max(params.padding)
    if params.pad_mode != "reflect" or not longest:
        return conv1d(params, x, residual)
    if params.stride != 1:
        raise x.graph.refuse(f"a reflecting convolution of stride {params.stride} cannot be exported")
    graph = x.graph
    zero, least = (graph.constant([n], torch.int64) for n in (0, longest + 1))
    missing = graph.add("Max", least - x.size(2), zero, shape=(1,))
    y = activated(x, params.pre)
    y = y.padded(0, missing).padded(*params.padding, "reflect")
    # What is cut: the reflection's last steps lie where they would behind the zeros.
    y = y.sliced(2, zero, y.size(2) - missing)
    y = convolved(y, params.weight, params.bias, dilation=params.dilation)
    return activated(y if residual is None else y + residual, params.post)


@emits_part(SeanetConv)
def seanet_conv(part: SeanetConv, x: Wire, residual: Wire | None = None) -> Wire:
    """The convolution, and its norm if it has one, which takes the residual."""
    params = part.conv.params()
    if params.int8:
        raise x.graph.refuse("int8 layers cannot be exported")
    if part.norm is None:
        return reflected(params, x, residual)
    return group_norm_act(part.norm.params(), reflected(params, x), residual)


@emits_part(SeanetUpsample)
def seanet_upsample(part: SeanetUpsample, x: Wire) -> Wire:
    """The transposed convolution, and its norm if it has one, which sees what is cropped too."""
    y = upsample(part.conv.params(), x)
    if part.norm is None or part.crop is None:
        return y
    left, right = part.crop
    return group_norm_act(part.norm.params(), y).sliced(2, left, -right if right else None)


@emits(SeanetBlockParams)
def seanet_block(params: SeanetBlockParams, x: Wire) -> Wire:
    """shortcut(x) + conv2(conv1(x)), each with its norm."""

    def one(conv: Conv1dParams, norm: GroupNormParams | None, signal: Wire) -> Wire:
        y = reflected(conv, signal)
        return y if norm is None else group_norm_act(norm, y)

    y = one(params.conv2, params.norm2, one(params.conv1, params.norm1, x))
    return y + (x if params.shortcut is None else one(params.shortcut, params.norm_shortcut, x))


@emits(LvcParams)
def lvc(params: LvcParams, x: Wire, kernels: Wire, biases: Wire, residual: Wire | None = None) -> Wire:
    """Every frame's steps times its own kernel, as one matrix product a frame."""
    batch, taps, cin, cout = x.shape[0], params.taps, x.known(1), kernels.known(3)
    wide = x.padded(taps // 2, taps // 2)
    rows = [wide.sliced(2, k, k + 1 - taps if k + 1 < taps else None) for k in range(taps)]
    windows = concat(rows, 1).reshape(0, taps * cin, -1, params.hop, shape=(batch, taps * cin, None, params.hop))
    weights = kernels.reshape(0, taps * cin, cout, -1, shape=(batch, taps * cin, cout, None))
    y = windows.permute(0, 2, 3, 1) @ weights.permute(0, 3, 1, 2)  # [B, L, hop, C_out]
    y = y.permute(0, 3, 1, 2) + biases.unsqueeze(3)
    y = y.reshape(0, cout, -1, shape=(batch, cout, None))
    if params.gated:
        gate, value = y.chunk(2, 1)
        y = gate.unary("Sigmoid") * value.unary("Tanh")
    return y if residual is None else y + residual


@emits_part(NormalNoise)
def normal_noise(part: NormalNoise, x: Wire, seed: Wire | None = None) -> Wire:
    """Noise that the runtime draws."""
    if seed is not None:
        raise x.graph.refuse("noise by a seed that is given cannot be exported")
    return _beside(x, part.width())


@emits_part(NoiseSignal)
def noise_signal(part: NoiseSignal, x: Wire, seed: Wire | None = None) -> Wire:
    """Noise of one channel that the runtime draws."""
    if seed is not None:
        raise x.graph.refuse("noise by a seed that is given cannot be exported")
    return _beside(x, 1)


def _beside(x: Wire, channels: int) -> Wire:
    """Normal noise [B, channels, T] beside x."""
    sizes = concat([x.size(0), x.graph.constant([channels], torch.int64), x.size(2)], 0)
    shape = (x.shape[0], channels, x.shape[2])
    return drawn(x.graph.add("ConstantOfShape", sizes, shape=shape, dtype=torch.float32), "normal").to(x.dtype)


def held(x: Wire, times: int) -> Wire:
    """[B, C, T] -> [B, C, T * times], every value `times` times."""
    wide = x.unsqueeze(3).expand(1, 1, 1, times, shape=(*x.shape, times))
    return wide.reshape(0, 0, -1, shape=(*x.shape[:2], None))


def drawn(like: Wire, kind: str) -> Wire:
    """Random values of a shape: normal, or uniform in [0, 1)."""
    node = {"normal": "RandomNormalLike", "uniform": "RandomUniformLike"}[kind]
    return like.graph.add(node, like, shape=like.shape, seed=like.graph.next_seed())
