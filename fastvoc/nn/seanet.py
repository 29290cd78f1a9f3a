"""SEANet's layers (Tagliasacchi et al. 2020, arXiv 2009.02095) with EnCodec's padding and normalisation.

The rules of padding are those of github.com/facebookresearch/encodec, `modules/conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.group_norm import GroupNormAct
from fastvoc.nn.layer import Layer, Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.upsample import Upsample
from fastvoc.ops import conv1d as conv_op
from fastvoc.ops import seanet_block as block_op
from fastvoc.ops.activation import IDENTITY, Activation, elu
from fastvoc.ops.stream import OpStream
from fastvoc.runtime.lengths import shortest


@dataclass(frozen=True)
class SeanetStyle:
    """What all convolutions of a network share.

    `causal` pads on the left only; `norm` puts a group norm behind each; `trim_right` is the part of a causal
    transposed convolution's surplus that is cut on the right.
    """

    causal: bool
    norm: bool
    pad_mode: str = "reflect"
    trim_right: float = 1.0


class SeanetConv(Layer, nn.Module):
    """A convolution that makes ceil(T / stride) steps of T, and its norm.

    A signal that is too short to be reflected gets zeros appended first, which are cut off after the padding.
    """

    MORE = 1
    norm: GroupNormAct | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style: SeanetStyle,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        pre: Activation = IDENTITY,
    ) -> None:
        super().__init__()
        total = (kernel_size - 1) * dilation + 1 - stride
        right = 0 if style.causal else total // 2
        self._left, self._right, self.stride, self.channels = total - right, right, stride, out_channels
        # The last window is filled up to its end: by less than a stride, and surplus padding makes no further window.
        padding = (self._left, self._right + stride - 1)
        self.conv = Conv1d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            padding=padding,
            bias=bias,
            pad_mode=style.pad_mode,
            pre=pre,
        )
        self.REACH = "all" if style.norm else "near"
        self.norm = GroupNormAct(out_channels) if style.norm else None
        self._shortest = max(padding) + 1 if style.pad_mode == "reflect" else 1
        self.prepared = self.conv.prepared
        self._of_padded = Prepared(conv_op.OP, self._params_of_padded, self.conv.prepared.tensors)

    def _params_of_padded(self) -> conv_op.Conv1dParams:
        return replace(self.conv.params(), padding=(0, 0), pad_mode="zeros")

    def width(self) -> int:
        return self.channels

    def output_lengths(self, lengths: Steps) -> Steps:
        return -(-lengths // self.stride)

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        run, either = self.conv.bound(backend)
        least = self._shortest
        if self.norm is not None:
            return lambda x, residual, lengths: self(x, residual, lengths=lengths, backend=backend), False

        def convolve(x: Tensor, residual: Tensor | None, lengths: Tensor | None) -> Tensor:
            if (x.shape[2] if lengths is None else int(lengths.min())) >= least:
                return run(x, residual, lengths)
            return self._convolve(x.to(self.conv.weight.dtype), residual, lengths, backend)

        return convolve, either

    def tiles(self) -> tuple[int, int]:
        return self.conv.tiles()

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> OpStream:
        return self.conv.opened(backend, exact=exact, further=further)

    def forward(
        self, x: Tensor, *more: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """[B, in, T] -> [B, out, ceil(T / stride)]; a residual of that shape is added at the end."""
        residual = more[0] if more else None
        if self.norm is None:
            return self._convolve(x, residual, lengths, backend)
        y = self._convolve(x, None, lengths, backend)
        steps = None if lengths is None else self.output_lengths(lengths)
        normed: Tensor = self.norm(y, residual, lengths=steps, backend=backend)
        return normed

    def ops(self) -> dict[str, Prepared]:
        return {"conv": self.conv.prepared} | ({} if self.norm is None else {"norm": self.norm.prepared})

    def _convolve(self, x: Tensor, residual: Tensor | None, lengths: Tensor | None, backend: str | None) -> Tensor:
        if lengths is None and x.shape[2] < self._shortest:
            return self._convolve_short(x, residual, backend)
        if lengths is None or shortest(lengths, x.shape[2]) >= self._shortest:
            y: Tensor = self.conv(x, residual, lengths=lengths, backend=backend)
            return y
        rows = []
        made = -(-x.shape[2] // self.stride)
        for i, steps in enumerate(lengths.tolist()):
            added = None if residual is None else residual[i : i + 1, :, : -(-steps // self.stride)]
            row = self._convolve(x[i : i + 1, :, :steps], added, None, backend)
            rows.append(F.pad(row, (0, made - row.shape[2])))
        return torch.cat(rows)

    def _convolve_short(self, x: Tensor, residual: Tensor | None, backend: str | None) -> Tensor:
        steps = x.shape[2]
        padding = (self._left, self._right + -steps % self.stride)
        missing = max(0, max(padding) + 1 - steps)
        padded = F.pad(F.pad(x, (0, missing)), padding, mode="reflect")
        padded = padded[:, :, : padded.shape[2] - missing]
        return self._of_padded(padded, residual, None, backend=backend)


class SeanetUpsample(Layer, nn.Module):
    """ELU and a transposed convolution that makes T * stride steps of T, and its norm, which sees the surplus too."""

    norm: GroupNormAct | None

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: SeanetStyle) -> None:
        super().__init__()
        self.stride, self.channels = stride, out_channels
        right = ceil(stride * style.trim_right) if style.causal else stride // 2
        left = stride - right
        self._crop = (left, right) if style.norm else None
        crop = (0, 0) if style.norm else (left, left - right)
        self.conv = Upsample(in_channels, out_channels, 2 * stride, stride, *crop, pre=elu())
        self.prepared = self.conv.prepared
        self.REACH = "all" if style.norm else "near"
        self.norm = GroupNormAct(out_channels) if style.norm else None

    def width(self) -> int:
        return self.channels

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * self.stride

    def tiles(self) -> tuple[int, int]:
        return self.conv.tiles()

    def bound(self, backend: str | None) -> tuple[Callable[..., Tensor], bool]:
        if self.norm is None:
            return self.conv.bound(backend)
        return lambda x, lengths: self(x, lengths=lengths, backend=backend), False

    def forward(
        self, x: Tensor, *more: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """[B, in, T] -> [B, out, T * stride]."""
        y: Tensor = self.conv(x, lengths=lengths, backend=backend)
        if self.norm is None or self._crop is None:
            return y
        steps = None if lengths is None else self.conv.output_lengths(lengths)
        y = self.norm(y, lengths=steps, backend=backend)
        return y[:, :, self._crop[0] : y.shape[2] - self._crop[1]]

    def ops(self) -> dict[str, Prepared]:
        return {"conv": self.conv.prepared} | ({} if self.norm is None else {"norm": self.norm.prepared})

    @property
    def crop(self) -> tuple[int, int] | None:
        """Steps cut off behind its norm on the left and the right; None without a norm."""
        return self._crop


class SeanetBlock(Layer, nn.Module):
    """shortcut(x) + conv2(elu(conv1(elu(x)))).

    conv1 [hidden, C, kernel_size] is dilated and padded so that it keeps the length: on the left when `causal`, else on
    both sides, the left one first; conv2 [C, hidden, 1]; shortcut [C, C, 1], or the input itself without
    `conv_shortcut`. With `norm` each convolution is followed by a group norm: `norm1` [hidden], `norm2` [C],
    `norm_shortcut` [C].
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel_size: int = 3,
        dilation: int = 1,
        *,
        causal: bool,
        pad_mode: str = "reflect",
        conv_shortcut: bool = True,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.REACH = channels, "all" if norm else "near"
        total = dilation * (kernel_size - 1)
        right = 0 if causal else total // 2
        padding = (total - right, right)
        self.conv1 = Conv1d(
            channels, hidden, kernel_size, dilation=dilation, padding=padding, pad_mode=pad_mode, pre=elu()
        )
        self.conv2 = Conv1d(hidden, channels, 1, pre=elu())
        self.shortcut = Conv1d(channels, channels, 1) if conv_shortcut else None
        self.norm1 = GroupNormAct(hidden) if norm else None
        self.norm2 = GroupNormAct(channels) if norm else None
        self.norm_shortcut = GroupNormAct(channels) if norm and conv_shortcut else None
        self.prepared = Prepared(block_op.OP, self.params, self._tensors)

    def params(self) -> block_op.SeanetBlockParams:
        """The op's view of this block."""
        shortcut = None if self.shortcut is None else self.shortcut.params()
        norms = (None if n is None else n.params() for n in (self.norm1, self.norm2, self.norm_shortcut))
        return block_op.SeanetBlockParams(self.conv1.params(), self.conv2.params(), shortcut, *norms)

    def _tensors(self) -> list[Tensor]:
        return list(self.parameters())

    def width(self) -> int:
        return self.channels
