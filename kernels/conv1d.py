"""conv1d as implicit matrix multiplication: rows are steps, columns output channels, the sum runs over tap and channel.

One kernel serves conv1d, the residual blocks of mrf side by side, and upsample, whose phases are further columns.
Activations are time-major; every tile begins at a multiple of its height from its item's own start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc import _library
from fastvoc.kernels.activation import KINDS, activate
from fastvoc.kernels.launch import cdiv, interpreting, launch, strides
from fastvoc.kernels.tuned import tuned

PAD_MODES = ("zeros", "reflect", "replicate")
FIELDS = 8  # of a row of the table: where a group's weight, bias and curves begin, its taps, dilation and padding


@triton.jit
def source_rows(row, length, mirror, PAD_MODE: tl.constexpr):
    """The steps that padded rows read, and which of them hold a value; reflection is at step `mirror` - 1."""
    if PAD_MODE == 1:
        row = tl.where(row < 0, -row, row)
        row = tl.where(row >= mirror, 2 * (mirror - 1) - row, row)
    if PAD_MODE == 2:
        row = tl.minimum(tl.maximum(row, 0), length - 1)
    return row, (row >= 0) & (row < length)


@triton.jit
def multiply(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in float32."""
    if PRECISION == "widened":
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def accumulate(
    acc,
    x,
    weight,
    curves,
    row,
    n,
    length,
    mirror,
    taps,
    dilation,
    x_step,
    x_channel,
    CIN: tl.constexpr,
    CIN_PAD: tl.constexpr,
    COUT_PAD: tl.constexpr,
    PAD_MODE: tl.constexpr,
    PRE: tl.constexpr,
    PRE_SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """acc [BT, BN] plus the taps' products; `row` [BT] is what the first tap reads, before padding."""
    CHUNKS: tl.constexpr = CIN_PAD // BK
    k = tl.arange(0, BK)
    # With zeros beside the signal every tap reads the same tile, shifted: its addresses are worked out once.
    tile = x + row.to(tl.int64)[:, None] * x_step + k.to(tl.int64)[None, :] * x_channel
    taps_of = weight + k[:, None] * COUT_PAD + n[None, :]
    for i in range(taps * CHUNKS):
        first = (i % CHUNKS) * BK
        shift = (i // CHUNKS) * dilation
        if PAD_MODE == 0:
            valid = ((row + shift).to(tl.uint32, bitcast=True) < length.to(tl.uint32, bitcast=True))[:, None]
            at = tile + (shift.to(tl.int64) * x_step + first.to(tl.int64) * x_channel)
        else:
            r, inside = source_rows(row + shift, length, mirror, PAD_MODE)
            valid = inside[:, None]
            at = x + r.to(tl.int64)[:, None] * x_step + (first + k).to(tl.int64)[None, :] * x_channel
        if CIN != CIN_PAD:
            valid = valid & (first + k < CIN)[None, :]
        a = tl.load(at, mask=valid, other=0.0)
        if PRE != 0:
            alpha = 0.0
            inverse = 0.0
            if PRE == 5:
                alpha = tl.load(curves + first + k)[None, :]
                inverse = tl.load(curves + CIN_PAD + first + k)[None, :]
            a = activate(a.to(tl.float32), alpha, inverse, PRE, PRE_SLOPE).to(x.dtype.element_ty)
        at = taps_of + i * (BK * COUT_PAD)
        b = tl.load(at) if COUT_PAD % BN == 0 else tl.load(at, mask=n[None, :] < COUT_PAD, other=0.0)
        acc = multiply(a, b, acc, PRECISION)
    return acc


@triton.jit(do_not_specialize=["steps", "mirror"])
def conv1d_kernel(
    x,
    weight,
    bias,
    curves,
    table,
    lengths,
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
    length = (tl.load(lengths + item) if lengths is not None else steps.to(tl.int64)).to(tl.int32)
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
            curves + tl.multiple_of(tl.load(row_of + 5), 16) if PRE == 5 else curves,
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
    if POST != 0:
        alpha = 0.0
        inverse = 0.0
        if POST == 5:
            after = curves + tl.multiple_of(tl.load(table + group * 8 + 6), 16)
            alpha = tl.load(after + n, mask=n < COUT, other=0.0)[None, :]
            inverse = tl.load(after + COUT_PAD + n, mask=n < COUT, other=0.0)[None, :]
        acc = activate(acc, alpha, inverse, POST, POST_SLOPE)
    acc = tl.where(valid, acc, 0.0)
    tl.store(out + whole + place, acc.to(out.dtype.element_ty), mask=within)


def pad_channels(count: int) -> int:
    """Channels of a packed weight: what a tile of products takes at a time."""
    for width in (16, 32, 64):
        if count <= width:
            return width
    return cdiv(count, 32) * 32


def pack_taps(weight: Tensor) -> Tensor:
    """Convolution weight [C_out, C_in, K] -> [K, C_in padded, C_out padded], zeros beyond, flat."""
    cout, cin, kernel = weight.shape
    packed = weight.new_zeros((kernel, pad_channels(cin), pad_channels(cout)))
    packed[:, :cin, :cout] = weight.detach().permute(2, 1, 0)
    return packed.flatten()


def pack_phases(weight: Tensor, stride: int) -> Tensor:
    """Transposed-convolution weight [C_in, C_out, K] -> the weight of a convolution over steps, [s * C_out, C_in, J].

    Its output channel p * C_out + c is channel c of phase p, its tap i reads J - 1 - i steps back.
    """
    kernel = weight.shape[2]
    taps = cdiv(kernel, stride)
    padded = torch.nn.functional.pad(weight.detach(), (0, taps * stride - kernel))
    return padded.unflatten(2, (taps, stride)).flip(2).permute(3, 1, 0, 2).flatten(0, 1)


def pack_row(row: Tensor | None, count: int, like: Tensor) -> Tensor:
    """[C] or None -> float32 [C padded], zeros beyond."""
    padded = like.new_zeros(pad_channels(count), dtype=torch.float32)
    if row is not None:
        padded[:count] = row.detach()
    return padded


def pack_curves(acts: list[Any], like: Tensor) -> tuple[Tensor, list[int]]:
    """alpha and inverse of every snake, one after the other, and where those of each activation begin."""
    rows: list[Tensor] = [like.new_zeros(16, dtype=torch.float32)]
    places = []
    for act in acts:
        places.append(sum(len(row) for row in rows))
        rows += [pack_row(t, len(t), like) for t in (act.alpha, act.inverse) if t is not None]
    return torch.cat(rows), places


def kind_and_slope(act: Any) -> tuple[int, float]:
    """An activation as the kernels take it."""
    return KINDS.index(act.kind), float(act.slope)


def precision(dtype: torch.dtype) -> str:
    """How numbers are multiplied: float32 as IEEE says, never rounded to TF32.

    The interpreter multiplies no bfloat16; widened to float32 the products are the same.
    """
    return "widened" if interpreting() and dtype is torch.bfloat16 else "ieee"


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
    x_strides = strides(x, "x")
    added = {"residual_batch": 0, "residual_channel": 0, "residual_step": 0}
    if residual is not None:
        added = strides(residual, "residual")
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
        **x_strides,
        residual_items=0 if residual is None or residual.shape[0] == batch else batch,
        **added,
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


def fitted(config: dict[str, int], cin_pad: int, columns: int) -> dict[str, int]:
    """Block sizes cut to the layer: BK divides the padded input channels, BN is no wider than the columns."""
    bk = min(config["BK"], cin_pad & -cin_pad)  # the largest power of 2 that divides it
    bn = min(config["BN"], max(16, triton.next_power_of_2(columns)))
    return {**config, "BK": bk, "BN": bn}


@dataclass(frozen=True)
class Packed:
    """A convolution as `run` takes it; `shape`: C_out, C_in, K, stride, dilation, left, right, the pad mode and
    the mirror."""

    weight: Tensor
    bias: Tensor
    curves: Tensor
    table: Tensor
    shape: list[int]
    acts: list[int]
    slopes: list[float]


def pack(params: Any, mirror: int = 0) -> Packed:
    """Weights and table of a Conv1dParams; `mirror` as in `convolve`."""
    cout, cin, kernel = params.weight.shape
    curves, places = pack_curves([params.pre, params.post], params.weight)
    kinds = [kind_and_slope(act) for act in (params.pre, params.post)]
    return Packed(
        pack_taps(params.weight),
        pack_row(params.bias, cout, params.weight),
        curves,
        table_row(params.weight, kernel, params.dilation, params.padding[0], places),
        [cout, cin, kernel, params.stride, params.dilation, *params.padding, PAD_MODES.index(params.pad_mode), mirror],
        [kind for kind, _ in kinds],
        [slope for _, slope in kinds],
    )


def table_row(like: Tensor, taps: int, dilation: int, left: int, places: list[int]) -> Tensor:
    """The table of a single group."""
    return torch.tensor([0, 0, taps, dilation, left, *places, 0], dtype=torch.int32, device=like.device)


def run(x: Tensor, p: Packed, residual: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """conv1d of `fastvoc.ops.conv1d`; lengths on the device of x."""
    y: Tensor = torch.ops._fastvoc.triton_conv1d(
        x, p.weight, p.bias, p.curves, p.table, residual, lengths, p.shape, p.acts, p.slopes
    )
    return y


_library.define(
    "triton_conv1d(Tensor x, Tensor weight, Tensor bias, Tensor curves, Tensor table, Tensor? residual,"
    " Tensor? lengths, int[] shape, int[] acts, float[] slopes) -> Tensor"
)


def _output(x: Tensor, shape: list[int]) -> tuple[Tensor, int]:
    cout, _, kernel, stride, dilation, left, right = shape[:7]
    offset = left + right - dilation * (kernel - 1) - 1
    return x.new_empty((x.shape[0], (x.shape[2] + offset) // stride + 1, cout)), offset


@torch.library.register_fake("_fastvoc::triton_conv1d")
def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    curves: Tensor,
    table: Tensor,
    residual: Tensor | None,
    lengths: Tensor | None,
    shape: list[int],
    acts: list[int],
    slopes: list[float],
) -> Tensor:
    return _output(x, shape)[0].transpose(1, 2)


@torch.library.impl("_fastvoc::triton_conv1d", ("CPU", "CUDA"))
def _conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    curves: Tensor,
    table: Tensor,
    residual: Tensor | None,
    lengths: Tensor | None,
    shape: list[int],
    acts: list[int],
    slopes: list[float],
) -> Tensor:
    out, offset = _output(x, shape)
    convolve(
        x,
        weight,
        bias,
        curves,
        table,
        lengths,
        out,
        cin=shape[1],
        cout=shape[0],
        made=out.shape[1],
        offset=offset,
        stride=shape[3],
        pad_mode=shape[7],
        pre=(acts[0], slopes[0]),
        post=(acts[1], slopes[1]),
        residual=residual,
        mirror=shape[8],
    )
    return out.transpose(1, 2)
