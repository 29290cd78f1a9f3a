"""Self-attention inside windows that do not overlap, with rotary positions (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.blocks import BlockStream
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.layer import Plain
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.norm import LayerNorm

HEAD = 64
_BASE = 10000.0


def frequencies() -> Tensor:
    """[32] float32: of the rotary positions of a head."""
    steps = torch.arange(0, HEAD, 2, device="cpu").float() / HEAD
    return 1.0 / _BASE**steps


class Windows(Plain):
    """Queries, keys and values [B, 3C, n * window] -> [B, C, n * window]: each step sees those of its window."""

    def __init__(self, channels: int, window: int) -> None:
        self._channels, self._window = channels, window

    def width(self) -> int:
        return self._channels

    def tiles(self) -> tuple[int, int]:
        return self._window, 0

    def compute(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        heads = self._channels // HEAD
        rows = x.transpose(1, 2).reshape(x.shape[0], -1, self._window, 3, heads, HEAD)
        queries, keys, values = rows.permute(3, 0, 1, 4, 2, 5).flatten(1, 3)  # [B * windows * heads, window, HEAD]
        cos, sin = self._rotation(x)
        queries, keys = (part * cos + _turned(part) * sin for part in (queries, keys))
        weights = torch.bmm(queries, keys.mT).mul(HEAD**-0.5).softmax(-1)
        mixed = torch.bmm(weights, values).reshape(x.shape[0], -1, heads, self._window, HEAD)
        return mixed.transpose(2, 3).reshape(x.shape[0], -1, self._channels).transpose(1, 2)

    def _rotation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [window, HEAD] of the angles."""
        angles = torch.arange(self._window, device="cpu").float()[:, None] * frequencies()
        angles = torch.cat([angles, angles], 1)
        return angles.cos().to(x), angles.sin().to(x)

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> BlockStream:
        return BlockStream(self.compute, self._window, self._window, self._channels)


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


class LocalAttention(nn.Module):
    """x + to_out(attention(to_qkv(norm(x)))) with heads of 64 channels; projections without bias [out, in, 1]."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels, eps=1e-5)
        self.to_qkv = Conv1d(channels, 3 * channels, 1, bias=False)
        self.to_out = Conv1d(channels, channels, 1, bias=False)
        self._windows = Windows(channels, window)

    def network(self, run: Trace, x: Value) -> Value:
        """[B, channels, n * window] -> the same."""
        return run(self.to_out, run(self._windows, run(self.to_qkv, run(self.norm, x))), x)
