"""Weights, biases, curves and tables as the kernels read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc.kernels.activation import KINDS
from fastvoc.kernels.launch import cdiv

PAD_MODES = ("zeros", "reflect", "replicate")


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


def table_row(like: Tensor, taps: int, dilation: int, left: int, places: list[int]) -> Tensor:
    """The table of a single group.

    A row says where the group's weight and bias begin, its taps, dilation and padding, where the curves before and
    behind it begin, and what lies between a curve's two halves where that is no width of the layer.
    """
    return torch.tensor([0, 0, taps, dilation, left, *places, 0], dtype=torch.int32, device=like.device)
