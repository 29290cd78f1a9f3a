"""ConvNeXt blocks along time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.norm import LayerNorm
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import convnext_block as op


class ConvNextBlock(Layer, nn.Module):
    """convnext_block with its weights under the published names: dwconv, norm, pwconv1, pwconv2, gamma [C] or None."""

    MORE = 1
    gamma: Tensor | None

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel_size: int = 7,
        *,
        norm_rows: int | None = None,
        norm_eps: float = 1e-6,
        layer_scale: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = LayerNorm(channels, norm_rows, norm_eps)
        self.pwconv1 = nn.Linear(channels, hidden)
        self.pwconv2 = nn.Linear(hidden, channels)
        gamma = None if layer_scale is None else nn.Parameter(torch.empty(channels))
        self.register_parameter("gamma", gamma)
        self._layer_scale = layer_scale
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As Vocos starts its training: normal with deviation 0.02 cut at 2, bias 0, gamma `layer_scale`."""
        for layer in (self.dwconv, self.pwconv1, self.pwconv2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.gamma is not None and self._layer_scale is not None:
            nn.init.constant_(self.gamma, self._layer_scale)

    def params(self) -> op.ConvNextBlockParams:
        """The op's view of this block."""
        assert self.dwconv.bias is not None
        return op.ConvNextBlockParams(
            self.dwconv.weight,
            self.dwconv.bias,
            self.norm.params(),
            self.pwconv1.weight,
            self.pwconv1.bias,
            self.pwconv2.weight,
            self.pwconv2.bias,
            self.gamma,
        )

    def _tensors(self) -> list[Tensor]:
        return list(self.parameters())

    def width(self) -> int:
        return self.pwconv2.weight.shape[0]
