"""upsample: every phase of the transposed convolution at once, as further columns of one convolution over steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from fastvoc.kernels import conv1d, packing
from fastvoc.runtime.native import Native


class Packed(NamedTuple):
    """A transposed convolution as `run` takes it."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    table: Tensor
    cout: int
    cin: int
    kernel: int
    stride: int
    left: int  # the crop
    right: int
    kind: int
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
        cout,
        cin,
        kernel,
        params.stride,
        *params.crop,
        kind,
        slope,
    )


def _output(p: Packed, x: Tensor) -> tuple[Tensor, int]:
    offset = p.kernel - p.stride - p.left - p.right
    return x.new_empty((x.shape[0], x.shape[2] * p.stride + offset, p.cout)), offset


def _upsample(p: Packed, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """upsample of `fastvoc.ops.upsample`; lengths on the device of x."""
    out, offset = _output(p, x)
    conv1d.convolve(
        x,
        p.weight,
        p.bias,
        p.curves,
        p.table,
        lengths,
        out,
        cin=p.cin,
        cout=p.cout,
        made=out.shape[1],
        offset=offset - (p.stride == 1),  # one phase is an ordinary convolution
        phases=p.stride,
        crop=p.left,
        pre=(p.kind, p.slope),
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_upsample", Packed, lambda p, x, *_: _output(p, x)[0].transpose(1, 2), body=_upsample)
run = NATIVE.run
