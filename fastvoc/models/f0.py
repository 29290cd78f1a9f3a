"""F0 predictors of CosyVoice and Chatterbox (github.com/FunAudioLLM/CosyVoice, hifigan/f0_predictor.py)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from fastvoc.nn.conv import Conv1d
from fastvoc.nn.layer import Layer
from fastvoc.nn.model import Model
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import conv1d as op
from fastvoc.ops.activation import elu

_LAYERS = 5
CAUSAL_LOOKAHEAD = 3  # frames that the first convolution of the causal predictor sees ahead


class _Conv(Conv1d):
    """Conv1d that computes in `dtype`, whatever its weights are stored in; None: in theirs."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: tuple[int, int], dtype: torch.dtype | None):
        super().__init__(inputs, outputs, kernel, padding=padding, post=elu())
        self._dtype = dtype

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype if self._dtype is None else self._dtype

    def params(self) -> op.Conv1dParams:
        params = super().params()
        return params if self._dtype is None else _cast(params, self._dtype)


class Classifier(Layer, nn.Module):
    """Linear layer to one value a frame: weight [1, in], bias [1]."""

    MORE = 1

    def __init__(self, inputs: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, inputs))
        self.bias = nn.Parameter(torch.empty(1))
        self._dtype = dtype
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype if self._dtype is None else self._dtype

    def params(self) -> op.Conv1dParams:
        """The op's view of this layer: a convolution of kernel 1."""
        params = op.Conv1dParams(self.weight[:, :, None], self.bias)
        return params if self._dtype is None else _cast(params, self._dtype)

    def _tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]


def _cast(params: op.Conv1dParams, dtype: torch.dtype) -> op.Conv1dParams:
    assert params.bias is not None
    return replace(params, weight=params.weight.to(dtype), bias=params.bias.to(dtype))


class ConvF0(Wide, Model):
    """Five convolutions with ELU, a linear layer and the absolute value.

    causal: the first convolution sees 3 frames ahead (kernel 4), the others the past only. dtype: what it computes in;
    the weights' when None.
    """

    def __init__(self, num_mels: int, channels: int, *, causal: bool = False, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        convs = []
        for i in range(_LAYERS):
            kernel = 1 + CAUSAL_LOOKAHEAD if causal and i == 0 else 3
            padding = (1, 1) if not causal else (0, CAUSAL_LOOKAHEAD) if i == 0 else (2, 0)
            convs.append(_Conv(channels if i else num_mels, channels, kernel, padding, dtype))
        # Upstream counts its activations, too.
        self.condnet = nn.ModuleDict({str(2 * i): conv for i, conv in enumerate(convs)})
        self.classifier = Classifier(channels, dtype)
        self._convs = convs

    def forward(self, mel: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, num_mels, T] log-mel -> [B, T] F0 in Hz, of the weights' dtype, 0 beyond the lengths."""
        f0 = self.reading()(mel, lengths=lengths, backend=backend)
        return f0[:, 0].to(self.classifier.weight.dtype)

    def network(self, run: Trace, mel: Value) -> Value:
        """The steps from a log-mel to F0 [B, 1, T]."""
        x = mel
        for conv in self._convs:
            x = run(conv, x)
        return run.map(torch.abs, run(self.classifier, x))
