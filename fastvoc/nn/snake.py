"""Snake, the periodic activation with parameters per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.ops.activation import Activation, snake


class Snake(nn.Module):
    """The parameters of x + sin^2(alpha * x) / (beta + eps), a value per channel; beta is alpha where it has none.

    Args:
        channels: C; `alpha` and `beta` are [C].
        eps: keeps the division finite.
        beta: SnakeBeta, with an amplitude of its own (BigVGAN, arXiv 2206.04658).
        logscale: the parameters are logarithms.
    """

    beta: Tensor | None

    def __init__(self, channels: int, *, eps: float = 1e-9, beta: bool = False, logscale: bool = False) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.register_parameter("beta", nn.Parameter(torch.empty(channels)) if beta else None)
        self._eps, self._logscale = eps, logscale
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A frequency and an amplitude of 1."""
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.0 if self._logscale else 1.0)

    def activation(self) -> Activation:
        """The op's view of the parameters."""
        alpha = self.alpha.exp() if self._logscale else self.alpha
        beta = alpha if self.beta is None else self.beta.exp() if self._logscale else self.beta
        return snake(alpha, 1.0 / (beta + self._eps))
