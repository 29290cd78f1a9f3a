"""A ConvNeXt network on a signal in chunks as one call: a convolution, a norm, blocks, a norm and a linear layer.

A chunk of a few steps takes as long as its weights take to be read, so that there is no time for calls between layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastvoc import _library, packing
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.convnext_block import ConvNextBlockParams
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.ops.stream import OpStream


@dataclass(frozen=True)
class _Network:
    """The layers as C++ takes them: all small weights in one tensor, those of the products, and their shapes."""

    weights: list[Tensor]
    shape: list[int]
    eps: list[float]
    sides: list[int]

    @property
    def state_floats(self) -> int:
        """Floats that an item keeps: 2 * side steps of the input of the convolution and of every block."""
        widths = [self.shape[0]] + [self.shape[2]] * (len(self.sides) - 1)
        return sum(
            2 * side * -(-width // packing.PANEL) * packing.PANEL
            for side, width in zip(self.sides, widths, strict=True)
        )


class ConvNextStream:
    """The network between two chunks; `step` takes the norms' `row` [B] with every chunk where they are adaptive."""

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._delay = sum(network.sides)
        self._have = 0
        self._state: Tensor | None = None

    @property
    def counters(self) -> tuple[int, ...]:
        # Once every layer is past its left padding only what is kept counts.
        return (min(self._have, self._delay),)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._state is None else {"state": self._state}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        (self._have,) = counters
        self._state = tensors.get("state")

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._delay, last + self._delay

    def step(self, x: Tensor, final: bool, *more: Tensor | None) -> Tensor:
        state, n = self._state, self._network
        if state is None:
            state = x.new_zeros((x.shape[0], n.state_floats))
        (have,) = self.counters
        row = more[0] if more else None
        y, self._state = torch.ops._fastvoc.convnext_stream.default(
            x, state, have, final, n.weights, row, n.shape, n.eps
        )
        self._have = have + x.shape[2]
        result: Tensor = y
        return result


def joined(layers: Sequence[OpStream]) -> ConvNextStream | None:
    """One stream in the place of these layers' as the C++ implementations made them, or None where it cannot be.

    layers: of a convolution, a layer norm, ConvNeXt blocks, a layer norm and a linear layer.
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
    shape, sides = [cin, kernel, cout, linear[0].weight.shape[0], norm[0].rows or 1], [kernel // 2]
    large, small, eps = [conv[1].weight], [conv[1].bias, norm[1].weight, norm[1].bias], [norm[1].eps]
    for _, p in blocks:
        large.append(p.weight)
        small += [p.depthwise, p.norm_weight, p.norm_bias, p.expand_bias, p.project_bias]
        shape += p.shape[1:4]
        eps.append(p.eps)
        sides.append(p.shape[2] // 2)
    small += [last[1].weight, last[1].bias, linear[1].bias]
    weights = [_together(linear[1].weight, small), *large, linear[1].weight]
    return ConvNextStream(_Network(weights, shape, [*eps, last[1].eps], sides))


# Of each network, by its last product's weights while they live: its small weights, and all of them in one tensor.
_JOINED: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _together(of: Tensor, small: list[Tensor]) -> Tensor:
    """The small weights in one tensor, the same for all streams of a network."""
    before, one = _JOINED.get(of, ((), None))
    if len(before) != len(small) or any(a is not b for a, b in zip(before, small, strict=True)):
        one = torch.cat([t.flatten() for t in small])
        _JOINED[of] = small, one
    joint: Tensor = one
    return joint


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


_library.define(
    "convnext_stream(Tensor x, Tensor state, int have, bool last, Tensor[] weights, Tensor? row, int[] shape,"
    " float[] eps) -> (Tensor, Tensor)"
)


@torch.library.register_fake("_fastvoc::convnext_stream")
def _fake(
    x: Tensor,
    state: Tensor,
    have: int,
    last: bool,
    weights: list[Tensor],
    row: Tensor | None,
    shape: list[int],
    eps: list[float],
) -> tuple[Tensor, Tensor]:
    delay = shape[1] // 2 + sum(kernel // 2 for kernel in shape[6::3])
    end = have + x.shape[2]
    steps = (end if last else max(0, end - delay)) - max(0, have - delay)
    return x.new_empty((x.shape[0], steps, shape[3])).transpose(1, 2), torch.empty_like(state)
