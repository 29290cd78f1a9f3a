"""JDCNet, the pitch network of the original HiFTNet (Kum & Nam 2019; github.com/yl4579/HiFTNet, Utils/JDC/model.py).

Only the pitch classifier: the voicing detector that shares its checkpoint plays no part in synthesis.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fastvoc.models.f0 import Classifier
from fastvoc.nn.layer import Layer
from fastvoc.nn.model import Model
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide
from fastvoc.ops import conv2d, lstm

_SLOPE = 0.01
_CHANNELS = (64, 128, 192, 256)
_POOLS = (2, 2, 2, 4)  # of the frequencies, before each residual block and at the end
_BANDS, _HIDDEN = 2, 256  # frequencies left at the end; width of the recurrent layer in each direction


class _Conv(nn.Module):
    """weight [out, in, K, K] without a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        bound = (inputs * kernel * kernel) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)


class _Norm(nn.Module):
    """Batch normalisation by its stored statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def tensors(self) -> list[Tensor]:
        """What the normalisation is made of."""
        return [self.weight, self.bias, self.running_mean, self.running_var]

    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, shift), each float64 [C]."""
        scale = self.weight.double() / (self.running_var.double() + 1e-5).sqrt()
        return scale, self.bias.double() - self.running_mean.double() * scale


class _Folded(Layer):
    """conv2d of a convolution with the normalisation that follows it, leaky ReLU and pooling.

    Where the normalisation follows a sum, the convolution of the other summand takes its scale only.
    """

    MORE = 1
    REACH = "all"

    def __init__(self, name: str, conv: _Conv, norm: _Norm, pool: int = 1, *, scale_only: bool = False) -> None:
        self.name = name
        self._conv, self._norm, self._pool, self._scale_only = conv, norm, pool, scale_only
        self.prepared = Prepared(conv2d.OP, self.params, self._tensors)

    def _tensors(self) -> list[Tensor]:
        return [self._conv.weight, *self._norm.tensors()]

    def params(self) -> conv2d.Conv2dParams:
        """The op's view of this layer."""
        scale, shift = self._norm.affine()
        weight = self._conv.weight
        folded = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
        if self._scale_only:
            return conv2d.Conv2dParams(folded, torch.zeros_like(shift, dtype=weight.dtype))
        return conv2d.Conv2dParams(folded, shift.to(weight.dtype), _SLOPE, self._pool)

    def owners(self) -> list[nn.Module]:
        return [self._conv, self._norm]

    __call__ = Layer.forward


class _ResidualBlock(nn.Module):
    """Weights of one block: pre_conv (normalisation), conv (convolution, normalisation, convolution), conv1by1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pre_conv = nn.ModuleDict({"0": _Norm(inputs)})
        self.conv = nn.ModuleDict(
            {"0": _Conv(inputs, outputs, 3), "1": _Norm(outputs), "3": _Conv(outputs, outputs, 3)}
        )
        self.conv1by1 = _Conv(inputs, outputs, 1)


class _BiLstm(Layer, nn.Module):
    """The weights of one bidirectional layer, named as torch.nn.LSTM does."""

    REACH = "all"

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        for end in ("_l0", "_l0_reverse"):
            for name, width in (("weight_ih", inputs), ("weight_hh", hidden)):
                self.register_parameter(name + end, nn.Parameter(torch.empty(4 * hidden, width)))
            for name in ("bias_ih", "bias_hh"):
                self.register_parameter(name + end, nn.Parameter(torch.empty(4 * hidden)))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
        self.prepared = Prepared(lstm.OP, self.params, self._tensors)

    def _tensors(self) -> list[Tensor]:
        return list(self.parameters())

    def params(self) -> lstm.LstmParams:
        """The op's view of this layer."""
        forward, backward = list(self.parameters())[:4], list(self.parameters())[4:]
        return lstm.LstmParams((_four(forward), _four(backward)), bidirectional=True)


def _four(tensors: list[nn.Parameter]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w_ih, w_hh, b_ih, b_hh = tensors
    return w_ih, w_hh, b_ih, b_hh


class Jdc(Wide, Model):
    """Log-mel of 80 bands to F0: convolutions over time and frequency, a bidirectional LSTM, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        width = _CHANNELS[0]
        self.conv_block = nn.ModuleDict({"0": _Conv(1, width, 3), "1": _Norm(width), "3": _Conv(width, width, 3)})
        blocks = [_ResidualBlock(i, o) for i, o in pairwise(_CHANNELS)]
        self.res_block1, self.res_block2, self.res_block3 = blocks
        self.pool_block = nn.ModuleDict({"0": _Norm(_CHANNELS[-1])})
        self.bilstm_classifier = _BiLstm(_CHANNELS[-1] * _BANDS, _HIDDEN)
        self.classifier = Classifier(2 * _HIDDEN)

        first = self.conv_block
        # Each block's result is normalised by what comes next, before activation and pooling.
        after = [*(block.pre_conv["0"] for block in blocks), self.pool_block["0"]]
        self._stem = (
            _Folded("conv_block.0", first["0"], first["1"]),  # type: ignore[arg-type]
            _Folded("conv_block.3", first["3"], after[0], _POOLS[0]),  # type: ignore[arg-type]
        )
        self._blocks = [
            (
                _Folded(f"res_block{i}.conv1by1", block.conv1by1, norm, scale_only=True),  # type: ignore[arg-type]
                _Folded(f"res_block{i}.conv.0", block.conv["0"], block.conv["1"]),  # type: ignore[arg-type]
                _Folded(f"res_block{i}.conv.3", block.conv["3"], norm, pool),  # type: ignore[arg-type]
            )
            for i, (block, norm, pool) in enumerate(zip(blocks, after[1:], _POOLS[1:], strict=True), 1)
        ]

    def forward(self, mel: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, 80, T] log-mel -> [B, T] F0 in Hz, of the weights' dtype, 0 beyond the lengths."""
        return self.reading()(mel, lengths=lengths, backend=backend)[:, 0]

    def network(self, run: Trace, mel: Value) -> Value:
        """The steps from a log-mel to F0 [B, 1, T]."""
        x = run.map(lambda mel: mel.transpose(1, 2)[:, None], mel)
        for conv in self._stem:
            x = run(conv, x)
        for shortcut, inner, outer in self._blocks:
            x = run(outer, run(inner, x), run(shortcut, x))
        # The frequencies of a channel stay together.
        h = run(self.bilstm_classifier, run.map(lambda x: x.transpose(2, 3).flatten(1, 2), x))
        return run.map(torch.abs, run(self.classifier, h))
