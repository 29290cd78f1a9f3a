"""Residual block of SEANet, as EnCodec uses it."""

from __future__ import annotations

from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.group_norm import GroupNormAct
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.short_reflect import conv_short
from fastvoc.ops import seanet_block as op
from fastvoc.ops.activation import IDENTITY, elu


class SeanetBlock(nn.Module):
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
        total = dilation * (kernel_size - 1)
        right = 0 if causal else total // 2
        padding = (total - right, right)
        self.conv1 = Conv1d(
            channels, hidden, kernel_size, dilation=dilation, padding=padding, pad_mode=pad_mode, pre=elu()
        )
        self.conv2 = Conv1d(hidden, channels, 1, pre=IDENTITY if norm else elu())
        self.shortcut = Conv1d(channels, channels, 1) if conv_shortcut else None
        self.norm1 = GroupNormAct(hidden, act=elu()) if norm else None
        self.norm2 = GroupNormAct(channels) if norm else None
        self.norm_shortcut = GroupNormAct(channels) if norm and conv_shortcut else None
        self.prepared = Prepared(op.OP, self.params, self._tensors)

    def params(self) -> op.SeanetBlockParams:
        """The op's view of this block, without its norms."""
        shortcut = None if self.shortcut is None else self.shortcut.params()
        return op.SeanetBlockParams(self.conv1.params(), self.conv2.params(), shortcut)

    def _tensors(self) -> list[Tensor]:
        return list(self.parameters())

    def layers(self) -> dict[str, Prepared]:
        """What runs, by name, in order of use."""
        if self.norm1 is None or self.norm2 is None:
            return {"block": self.prepared}
        named = {"conv1": self.conv1.prepared, "norm1": self.norm1.prepared, "conv2": self.conv2.prepared}
        if self.shortcut is not None and self.norm_shortcut is not None:
            named |= {"shortcut": self.shortcut.prepared, "norm_shortcut": self.norm_shortcut.prepared}
        return {**named, "norm2": self.norm2.prepared}

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        if self.norm1 is None or self.norm2 is None:
            return self.prepared(x, lengths, backend=backend)
        h: Tensor = self.norm1(conv_short(self.conv1, x, lengths, backend), lengths, backend)
        h = self.conv2(h, lengths, backend)
        if self.shortcut is not None and self.norm_shortcut is not None:
            x = self.norm_shortcut(self.shortcut(x, lengths, backend), lengths, backend)
        y: Tensor = self.norm2(h, lengths, backend, residual=x)
        return y
