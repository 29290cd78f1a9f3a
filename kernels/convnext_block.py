"""convnext_block in three launches: depthwise convolution with its norm, the expansion with GELU, the projection with
the residual; gamma is folded into the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.kernels import conv1d, packing
from fastvoc.kernels.activation import GELU
from fastvoc.kernels.layer_norm import normalize, pack_rows
from fastvoc.runtime import library as _library


@dataclass(frozen=True)
class Packed:
    """A block as `run` takes it; `shape`: channels and hidden channels."""

    taps: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    project: Tensor
    project_bias: Tensor
    table: Tensor
    shape: list[int]
    eps: float


def pack(params: Any) -> Packed:
    """Weights of a ConvNextBlockParams."""
    hidden, channels = params.expand_weight.shape
    project, shift = params.project_weight.detach(), params.project_bias.detach()
    if params.gamma is not None:
        gamma = params.gamma.detach().double()
        project, shift = (gamma[:, None] * project.double()).to(project.dtype), gamma * shift.double()
    depthwise = torch.cat([params.depthwise_weight[:, 0].t(), params.depthwise_bias[None]])
    return Packed(
        pack_rows(depthwise),
        pack_rows(params.norm.weight),
        pack_rows(params.norm.bias),
        packing.pack_taps(params.expand_weight[:, :, None]),
        packing.pack_row(params.expand_bias, hidden, project),
        packing.pack_taps(project[:, :, None]),
        packing.pack_row(shift, channels, project),
        packing.table_row(project, 1, 1, 0, [0, 0]),
        [channels, hidden],
        params.norm.eps,
    )


def run(x: Tensor, p: Packed, row: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """convnext_block of `fastvoc.ops.convnext_block`; row and lengths on the device of x."""
    weights = p.taps, p.norm_weight, p.norm_bias, p.expand, p.expand_bias, p.project, p.project_bias, p.table
    y: Tensor = torch.ops._fastvoc.triton_convnext_block(x, *weights, row, lengths, p.shape, p.eps)
    return y


_library.define(
    "triton_convnext_block(Tensor x, Tensor taps, Tensor norm_weight, Tensor norm_bias, Tensor expand,"
    " Tensor expand_bias, Tensor project, Tensor project_bias, Tensor table, Tensor? row, Tensor? lengths,"
    " int[] shape, float eps) -> Tensor"
)


@torch.library.register_fake("_fastvoc::triton_convnext_block")
def _fake(
    x: Tensor,
    taps: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    project: Tensor,
    project_bias: Tensor,
    table: Tensor,
    row: Tensor | None,
    lengths: Tensor | None,
    shape: list[int],
    eps: float,
) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[1])).transpose(1, 2)


@torch.library.impl("_fastvoc::triton_convnext_block", ("CPU", "CUDA"))
def _convnext_block(
    x: Tensor,
    taps: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    project: Tensor,
    project_bias: Tensor,
    table: Tensor,
    row: Tensor | None,
    lengths: Tensor | None,
    shape: list[int],
    eps: float,
) -> Tensor:
    batch, channels, steps = x.shape
    hidden = shape[1]
    normed = normalize(x, taps, norm_weight, norm_bias, row, lengths, eps)
    inner = x.new_empty((batch, steps, hidden))
    out = x.new_empty((batch, steps, channels))
    whole = {"made": steps, "offset": -1}
    conv1d.convolve(
        normed.transpose(1, 2),
        expand,
        expand_bias,
        expand_bias,
        table,
        lengths,
        inner,
        cin=channels,
        cout=hidden,
        post=(GELU, 0.0),
        **whole,
    )
    conv1d.convolve(
        inner.transpose(1, 2),
        project,
        project_bias,
        project_bias,
        table,
        lengths,
        out,
        cin=hidden,
        cout=channels,
        residual=x,
        **whole,
    )
    return out.transpose(1, 2)
