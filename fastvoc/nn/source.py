"""Source layer: F0 to the excitation of a source-filter vocoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer, Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import nsf_source as op


class NsfSource(Layer, Wide):
    """nsf_source with its merging weights: weight [harmonics + 1], bias [1].

    Further inputs are state, phase, seed and noise, as `ops.nsf_source.nsf_source` has them.
    """

    MORE = 4
    REACH = "past"

    def __init__(
        self,
        harmonics: int,
        sample_rate: int,
        hop: int,
        *,
        kind: Literal["sample", "frame_linear", "frame_nearest"],
        amp: float = 0.1,
        noise_std: float = 0.003,
        threshold: float = 10.0,
        noise: Literal["normal", "uniform", "none"] = "normal",
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(harmonics + 1))
        self.bias = nn.Parameter(torch.empty(1))
        self._shape = (sample_rate, hop, kind, amp, noise_std, threshold, noise)
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(harmonics + 1), torch's default for linear layers."""
        bound = self.weight.numel() ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def hop(self) -> int:
        """Samples for each step of F0."""
        return self._shape[1]

    def params(self) -> op.NsfSourceParams:
        """The op's view of this layer."""
        return op.NsfSourceParams(self.weight, self.bias, *self._shape)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * self.hop
