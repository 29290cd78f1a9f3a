"""Stacked LSTM layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import lstm as op


class Lstm(Layer, nn.Module):
    """lstm with its weights, under torch's names: `weight_ih_l{n}` [4H, inputs], `weight_hh_l{n}` [4H, H],
    `bias_ih_l{n}` and `bias_hh_l{n}` [4H], and the same with `_reverse` when bidirectional.
    """

    REACH = "past"

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        num_layers: int = 1,
        *,
        skip: bool = False,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        suffixes = ("", "_reverse") if bidirectional else ("",)
        self._names = []
        inputs = in_channels
        for n in range(num_layers):
            for suffix in suffixes:
                names = [f"{kind}_l{n}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                shapes = ((4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
                for name, shape in zip(names, shapes, strict=True):
                    self.register_parameter(name, nn.Parameter(torch.empty(shape)))
                self._names.append(names)
            inputs = hidden * len(suffixes)
        self._skip, self._bidirectional, self._hidden = skip, bidirectional, hidden
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(H), torch's default."""
        bound = self._hidden**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def params(self) -> op.LstmParams:
        """The op's view of this layer."""
        w_ih, w_hh, b_ih, b_hh = ([getattr(self, names[i]) for names in self._names] for i in range(4))
        layers = tuple(zip(w_ih, w_hh, b_ih, b_hh, strict=True))
        return op.LstmParams(layers, self._skip, self._bidirectional)

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, name) for names in self._names for name in names]

    def width(self) -> int:
        return self._hidden * (2 if self._bidirectional else 1)
