"""A ConvNeXt network on a signal in chunks as one call: a convolution, a norm, blocks, a norm and a linear layer.

A chunk of a few steps takes as long as its weights take to be read, so that there is no time for calls between layers.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.convnext_block import ConvNextBlockParams, scaled_projection
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.ops.stream import KeptStream, OpStream
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native


class _Network(NamedTuple):
    """The layers as C++ takes them: all small weights in one tensor, those of the products, and their shapes."""

    weights: list[Tensor]
    cin: int
    kernel: int  # of the convolution
    channels: int
    out: int
    rows: int  # of the norms but the last
    hidden: list[int]  # of every block, as the next two
    kernels: list[int]
    chunks: list[int]
    eps: list[float]  # of every norm

    @property
    def sides(self) -> list[int]:
        """Steps that the convolution and every block read to either side."""
        return [kernel // 2 for kernel in (self.kernel, *self.kernels)]

    @property
    def state_floats(self) -> int:
        """Floats that an item keeps: 2 * side steps of the input of the convolution and of every block."""
        widths = [self.cin] + [self.channels] * len(self.kernels)
        return sum(
            2 * side * -(-width // packing.PANEL) * packing.PANEL
            for side, width in zip(self.sides, widths, strict=True)
        )


class ConvNextStream(KeptStream):
    """The network between two chunks; `step` takes the norms' `row` [B] with every chunk where they are adaptive."""

    def __init__(self, network: _Network) -> None:
        self._network, self._native = network, NATIVE.bound(network)
        self._floats = network.state_floats
        super().__init__(sum(network.sides))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._most, last + self._most

    def step(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        state = self._state
        if state is None:
            state = x.new_zeros((x.shape[0], self._floats))
        have = min(self._have, self._most)
        row = more[0] if more else None
        y, self._state = self._native(x, state, have, final, row)
        self._have = have + x.shape[2]
        result: Tensor = y
        return result


def joined(layers: Sequence[OpStream], *, exact: bool = True) -> ConvNextStream | None:
    """One stream in the place of these layers' as the C++ implementations made them, or None where it cannot be.

    layers: of a convolution, a layer norm, ConvNeXt blocks, a layer norm and a linear layer. exact: with the weights as
    they are, so that it equals the layers bit for bit; otherwise as trios (`packing.pack_trios`), a third shorter.
    """
    native: list[Any] = [getattr(layer, "native", None) for layer in layers]
    if len(native) < 4 or any(part is None for part in native):
        return None
    conv, norm, *blocks, last, linear = native
    if not (_convolves(*conv) and _convolves(linear[0], linear[1], 1) and all(_takes(*block) for block in blocks)):
        return None
    if not all(isinstance(params, LayerNormParams) for params, _ in (norm, last)) or last[0].rows is not None:
        return None
    if any(params.norm.rows != norm[0].rows for params, _ in blocks):
        return None
    cout, cin, kernel = conv[0].weight.shape
    shape = cin, kernel, cout, linear[0].weight.shape[0], norm[0].rows or 1
    packed = [p for _, p in blocks]
    listed = [p.hidden for p in packed], [p.kernel for p in packed], [p.chunk for p in packed]
    eps = [norm[1].eps, *(p.eps for p in packed), last[1].eps]
    return ConvNextStream(_Network(_weights(native, exact), *shape, *listed, eps))


# By the last product's packed weights while they live, and by `exact`: the packed weights of all layers, and what C++
# takes, which was made of them.
_JOINED: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _weights(native: list[Any], exact: bool) -> list[Tensor]:
    """What C++ takes, the same for all streams of a network: all small weights in one tensor, then the products'."""
    parts = [t for _, packed in native for t in packed if isinstance(t, Tensor)]
    made = _JOINED.setdefault(native[-1][1].weight, {})
    before, weights = made.get(exact, ((), []))
    if len(before) != len(parts) or any(kept() is not t for kept, t in zip(before, parts, strict=True)):
        with torch.no_grad():
            weights = (None if exact else _trios(native)) or _floats(native)
        made[exact] = [weakref.ref(t) for t in parts], weights
    result: list[Tensor] = weights
    return result


def _floats(native: list[Any]) -> list[Tensor]:
    (_, conv), (_, norm), *blocks, (_, last), (_, linear) = native
    small = [conv.bias, norm.weight, norm.bias]
    for _, p in blocks:
        small += [p.depthwise, p.norm_weight, p.norm_bias, p.expand_bias, p.project_bias]
    small += [last.weight, last.bias, linear.bias]
    return [_together(small), conv.weight, *(p.weight for _, p in blocks), linear.weight]


def _trios(native: list[Any]) -> list[Tensor] | None:
    """The same with every product's weights as trios, its scale before its bias; None where one would lose too much."""
    (embed, conv), (_, norm), *blocks, (_, last), (head, linear) = native
    padded = torch.nn.functional.pad(embed.weight, (0, 0, 0, -embed.weight.shape[1] % packing.PANEL))
    products = [padded.transpose(1, 2).flatten(1), head.weight[:, :, 0]]
    products[1:1] = [weight for params, _ in blocks for weight in (params.expand_weight, scaled_projection(params)[0])]
    packed = []
    for weight in products:
        trios = packing.pack_trios(weight)
        if trios is None:
            return None
        packed.append(trios)
    scales = iter([scale for _, scale in packed])
    small = [next(scales), conv.bias, norm.weight, norm.bias]
    for _, p in blocks:
        small += [p.depthwise, p.norm_weight, p.norm_bias]
        small += [next(scales), p.expand_bias, next(scales), p.project_bias]
    small += [last.weight, last.bias, next(scales), linear.bias]
    return [_together(small), *(words for words, _ in packed)]


def _together(small: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in small])


def _convolves(params: Any, packed: Any, kernel: int | None = None) -> bool:
    """Whether this is a bare convolution in float32 that keeps the length, of this kernel if given."""
    if not isinstance(params, Conv1dParams) or packed.weight.dtype is not torch.float32:
        return False
    taps = params.weight.shape[2]
    even = params.padding == (taps // 2, taps // 2) and taps % 2 == 1 and taps == (kernel or taps)
    plain = params.stride == params.dilation == 1 and params.pad_mode == "zeros"
    return even and plain and params.pre.kind == params.post.kind == "identity"


def _takes(params: Any, packed: Any) -> bool:
    return isinstance(params, ConvNextBlockParams) and packed.weight.dtype is torch.float32


def _fake(
    n: _Network, x: Tensor, state: Tensor, have: int, last: bool, row: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    delay = n.kernel // 2 + sum(kernel // 2 for kernel in n.kernels)
    end = have + x.shape[2]
    steps = (end if last else max(0, end - delay)) - max(0, have - delay)
    return x.new_empty((x.shape[0], steps, n.out)).transpose(1, 2), torch.empty_like(state)


NATIVE = Native("convnext_stream", _Network, _fake)
