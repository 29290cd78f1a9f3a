"""mrf: multi-receptive-field fusion, the mean of residual blocks of dilated convolutions (HiFi-GAN, section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import BackendError
from fastvoc.ops import mrf_apart as apart
from fastvoc.ops._checks import (
    by_item,
    check_activations,
    check_reflect,
)
from fastvoc.ops._cpp import floats, register_cpp
from fastvoc.ops._cuda import pack_cuda_activations, register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.conv1d import conv1d_ref
from fastvoc.ops.mrf_params import PAD_MODES, MrfConv, MrfParams
from fastvoc.ops.mrf_stream import MrfPacked, MrfStream, NativeMrfStream
from fastvoc.ops.stream import Geometry, MarginStream, Rows, TailStream
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define

_MAX_BLOCKS, _MAX_CONVS, _GRANULE = 16, 32, 720  # of csrc/cpu/mrf_args.h, mrf_tuning.h
_DEPTHWISE = 5  # scheme of csrc/cpu/toom_cook_args.h
_TILES, _STAGE = -1, -2  # schemes of weights for csrc/cuda/mrf_tile.cuh and mrf_stage.cuh


def _check(x: Tensor, params: MrfParams, lengths: Tensor | None = None) -> None:
    weight = params.blocks[0][0][0].weight
    check_activations("mrf", x, weight.shape[0], weight, lengths)
    if params.pad_mode == "reflect":
        check_reflect("mrf", [max(params.padding(conv)) for conv in params.convs()], lengths, x.shape[2])


def _convolved(x: Tensor, conv: MrfConv, params: MrfParams, pads: tuple[int, int] = (0, 0)) -> Tensor:
    """Activation and convolution of x between `pads` steps."""
    if not conv.depthwise:
        return conv1d_ref(x, apart.dense(conv, params, pads))
    mode = "reflect" if params.pad_mode == "reflect" else "constant"
    padded = F.pad(params.act_before(conv)(x), pads, mode=mode)
    with full_float32(x):
        return F.conv1d(padded, conv.weight, conv.bias, dilation=conv.dilation, groups=x.shape[1])


def mrf_ref(x: Tensor, params: MrfParams, lengths: Tensor | None = None) -> Tensor:
    """The mean over residual blocks; in each, every layer computes h = h + conv(act(conv(act(h)))).

    Args:
        x: [B, C, T], dtype and device of the weights.
        params: blocks and activation.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:
        return by_item(x, lengths, x.shape[2], lambda item, _: mrf_ref(item, params))
    total = torch.zeros_like(x)
    for block in params.blocks:
        h = x
        for layer in block:
            y = h
            for c in layer:
                y = _convolved(y, c, params, params.padding(c))
            h = h + y
        total = total + h
    return total / len(params.blocks)


def _scheme(conv: MrfConv, longest: packing.Tile) -> packing.ToomCook | None:
    """How a convolution multiplies on the CPU, None for direct."""
    dtype = conv.weight.dtype
    if dtype not in (torch.float32, torch.bfloat16) or conv.input_range is not None or conv.depthwise:
        return None
    channels, _, kernel = conv.weight.shape
    return packing.toom_cook(kernel, channels, dtype, smooth=conv.act is None, longest=longest)


def _schemes(params: MrfParams) -> list[packing.ToomCook | None]:
    """The Toom-Cook scheme of every convolution."""
    schemes = []
    for block in params.blocks:
        for i, layer in enumerate(block):
            for j, conv in enumerate(layer):
                scheme = _scheme(conv, params.longest)
                # A last convolution's tiles must fit the strips and ranges of the output.
                last = i + 1 == len(block) and j + 1 == len(layer)
                if scheme is not None and last and _GRANULE % (scheme.tile * conv.dilation):
                    scheme = None
                schemes.append(scheme)
    return schemes


def products(params: MrfParams) -> float:
    """Multiply-adds of the C++ kernel for each step, with the tiles that `params.longest` leaves."""
    each = zip(params.convs(), _schemes(params), strict=True)
    return sum(
        c.weight[..., 0].numel() * (c.weight.shape[2] if s is None else s.products(c.weight.shape[2])) for c, s in each
    )


def tiles(params: MrfParams) -> tuple[int, int]:
    """At multiples of how many steps all tiles of a stage begin, and how far beside a step's inputs they may read."""
    grain, slack = 1, 0
    for block in params.blocks:
        reach = 0
        for conv in (conv for layer in block for conv in layer):
            scheme = _scheme(conv, params.longest)
            if scheme is not None:
                grain = math.lcm(grain, scheme.tile * conv.dilation)
                reach += (scheme.tile + -conv.weight.shape[2] % scheme.group) * conv.dilation
        slack = max(slack, reach)
    return grain, slack


def _pack(
    params: MrfParams, schemes: list[packing.ToomCook | None], pack: Callable[[Tensor], Tensor] = packing.pack_conv
) -> MrfPacked:
    convs = params.convs()
    channels = convs[0].weight.shape[0]

    def packed(c: MrfConv, s: packing.ToomCook | None) -> Tensor:
        if c.depthwise:
            return packing.pack_depthwise(c.weight).flatten()
        return pack(c.weight).flatten() if s is None else packing.pack_toom_cook(c.weight, s)

    return MrfPacked(
        torch.cat([packed(c, s) for c, s in zip(convs, schemes, strict=True)]),
        torch.cat([packing.pad_bias(c.bias, channels, c.weight) for c in convs]),
        channels,
        len(params.blocks[0][0]),
        PAD_MODES.index(params.pad_mode),
        [len(block) for block in params.blocks],
        [c.weight.shape[2] for c in convs],
        [c.dilation for c in convs],
        [_DEPTHWISE if c.depthwise else 0 if s is None else s.code for c, s in zip(convs, schemes, strict=True)],
        *packing.pack_activations([params.act_before(c) for c in convs]),
    )


def _apart_on_cpu(params: MrfParams) -> bool:
    """Whether C++ runs a stage with depthwise convolutions one by one."""
    narrow = packing.row_width(params.convs()[0].weight.shape[0]) < packing.PANEL
    ends = any(layer[-1].depthwise for block in params.blocks for layer in block)
    return params.depthwise and (narrow or ends or params.int8)


def _pack_cpp(params: MrfParams) -> MrfPacked | apart.Apart:
    return apart.pack(params, "cpp") if _apart_on_cpu(params) else _for_cpu(params, _schemes(params))


def _pack_exact(params: MrfParams) -> MrfPacked | apart.Apart:
    if _apart_on_cpu(params):
        return apart.pack(params, "cpp", exact=True)
    return _for_cpu(params, [None] * len(params.convs()))


def _for_cpu(params: MrfParams, schemes: list[packing.ToomCook | None]) -> MrfPacked:
    first = params.convs()[0]
    half = packing.row_width(first.weight.shape[0]) < packing.PANEL
    pack = packing.pack_conv_halves if half else packing.pack_conv_groups
    packed = _pack(params, schemes, pack)
    packed = packed._replace(bias=packed.bias.float())
    if first.input_range is not None:
        packed = _pack_integers(params, packed, pack)
    if not half:
        return packed
    curves = None if packed.curves is None else packing.half_panels_twice(packed.curves)
    return packed._replace(bias=packing.half_panels_twice(packed.bias), curves=curves)


def _pack_integers(params: MrfParams, packed: MrfPacked, pack: Callable[[Tensor], Tensor]) -> MrfPacked:
    convs = params.convs()
    weights, biases, grids = [], [], []
    for conv in convs:
        if conv.input_range is None:
            raise BackendError("mrf: expected an input range for every convolution or for none")
        grid = packing.ByteGrid.over(conv.input_range)
        weight, step = packing.quantise_weight(conv.weight)
        weights.append(pack(weight.to(torch.int8)).flatten())
        biases.append(packing.pack_integer_bias(conv.bias, weight[None], step, grid))
        grids.append(grid)
    acts = packing.pack_activations([params.act_before(conv) for conv in convs], grids=grids)
    return packed._replace(weight=torch.cat(weights), bias=torch.cat(biases), **acts._asdict())


def _supports_cpp(spec: Spec) -> str | None:
    if _apart_on_cpu(spec.params):
        return apart.supports(spec, "cpp")
    if len({len(layer) for block in spec.params.blocks for layer in block}) != 1:
        return "wants the same number of convolutions in every layer"
    if len(spec.params.blocks) > _MAX_BLOCKS or any(len(b) * len(b[0]) > _MAX_CONVS for b in spec.params.blocks):
        return f"takes up to {_MAX_BLOCKS} blocks of {_MAX_CONVS} convolutions"
    convs = spec.params.convs()
    if len({conv.input_range is None for conv in convs}) != 1:
        return "wants an input range for every convolution or for none"
    if convs[0].input_range is not None:
        return _library.cpu_integer_refusal(spec.dtype, max(conv.weight[0].numel() for conv in convs))
    return floats(spec)


def _pack_plain(params: MrfParams) -> MrfPacked:
    convs = params.convs()
    acts = pack_cuda_activations([params.act_before(c) for c in convs])
    return _pack(params, [None] * len(convs))._replace(**acts._asdict())


def _pack_cuda(params: MrfParams) -> MrfPacked:
    plain = _pack_plain(params)
    if plain.weight.dtype == torch.bfloat16 and HAS_STAGE.op(*plain):
        return pack_stage(params, plain)
    half = plain.weight.dtype in (torch.float16, torch.bfloat16)
    return pack_tiles(params, plain) if half and HAS_TILE.op(*plain) else plain


def pack_tiles(params: MrfParams, plain: MrfPacked) -> MrfPacked:
    """The stage for tensor cores, which take channels padded to a power of two from 16 on; scheme -1 says so."""
    return _for_tensor_cores(params, plain, packing.pack_fragments, _TILES)


def pack_stage(params: MrfParams, plain: MrfPacked) -> MrfPacked:
    """The stage for Hopper's products of warpgroups, with channels as `pack_tiles` pads them; scheme -2 says so."""
    return _for_tensor_cores(params, plain, packing.pack_warpgroups, _STAGE)


def _for_tensor_cores(
    params: MrfParams, plain: MrfPacked, pack: Callable[[Tensor, int, int], Tensor], scheme: int
) -> MrfPacked:
    convs = params.convs()
    width = max(16, 1 << (plain.channels - 1).bit_length())
    return plain._replace(
        weight=torch.cat([pack(c.weight, width, width).flatten() for c in convs]),
        bias=torch.cat([packing.pad_bias(c.bias, plain.channels, c.weight, width) for c in convs]),
        schemes=[scheme] * len(convs),
        **pack_cuda_activations([params.act_before(c) for c in convs], width)._asdict(),
    )


def _supports_cuda(spec: Spec) -> str | None:
    return apart.supports(spec, "cuda") if spec.params.depthwise else _supports_device(spec)


def _supports_device(spec: Spec) -> str | None:
    if len({len(layer) for block in spec.params.blocks for layer in block}) != 1:
        return "wants the same number of convolutions in every layer"
    if any(conv.input_range is not None for conv in spec.params.convs()):
        return "does not multiply whole numbers"
    return None


def _supports_triton(spec: Spec) -> str | None:
    if spec.params.depthwise:
        return apart.supports(spec, "triton")
    if refusal := _supports_device(spec):
        return refusal
    if len({(act.kind, act.slope) for act in map(spec.params.act_before, spec.params.convs())}) != 1:
        return "wants one kind of activation before all convolutions"
    return None


def _fake(p: MrfPacked, x: Tensor, *_: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[1]), dtype=packing.result_type(p.weight)).transpose(1, 2)


def _fake_has(_: MrfPacked) -> bool:
    return False


NATIVE = Native("mrf", MrfPacked, _fake, mrf_ref)
HAS_TILE = Native("mrf_has_tile", MrfPacked, _fake_has)
HAS_STAGE = Native("mrf_has_stage", MrfPacked, _fake_has)


def _stream(params: MrfParams, run: Callable[[MrfConv], Callable[[Tensor], Tensor]]) -> MrfStream:
    def tail(c: MrfConv) -> TailStream:
        mode = "reflect" if params.pad_mode == "reflect" else "zeros"
        return TailStream(Geometry(c.padding + 1, 1, *params.padding(c), mode), c.weight.shape[0], run(c))

    return MrfStream([[[tail(c) for c in layer] for layer in block] for block in params.blocks])


def _stream_ref(params: MrfParams, _: Any) -> MrfStream:
    return _stream(params, lambda conv: lambda rows: _convolved(rows, conv, params))


def _stream_native(params: MrfParams, packed: MrfPacked | apart.Apart) -> NativeMrfStream | MrfStream:
    if isinstance(packed, apart.Apart):
        return apart.stream(params, packed, "cpp")
    return NativeMrfStream([[params.padding(c) for layer in block for c in layer] for block in params.blocks], packed)


def _stream_device(params: MrfParams, run: Callable[..., Tensor], packed: Any, rows: Rows | None) -> MarginStream:
    """On a GPU a margin that is computed again costs less than a tail, and a launch, for every convolution."""
    pads = [[params.padding(c) for layer in block for c in layer] for block in params.blocks]
    reach = [max(sum(pad[side] for pad in block) for block in pads) for side in (0, 1)]
    channels = params.convs()[0].weight.shape[0]
    return MarginStream((reach[0], reach[1]), channels, lambda x: run(x, packed), rows=rows)


def _work(x: Tensor, params: MrfParams, *_: Tensor | None) -> tuple[int, Tensor]:
    return x.shape[0] * x.shape[2] * sum(c.weight.numel() for c in params.convs()), output(x, *x.shape)


OP = mrf = define("mrf", _check, mrf_ref, _work, _stream_ref)
register_cpp(
    OP,
    NATIVE,
    _pack_cpp,
    _supports_cpp,
    stream=_stream_native,
    pack_exact=_pack_exact,
    either=True,
    run=apart.either(NATIVE.run),
    bind=apart.either_bound(NATIVE.bound),
)
register_cuda(OP, apart.either(NATIVE.run), apart.first(_pack_cuda, "cuda"), _supports_cuda, stream=_stream_device)
register_triton(
    OP,
    _supports_triton,
    _stream_device,
    around=lambda run, pack: (apart.either(run), apart.first(pack, "triton")),
)
