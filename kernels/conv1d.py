"""conv1d as implicit matrix multiplication: rows are steps, columns output channels, the sum runs over tap and channel.

One kernel serves conv1d, the residual blocks of mrf side by side, and upsample, whose phases are further columns.
Activations are time-major; every tile begins at a multiple of its height from its item's own start.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton.language as tl
from torch import Tensor

from fastvoc.kernels import packing
from fastvoc.kernels.activation import activate_channels, curves_at
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.packing import pad_channels
from fastvoc.kernels.products import accumulate, fitted, precision
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native


@kernel
def conv1d_kernel(
    x,
    weight,
    bias,
    curves,
    table,
    lengths,
    ragged,
    residual,
    prior,
    carry,
    out,
    steps,
    made,
    offset,
    crop,
    mirror,
    x_items,
    x_batch,
    x_channel,
    x_step,
    residual_items,
    residual_batch,
    residual_channel,
    residual_step,
    GROUPS: tl.constexpr,
    SUM: tl.constexpr,
    CIN: tl.constexpr,
    CIN_PAD: tl.constexpr,
    COUT: tl.constexpr,
    COUT_PAD: tl.constexpr,
    PHASES: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD_MODE: tl.constexpr,
    PRE: tl.constexpr,
    PRE_SLOPE: tl.constexpr,
    POST: tl.constexpr,
    POST_SLOPE: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    # Neighbouring programs share their rows: the tile of columns runs fastest.
    COLUMNS: tl.constexpr = (PHASES * COUT + BN - 1) // BN
    tile = tl.program_id(0)
    group = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    n = (tile % COLUMNS) * BN + tl.arange(0, BN)
    i = tl.arange(0, BT)
    row = crop // PHASES + (tile // COLUMNS) * BT
    t = row + i
    length = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    inside = length * PHASES + offset if PHASES > 1 else (length + offset) // STRIDE + 1
    # A tile beyond the item's own steps has nothing to add up.
    busy = (row * PHASES - crop < inside).to(tl.int32)

    # Phases lie side by side in a row, so that a row's columns are contiguous in the output.
    at_step = (t * PHASES - crop)[:, None] + (n // COUT if PHASES > 1 else n * 0)[None, :]
    place = i[:, None] * (PHASES * COUT) + n[None, :]
    within = (at_step >= 0) & (at_step < made) & (n < PHASES * COUT)[None, :]
    valid = within & (at_step < inside)

    acc = tl.zeros([BT, BN], tl.float32)
    for g in range(group, GROUPS if SUM else group + 1):
        row_of = table + g * 8
        taps = tl.load(row_of + 2) * busy
        acc = accumulate(
            acc,
            x + (g * x_items + item) * x_batch,
            weight + tl.multiple_of(tl.load(row_of), 16),
            curves_at(curves, row_of + 5, PRE),
            t * STRIDE - tl.load(row_of + 4),
            n,
            length,
            tl.maximum(length, mirror),
            taps,
            tl.load(row_of + 3),
            x_step,
            x_channel,
            CIN,
            CIN_PAD,
            COUT_PAD,
            PAD_MODE,
            PRE,
            PRE_SLOPE,
            PRECISION,
            BN,
            BK,
        )
        acc += tl.load(bias + tl.multiple_of(tl.load(row_of + 1), 16) + n, mask=n < COUT_PAD, other=0.0)[None, :]
        if residual is not None:
            at = residual + (g * residual_items + item) * residual_batch + row.to(tl.int64) * residual_step
            at = at + i[:, None] * residual_step + n.to(tl.int64)[None, :] * residual_channel
            acc += tl.load(at, mask=valid, other=0.0).to(tl.float32)

    batch = tl.num_programs(2)
    whole = (group * batch + item) * made * COUT + (row.to(tl.int64) * PHASES - crop) * COUT
    if prior is not None:
        acc += tl.load(prior + whole + place, mask=valid, other=0.0)
    if SCALE != 1.0:
        acc = acc * SCALE
    if carry is not None:
        tl.store(carry + whole + place, acc, mask=valid)
    after = curves_at(curves, table + group * 8 + 6, POST)
    acc = activate_channels(acc, after, n, n < COUT, COUT_PAD, POST, POST_SLOPE)
    acc = tl.where(valid, acc, 0.0)
    tl.store(out + whole + place, acc.to(out.dtype.element_ty), mask=within)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    curves: Tensor,
    table: Tensor,
    lengths: Tensor | None,
    out: Tensor,
    *,
    cin: int,
    cout: int,
    made: int,
    offset: int,
    groups: int = 1,
    total: bool = False,
    shared: bool = True,
    phases: int = 1,
    crop: int = 0,
    stride: int = 1,
    pad_mode: int = 0,
    pre: tuple[int, float] = (0, 0.0),
    post: tuple[int, float] = (0, 0.0),
    scale: float = 1.0,
    residual: Tensor | None = None,
    prior: Tensor | None = None,
    carry: Tensor | None = None,
    mirror: int = 0,
) -> None:
    """One launch of the kernel. x and residual: [B, C, T], or [groups * B, C, T] without `shared`; out: time-major.

    Reflection takes an item of fewer than `mirror` steps as one of that many, zeros at its end.
    """
    columns = phases * cout
    config = tuned("conv1d", x.device, x.dtype, cin=cin, cout=columns)
    config = fitted(config, pad_channels(cin), columns)
    batch = x.shape[0] // (1 if shared else groups)
    rows = cdiv(crop % phases + made, phases)
    grid = (cdiv(rows, config["BT"]) * cdiv(columns, config["BN"]), 1 if total else groups, batch)
    launch(
        conv1d_kernel,
        grid,
        config,
        x.device,
        x=x,
        weight=weight,
        bias=bias,
        curves=curves,
        table=table,
        lengths=lengths,
        residual=residual,
        prior=prior,
        carry=carry,
        out=out,
        steps=x.shape[2],
        made=made,
        offset=offset,
        crop=crop,
        mirror=mirror,
        x_items=0 if shared else batch,
        **strides(x, "x"),
        residual_items=0 if residual is None or residual.shape[0] == batch else batch,
        **strides(residual, "residual"),
        GROUPS=groups,
        SUM=total,
        CIN=cin,
        CIN_PAD=pad_channels(cin),
        COUT=cout,
        COUT_PAD=pad_channels(columns),
        PHASES=phases,
        STRIDE=stride,
        PAD_MODE=pad_mode,
        PRE=pre[0],
        PRE_SLOPE=pre[1],
        POST=post[0],
        POST_SLOPE=post[1],
        SCALE=scale,
        PRECISION=precision(x.dtype),
    )


class Packed(NamedTuple):
    """A convolution as `run` takes it."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    table: Tensor
    cout: int
    cin: int
    kernel: int
    stride: int
    dilation: int
    left: int
    right: int
    pad: int
    mirror: int
    kinds: list[int]
    slopes: list[float]

    def unpadded(self) -> Packed:
        """The convolution of rows that have their padding already."""
        table = self.table.clone()
        table[4] = 0
        return self._replace(table=table, left=0, right=0, pad=0, mirror=0)


def pack(params: Any, mirror: int = 0) -> Packed:
    """Weights and table of a Conv1dParams; `mirror` as in `convolve`."""
    cout, cin, kernel = params.weight.shape
    curves, places = packing.pack_curves([params.pre, params.post], params.weight)
    kinds = [packing.kind_and_slope(act) for act in (params.pre, params.post)]
    return Packed(
        packing.pack_taps(params.weight),
        packing.pack_row(params.bias, cout, params.weight),
        curves,
        packing.table_row(params.weight, kernel, params.dilation, params.padding[0], places),
        cout,
        cin,
        kernel,
        params.stride,
        params.dilation,
        *params.padding,
        packing.PAD_MODES.index(params.pad_mode),
        mirror,
        [kind for kind, _ in kinds],
        [slope for _, slope in kinds],
    )


def _output(p: Packed, x: Tensor) -> tuple[Tensor, int]:
    offset = p.left + p.right - p.dilation * (p.kernel - 1) - 1
    return x.new_empty((x.shape[0], (x.shape[2] + offset) // p.stride + 1, p.cout)), offset


def _conv1d(p: Packed, x: Tensor, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """conv1d of `fastvoc.ops.conv1d`; lengths on the device of x."""
    out, offset = _output(p, x)
    convolve(
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
        offset=offset,
        stride=p.stride,
        pad_mode=p.pad,
        pre=(p.kinds[0], p.slopes[0]),
        post=(p.kinds[1], p.slopes[1]),
        residual=residual,
        mirror=p.mirror,
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_conv1d", Packed, lambda p, x, *_: _output(p, x)[0].transpose(1, 2), body=_conv1d)
run = NATIVE.run
