"""Convolutions whose weight is normalised in every forward, with the parameter names that published checkpoints use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Normed(nn.Module):
    """A convolution of one or two dimensions, by the length of `kernel`; `_normed` makes parameters of its weight."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int = 1,
    ) -> None:
        super().__init__()
        weight, bias = _initial(in_channels, out_channels, kernel, groups)
        self.bias = nn.Parameter(bias)
        self._normed(weight)
        self._call = _Convolution(stride, padding, groups)

    def _normed(self, weight: Tensor) -> None:
        raise NotImplementedError


class WeightNormConv(_Normed):
    """Convolution with weight g * v / ||v||, the norm over all axes but the first (arXiv 1602.07868).

    Parameters in order: `bias` [out], `weight_g` [out, 1, ...], `weight_v` [out, in / groups, *kernel].
    """

    def _normed(self, weight: Tensor) -> None:
        self.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
        self.weight_v = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, *space] -> [B, out, *space']."""
        return self._call(x, torch._weight_norm(self.weight_v, self.weight_g, 0), self.bias)


class SpectralNormConv(_Normed):
    """Convolution with weight W / sigma, sigma the largest singular value of W [out, rest] (arXiv 1802.05957).

    In training mode every forward makes one power iteration on the buffers `weight_u` [out] and `weight_v` [rest];
    in evaluation mode they are used as they are. Parameters in order: `bias`, `weight_orig`.
    """

    weight_u: Tensor
    weight_v: Tensor

    def _normed(self, weight: Tensor) -> None:
        self.weight_orig = nn.Parameter(weight)
        self.register_buffer(
            "weight_u", F.normalize(torch.randn(len(weight), dtype=weight.dtype, device=weight.device), dim=0)
        )
        self.register_buffer(
            "weight_v", F.normalize(torch.randn(weight[0].numel(), dtype=weight.dtype, device=weight.device), dim=0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, *space] -> [B, out, *space']."""
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0, eps=1e-12))
                self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=1e-12))
        # Clones, because the next forward changes the buffers in place before this one's backward has run.
        sigma = torch.dot(self.weight_u.clone(), matrix @ self.weight_v.clone())
        return self._call(x, self.weight_orig / sigma, self.bias)


class _Convolution:
    def __init__(self, stride: tuple[int, ...], padding: tuple[int, ...], groups: int) -> None:
        self._function = F.conv1d if len(stride) == 1 else F.conv2d
        self._stride, self._padding, self._groups = stride, padding, groups

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self._function(x, weight, bias, self._stride, self._padding, 1, self._groups)


def _initial(cin: int, cout: int, kernel: tuple[int, ...], groups: int) -> tuple[Tensor, Tensor]:
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    weight = torch.empty(cout, cin // groups, *kernel, **kind)
    bound = weight[0].numel() ** -0.5
    return weight.uniform_(-bound, bound), torch.empty(cout, **kind).uniform_(-bound, bound)
