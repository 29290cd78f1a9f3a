"""Reflect padding of signals that are too short for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.nn.conv import Conv1d


def conv_short(conv: Conv1d, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
    """A convolution of items of any length >= 1: [B, in, T] -> [B, out, T_out].

    Reflection reads max(padding) steps beyond the edge; an item with no more steps than that is first extended by
    zeros, and the output is cut to its own length, as EnCodec does (github.com/facebookresearch/encodec,
    modules/conv.py).
    """
    params = conv.params()
    need = max(params.padding) + 1 if params.pad_mode == "reflect" else 1
    steps = x.shape[2]
    if (steps if lengths is None else int(lengths.min())) >= need:
        y: Tensor = conv(x, lengths, backend)
        return y
    longer = F.pad(x, (0, max(0, need - steps)))
    if lengths is None:
        y = conv(longer, None, backend)
        return y[:, :, : params.output_length(steps)]

    def beyond(total: int, valid: Tensor) -> Tensor:
        return (torch.arange(total) >= valid[:, None])[:, None].to(x.device)

    longer = longer.masked_fill(beyond(longer.shape[2], lengths), 0)
    y = conv(longer, lengths.clamp(min=need), backend)[:, :, : params.output_length(steps)]
    valid = conv.output_lengths(lengths)
    return y if valid is None else y.masked_fill(beyond(y.shape[2], valid), 0)
