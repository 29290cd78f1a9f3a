"""Pure functions that fold and lay out weights for the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError

PANEL = 16
TILE_STEPS = 128  # outputs of one tile of csrc/cuda/conv_tile.cuh

_KINDS = {"identity": 0, "leaky_relu": 0, "tanh": 1, "elu": 2, "gelu": 3, "snake": 4}  # of csrc/cpu/args.h


class _Activation(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def slope(self) -> float: ...
    @property
    def alpha(self) -> Tensor | None: ...
    @property
    def inverse(self) -> Tensor | None: ...


class NsfSource(NamedTuple):
    """A source as every kernel takes it; `kind` and `drawn` are numbers of its kinds and noises."""

    weight: Tensor
    bias: Tensor
    rate: int
    hop: int
    kind: int
    drawn: int
    amp: float
    noise_std: float
    threshold: float


class Activations(NamedTuple):
    """Activations as the kernels take them: one kind and slope each, and grids.

    `curves` are the snakes', alpha then inverse of each, float32, padded to whole panels.
    """

    kinds: list[int]
    slopes: list[float]
    curves: Tensor | None


def fold_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """w = g * v / ||v||, the norm over all axes but the first, computed in float64 and rounded once to v's dtype.

    Args:
        g: [N, 1, ...] magnitudes; v: [N, ...] directions. N is the output channels of a convolution and the input
            channels of a transposed one (Salimans & Kingma 2016, arXiv 1602.07868).

    Raises:
        ShapeError: g does not hold one value per entry of v's first axis.
    """
    if v.dim() < 2 or g.numel() != v.shape[0] or g.shape[0] != v.shape[0]:
        raise ShapeError(f"weight norm: g {list(g.shape)} does not fit v {list(v.shape)}")
    wide = v.double()
    norm = wide.flatten(1).norm(dim=1)
    factor = g.double().flatten() / norm
    folded: Tensor = wide * factor.reshape(-1, *[1] * (v.dim() - 1))
    return folded.to(v.dtype)


@dataclass(frozen=True)
class ByteGrid:
    """How activations become bytes: a value v is byte clamp(round(v / step) + zero, 0, 255), ties to even.

    The division is a multiplication by `steps`, 1 / step rounded to float32.
    """

    step: float
    steps: float
    zero: int

    @classmethod
    def over(cls, values: Tensor) -> ByteGrid:
        """The grid of 256 values over the range [low, high], widened so that it holds 0. Raises ArgumentError."""
        low, high = values.detach().float().cpu()
        if not bool(torch.isfinite(high - low)) or low > high:
            raise ArgumentError(f"input_range: expected finite values low <= high, got {low.item()}, {high.item()}")
        low, high = low.clamp(max=0), high.clamp(min=0)
        step = (high - low) / 255 if high > low else torch.ones_like(high)
        return cls(step.item(), (1 / step).item(), int((-low / step).round().item()))

    def centred(self, x: Tensor) -> Tensor:
        """The bytes of x less the zero point: whole numbers in x's dtype."""
        return (x * self.steps).round().clamp(-self.zero, 255 - self.zero)


def quantise_weight(weight: Tensor, axis: int = 0) -> tuple[Tensor, Tensor]:
    """Whole numbers in [-127, 127] in the weight's dtype, and the step between them for each output channel.

    `axis` is that of the output channels; the largest weight of each becomes 127 (Krishnamoorthi 2018,
    arXiv 1806.08342).
    """
    weight = weight.detach()
    others = [i for i in range(weight.dim()) if i != axis]
    step = weight.abs().amax(others) / 127
    step = torch.where(step > 0, step, torch.ones_like(step))
    shape = [-1 if i == axis else 1 for i in range(weight.dim())]
    return (weight / step.reshape(shape)).round().clamp(-127, 127), step


def pack_integer_bias(bias: Tensor | None, weight: Tensor, step: Tensor, grid: ByteGrid) -> Tensor:
    """What the kernels need beside whole numbers `weight` [P, C_out, C_in, K], flat float32, padded to whole panels.

    The bias, the step of the sums, and for each of the P convolutions what its sums begin with, -zero times the sum of
    the weights: int32 numbers, bit for bit.
    """
    starts = (-grid.zero * weight.double().sum((2, 3))).to(torch.int32)
    padded = torch.nn.functional.pad(starts, (0, -starts.shape[1] % PANEL)).flatten()
    count = weight.shape[1]
    parts = [pad_bias(bias, count, step), pad_bias(grid.step * step, count, step), padded.view(torch.float32)]
    return torch.cat(parts)


def pack_activations(
    acts: Sequence[_Activation], multiple: int = PANEL, grids: Sequence[ByteGrid | None] = ()
) -> Activations:
    """The activations of an op in the order of its convolutions; identity is a leaky ReLU of slope 1.

    Curves are padded to a multiple of so many channels. Where bytes are made of the results, `grids` says how: `steps`
    and then `zero` of all follow the slopes.
    """
    curves = [pad_bias(t, t.shape[0], t, multiple) for act in acts for t in (act.alpha, act.inverse) if t is not None]
    return Activations(
        [_KINDS[act.kind] for act in acts],
        [act.slope if act.kind == "leaky_relu" else 1.0 for act in acts]
        + [1.0 if grid is None else grid.steps for grid in grids]
        + [0.0 if grid is None else float(grid.zero) for grid in grids],
        torch.cat(curves).float() if curves else None,
    )


def result_type(weight: Tensor) -> torch.dtype:
    """Type of what a kernel makes with packed weights: theirs, float32 where they are whole numbers."""
    return weight.dtype if weight.is_floating_point() else torch.float32


def pad_bias(bias: Tensor | None, channels: int, like: Tensor, multiple: int = PANEL) -> Tensor:
    """Bias [C] or None -> [C rounded up to the panel], zeros beyond C, on the device and in the dtype of `like`."""
    padded = like.new_zeros(-(-channels // multiple) * multiple)
    if bias is not None:
        padded[:channels] = bias.detach()
    return padded


def pack_conv(weight: Tensor) -> Tensor:
    """Convolution weight [C_out, C_in, K] -> panels [ceil(C_out / 16), K, C_in, 16], zeros beyond C_out."""
    cout, cin, kernel = weight.shape
    panels = -(-cout // PANEL)
    padded = weight.new_zeros((panels * PANEL, cin, kernel))
    padded[:cout] = weight.detach()
    return padded.reshape(panels, PANEL, cin, kernel).permute(0, 3, 2, 1).contiguous()


def pack_depthwise(weight: Tensor) -> Tensor:
    """Depthwise weight [C, 1, K] -> [K, C padded to whole panels]."""
    return torch.nn.functional.pad(weight.detach()[:, 0].t(), (0, -weight.shape[0] % PANEL)).contiguous()


_GROUPS = {torch.bfloat16: 2, torch.int8: 4}


def pack_conv_groups(weight: Tensor) -> Tensor:
    """`pack_conv` with the n input channels that one multiplication on the CPU takes side by side.

    Panels [ceil(C_out / 16), K, ceil(C_in / n), 16, n], n = 2 for bfloat16, 4 for int8 and 1 for floats.
    """
    n = _GROUPS.get(weight.dtype, 1)
    panels = pack_conv(torch.nn.functional.pad(weight, (0, 0, 0, -weight.shape[1] % n)))
    count, kernel, cin, _ = panels.shape
    return panels.reshape(count, kernel, cin // n, n, PANEL).transpose(3, 4).contiguous()


def pack_pairs(weight: Tensor) -> Tensor:
    """Linear weight [C_out, C_in] -> `pack_conv_groups` in pairs of panels, flat: in the order of its use.

    Pairs [C_in / n, 2, 16, n] one after the other, then a last panel [C_in / n, 16, n] without a neighbour.
    """
    panels = pack_conv_groups(weight[:, :, None])[:, 0]
    pairs = panels[: len(panels) // 2 * 2].unflatten(0, (-1, 2)).transpose(1, 2)
    return torch.cat([pairs.flatten(), panels[len(panels) // 2 * 2 :].flatten()])


def pack_trios(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Linear weight [C_out, C_in] -> words, flat int32, and scale [C_out rounded up to the panel].

    The layout is csrc/cpu/trio_args.h's. Weights become integers of 21 or 22 bits times their output's scale: off by
    1e-6 of their mean magnitude where they are normally distributed. None where it would be more than `TRIO_ERROR`,
    because a few are far above the others.
    """
    cout, cin = weight.shape
    whole = weight.detach().float()
    scale = whole.abs().amax(1).clamp(min=1e-30) / (2**31 - 2**13)
    step = scale.double() * 2**11
    if not (step.square().mean() / 12).sqrt() < TRIO_ERROR * whole.abs().mean(dtype=torch.float64):
        return None
    groups, panels = -(-cin // 3), 2 * -(-cout // (2 * PANEL))
    units = torch.nn.functional.pad(whole / scale[:, None], (0, 3 * groups - cin, 0, panels * PANEL - cout))
    first, second, third = units.unflatten(1, (groups, 3)).unbind(2)
    between = (second / 2**10).round().clamp(-(2**21), 2**21 - 1).to(torch.int32)
    words = []
    for units, rest in ((first, (between >> 11) & 2047), (third, between & 2047)):
        words.append((((units - rest) / 2**11).round().to(torch.int32) << 11) | rest)
    by_lane = torch.stack(words).unflatten(1, (-1, 2, PANEL))  # [2 words, pairs, 2 panels, 16, groups]
    return by_lane.permute(1, 4, 2, 0, 3).flatten(), pad_bias(scale, cout, scale)


# Float32 sums of a few hundred products are off by as much.
TRIO_ERROR = 4e-6


def pack_conv_window(weight: Tensor) -> Tensor:
    """Convolution weight [1, C_in, K] -> [K, C_in], flat, zeros up to 16 groups as `pack_conv_groups`."""
    flat = weight.detach()[0].T.reshape(-1)
    return torch.nn.functional.pad(flat, (0, -flat.numel() % (PANEL * _GROUPS.get(weight.dtype, 1))))


def row_width(channels: int) -> int:
    """Elements of a row inside the CPU's residual stages: half a panel, or whole panels."""
    return PANEL // 2 if channels <= PANEL // 2 else -(-channels // PANEL) * PANEL


def pack_conv_halves(weight: Tensor) -> Tensor:
    """Convolution weight [C_out, C_in, K] of up to 8 channels -> [K, 4 / n, 8 outputs, 2, n], zeros beyond.

    Half h of an output multiplies the h-th of every two groups of n input channels; n as in `pack_conv_groups`.
    """
    n, width = _GROUPS.get(weight.dtype, 1), PANEL // 2
    padded = weight.new_zeros((width, width, weight.shape[2]))
    padded[: weight.shape[0], : weight.shape[1]] = weight.detach()
    return padded.reshape(width, width // (2 * n), 2, n, weight.shape[2]).permute(4, 1, 0, 2, 3).contiguous()


def half_panels_twice(panels: Tensor) -> Tensor:
    """Panels, flat, with the first half of each in place of its second."""
    return panels.reshape(-1, PANEL)[:, : PANEL // 2].repeat(1, 2).flatten()


def pack_fragments(weight: Tensor, cin: int, cout: int) -> Tensor:
    """Convolution weight [C_out, C_in, K] -> tiles [K, cin / 16, cout / 16, 32 lanes, 8] for 16-bit tensor cores.

    `cin` and `cout` are the channels with their padding by zeros, multiples of 16. Of a tile of 16 inputs and 16
    outputs lane l holds the inputs 2 (l % 4) + {0, 1, 8, 9} of output l / 4, then those of output l / 4 + 8: the second
    operand of two `mma.m16n8k16`.
    """
    padded = weight.new_zeros((cout, cin, weight.shape[2]))
    padded[: weight.shape[0], : weight.shape[1]] = weight.detach()
    # Outputs: tile, half, lane; inputs: tile, half, lane, pair.
    tiles = padded.reshape(cout // 16, 2, 8, cin // 16, 2, 4, 2, weight.shape[2])
    return tiles.permute(7, 3, 0, 2, 5, 1, 4, 6).reshape(weight.shape[2], cin // 16, cout // 16, 32, 8).contiguous()


def pack_warpgroups(weight: Tensor, cin: int, cout: int) -> Tensor:
    """Convolution weight [C_out, C_in, K] -> [K, cin / 16, cout / 8, 2, 8 outputs, 8 inputs] for warpgroups' products.

    `cin` and `cout` as for `pack_fragments`. Of 16 inputs the first 8 come before the others, eight outputs at a time.
    """
    padded = weight.new_zeros((cout, cin, weight.shape[2]))
    padded[: weight.shape[0], : weight.shape[1]] = weight.detach()
    return padded.reshape(cout // 8, 8, cin // 16, 2, 8, weight.shape[2]).permute(5, 2, 0, 3, 1, 4).contiguous()


def pack_conv_tiles(weight: Tensor, beside: Tensor | None = None) -> Tensor:
    """Convolution weight [C_out, C_in, K] -> `pack_fragments` of 64 outputs and 32 inputs at a time, all taps of each.

    [ceil(C_out / 64), ceil(C_in / 32), K, 2, 4, 256], zeros beyond the channels; the blocks of 32 further inputs that
    have the weight `beside` follow those of the others.
    """
    if beside is not None:
        return torch.cat([pack_conv_tiles(weight), pack_conv_tiles(beside)], 1)
    cout, cin, kernel = weight.shape
    columns, inputs = -(-cout // 64), -(-cin // 32)
    tiles = pack_fragments(weight, inputs * 32, columns * 64).reshape(kernel, inputs, 2, columns, 4, 256)
    return tiles.permute(3, 1, 0, 2, 4, 5).contiguous()


def pack_upsample_tiles(weight: Tensor, stride: int) -> Tensor:
    """Transposed-convolution weight [C_in, C_out, K] -> `pack_conv_tiles` of one convolution that makes all phases.

    Its outputs are the phases' channels, each padded to whole panels; tap i reads the input of i taps after the oldest.
    """
    cin, cout, kernel = weight.shape
    taps, width = -(-kernel // stride), -(-cout // PANEL) * PANEL
    padded = weight.new_zeros((cin, cout, taps * stride))
    padded[:, :, :kernel] = weight.detach()
    phases = weight.new_zeros((stride, width, cin, taps))
    phases[:, :cout] = padded.reshape(cin, cout, taps, stride).flip(2).permute(3, 1, 0, 2)
    return pack_conv_tiles(phases.flatten(0, 1))


@dataclass(frozen=True)
class ToomCook:
    """A Toom-Cook scheme: `tile` outputs of `group` taps from one product at each of `points`, and one at infinity.

    Groups as long as the tile, one after the other, make longer kernels: a shift by a group is a shift by a tile.
    """

    code: int  # of csrc/cpu/toom_cook_args.h
    tile: int
    group: int
    points: tuple[float, ...]

    def products(self, kernel: int) -> float:
        """Of a kernel's taps, for each output."""
        groups = -(-kernel // self.group)
        return (len(self.points) * groups + kernel // self.group) / self.tile


_TOOM_COOK = {
    3: ToomCook(1, 6, 3, (0, 1, -1, 2, -2, 0.5, -0.5)),
    5: ToomCook(2, 4, 5, (0, 1, -1, 2, -2, 0.5, -0.5)),
    0: ToomCook(3, 4, 4, (0, 1, -1, 2, -2, 0.5)),
}
_SHORT_TILE = ToomCook(4, 3, 3, (0, 1, -1, 2))
Tile = Literal["long", "short", "none"]
TILES: tuple[Tile, ...] = ("long", "short", "none")


def toom_cook(
    kernel: int, channels: int, dtype: torch.dtype = torch.float32, *, smooth: bool = True, longest: Tile = "long"
) -> ToomCook | None:
    """The scheme for a kernel, None where direct convolution measured faster: short kernels, half panels.

    In bfloat16, whose rounding after the transforms grows with the tile, the longer tile must save clearly more, the
    input must be `smooth`, which after a Snake it is not, and no tile is longer than `longest`.
    """
    if channels <= PANEL // 2:
        return None
    if dtype is torch.bfloat16:
        if longest == "none" or channels <= PANEL or kernel <= (2 if channels > 2 * PANEL else 3):
            return None
        long = _TOOM_COOK[5 if kernel == 5 else 0]
        return (
            long
            if longest == "long" and smooth and long.products(kernel) < 0.85 * _SHORT_TILE.products(kernel)
            else _SHORT_TILE
        )
    return _TOOM_COOK.get(kernel, _TOOM_COOK[0] if kernel > 5 else None)


def pack_toom_cook(weight: Tensor, scheme: ToomCook) -> Tensor:
    """Convolution weight [C_out, C_in, K] -> one convolution over groups of taps per point, as `pack_conv`, flat.

    The weight of group g at point a is sum_j w[group * g + j] a^j / prod(a - b) over the other points b; at infinity it
    is the group's last tap, and a last group without one is left out there. Computed in float64 and rounded once; in
    bfloat16 laid out as by `pack_conv_groups` (Winograd 1980; Lavin & Gray 2015, arXiv 1509.09308).
    """
    cout, cin, kernel = weight.shape
    groups = -(-kernel // scheme.group)
    taps = weight.new_zeros((cout, cin, groups * scheme.group), dtype=torch.float64)
    taps[:, :, :kernel] = weight.detach()
    taps = taps.unflatten(2, (groups, scheme.group))
    powers = torch.arange(scheme.group, dtype=torch.float64, device=weight.device)
    parts = []
    for a in scheme.points:
        scale = math.prod(a - b for b in scheme.points if b != a)
        row = torch.tensor(a, dtype=torch.float64, device=weight.device) ** powers / scale
        parts.append(taps @ row)
    parts.append(taps[:, :, : kernel // scheme.group, -1])
    pack = pack_conv_groups if weight.dtype is torch.bfloat16 else pack_conv
    return torch.cat([pack(part.to(weight.dtype)).flatten() for part in parts])


def pack_upsample(weight: Tensor, stride: int, pack: Callable[[Tensor], Tensor] = pack_conv) -> Tensor:
    """Transposed-convolution weight [C_in, C_out, K] -> one convolution per output phase, one after the other, flat.

    Phase p of `stride` holds the taps p, p + stride, ... in the layout that `pack` makes; output step q * stride + p of
    the full result is the sum over its taps j of x[q - j] times tap j.
    """
    phases = [weight[:, :, p::stride].transpose(0, 1) for p in range(stride)]
    return torch.cat([pack(phase).flatten() for phase in phases])


def pack_upsample_merged(weight: Tensor, stride: int) -> Tensor:
    """Transposed-convolution weight [C_in, C_out, K], K a multiple of the stride -> panels of one to all phases.

    Its output channel p * C_out + c is channel c of phase p; taps and layout are those of `pack_upsample` with
    `pack_conv_groups`.
    """
    phases = weight.unflatten(2, (-1, stride)).permute(3, 1, 0, 2).flatten(0, 1)
    return pack_conv_groups(phases)


LEAST_PAIRED = 64  # inputs of a tap: with fewer, putting the sums together takes as long as what is not multiplied


def pack_paired(panels: Tensor) -> Tensor:
    """Panels [n, K, ...] of weights of two taps, K / 2 of the kernel each -> the same and the sums of both taps, flat.

    With them the CPU takes two steps by three products in the place of four (csrc/cpu/paired.h).
    """
    earlier, later = panels.chunk(2, 1)
    return torch.cat([panels.flatten(), (earlier + later).flatten()])


def pack_lstm(weight: Tensor) -> Tensor:
    """LSTM weight [4H, inputs] -> blocks of 16 units [ceil(H / 16), inputs / n, 4 gates, 16, n], zeros beyond.

    A multiplication takes n inputs: 2 in bfloat16, else 1.
    """
    units, inputs = weight.shape[0] // 4, weight.shape[1]
    blocks = -(-units // PANEL)
    n = 2 if weight.dtype is torch.bfloat16 else 1
    steps = -(-inputs // n)
    padded = weight.new_zeros((4, blocks * PANEL, steps * n))
    padded[:, :units, :inputs] = weight.detach().reshape(4, units, inputs)
    return padded.reshape(4, blocks, PANEL, steps, n).permute(1, 3, 0, 2, 4).contiguous()


def fft_radices(size: int) -> list[int] | None:
    """The passes by which the kernels transform `size` real numbers; None unless it is 2^(a + 1) 3^b 5^c."""
    radices, points = [], size // 2
    for radix in (8, 5, 4, 3, 2):
        while points % radix == 0:
            radices.append(radix)
            points //= radix
    return None if size % 2 or points != 1 else radices


def pack_real_fft(size: int) -> tuple[list[int], Tensor]:
    """Passes and factors of a real transform, flat pairs (cos, sin), rounded once from float64.

    First those of 2 pi k / size for k up to size / 4, which split a complex transform of half the size; then for each
    pass of radix r over n points those of 2 pi p k / n, for p = 1..n / r - 1 and k = 1..r - 1.
    """
    radices = fft_radices(size)
    if radices is None:
        raise ShapeError(f"transform: {size} is not twice a product of 2, 3 and 5")
    turns = [torch.arange(size // 4 + 1, dtype=torch.float64, device="cpu") / size]
    points = size // 2
    for radix in radices:
        p, k = torch.arange(1, points // radix, device="cpu"), torch.arange(1, radix, device="cpu")
        turns.append((p[:, None] * k % points).double().flatten() / points)
        points //= radix
    angle = 2 * torch.pi * torch.cat(turns)
    return radices, torch.stack([angle.cos(), angle.sin()], 1).flatten().float()
