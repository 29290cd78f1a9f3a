"""convnext_block in three launches: depthwise convolution with its norm, the expansion with GELU, the projection with
the residual; gamma is folded into the projection."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.kernels import conv1d, packing
from fastvoc.kernels.activation import GELU
from fastvoc.kernels.layer_norm import normalize, pack_rows
from fastvoc.runtime.native import Native, like_rows


class Packed(NamedTuple):
    """A block as `run` takes it."""

    taps: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    project: Tensor
    project_bias: Tensor
    table: Tensor
    hidden: int
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
        hidden,
        params.norm.eps,
    )


def _convnext_block(p: Packed, x: Tensor, row: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """convnext_block of `fastvoc.ops.convnext_block`; row and lengths on the device of x."""
    batch, channels, steps = x.shape
    hidden = p.hidden
    normed = normalize(x, p.taps, p.norm_weight, p.norm_bias, row, lengths, p.eps)
    inner = x.new_empty((batch, steps, hidden))
    out = x.new_empty((batch, steps, channels))
    whole = {"made": steps, "offset": -1}
    conv1d.convolve(
        normed.transpose(1, 2),
        p.expand,
        p.expand_bias,
        p.expand_bias,
        p.table,
        lengths,
        inner,
        cin=channels,
        cout=hidden,
        post=(GELU, 0.0),
        **whole,
    )
    conv1d.convolve(
        inner.transpose(1, 2),
        p.project,
        p.project_bias,
        p.project_bias,
        p.table,
        lengths,
        out,
        cin=hidden,
        cout=channels,
        residual=x,
        **whole,
    )
    return out.transpose(1, 2)


NATIVE = Native("triton_convnext_block", Packed, like_rows, body=_convnext_block)
run = NATIVE.run
