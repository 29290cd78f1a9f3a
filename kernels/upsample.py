"""upsample: every phase of the transposed convolution at once, as further columns of one convolution over steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.kernels import conv1d, packing
from fastvoc.runtime import library as _library


@dataclass(frozen=True)
class Packed:
    """A transposed convolution as `run` takes it; `shape`: C_out, C_in, K, stride, left and right crop."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    table: Tensor
    shape: list[int]
    act: int
    slope: float


def pack(params: Any) -> Packed:
    """Weights and table of an UpsampleParams."""
    cin, cout, kernel = params.weight.shape
    weight = packing.pack_phases(params.weight, params.stride)
    bias = None if params.bias is None else params.bias.detach().repeat(params.stride)
    curves, places = packing.pack_curves([params.pre], params.weight)
    kind, slope = packing.kind_and_slope(params.pre)
    taps = weight.shape[2]
    return Packed(
        packing.pack_taps(weight),
        packing.pack_row(bias, cout * params.stride, params.weight),
        curves,
        packing.table_row(params.weight, taps, 1, taps - 1, [*places, 0]),
        [cout, cin, kernel, params.stride, *params.crop],
        kind,
        slope,
    )


def run(x: Tensor, p: Packed, lengths: Tensor | None = None) -> Tensor:
    """upsample of `fastvoc.ops.upsample`; lengths on the device of x."""
    y: Tensor = torch.ops._fastvoc.triton_upsample(
        x, p.weight, p.bias, p.curves, p.table, lengths, p.shape, p.act, p.slope
    )
    return y


_library.define(
    "triton_upsample(Tensor x, Tensor weight, Tensor bias, Tensor curves, Tensor table, Tensor? lengths, int[] shape,"
    " int act, float slope) -> Tensor"
)


def _output(x: Tensor, shape: list[int]) -> tuple[Tensor, int]:
    cout, _, kernel, stride, left, right = shape
    offset = kernel - stride - left - right
    return x.new_empty((x.shape[0], x.shape[2] * stride + offset, cout)), offset


@torch.library.register_fake("_fastvoc::triton_upsample")
def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    curves: Tensor,
    table: Tensor,
    lengths: Tensor | None,
    shape: list[int],
    act: int,
    slope: float,
) -> Tensor:
    return _output(x, shape)[0].transpose(1, 2)


@torch.library.impl("_fastvoc::triton_upsample", ("CPU", "CUDA"))
def _upsample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    curves: Tensor,
    table: Tensor,
    lengths: Tensor | None,
    shape: list[int],
    act: int,
    slope: float,
) -> Tensor:
    out, offset = _output(x, shape)
    cout, cin, _, stride, left, _ = shape
    conv1d.convolve(
        x,
        weight,
        bias,
        curves,
        table,
        lengths,
        out,
        cin=cin,
        cout=cout,
        made=out.shape[1],
        offset=offset - (stride == 1),  # one phase is an ordinary convolution
        phases=stride,
        crop=left,
        pre=(act, slope),
    )
    return out.transpose(1, 2)
