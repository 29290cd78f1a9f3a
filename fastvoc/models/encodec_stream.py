"""A causal EnCodec on codes and samples that arrive in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvoc.nn.seanet import SeanetConv, SeanetUpsample
from fastvoc.nn.streams import LayerStreams, ModelStream


class Begin:
    """Holds the input back until there is enough of it to be reflected; what ends earlier is left to a whole call."""

    def __init__(self, least: int) -> None:
        self._least, self._held = least, None
        self._begun = 0

    _held: Tensor | None

    @property
    def counters(self) -> tuple[int, ...]:
        return self._begun, 0 if self._held is None else self._held.shape[2]

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._held is None else {"held": self._held}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._begun, self._held = counters[0], tensors.get("held")

    def step(self, x: Tensor) -> tuple[Tensor, bool]:
        """What may go on, and whether it is enough."""
        if self._begun:
            return x, True
        x = x if self._held is None else torch.cat([self._held, x], 2)
        if x.shape[2] < self._least:
            self._held = x.clone()
            return x, False
        self._begun, self._held = 1, None
        return x, True


class EncodecStream(ModelStream):
    """A batch of streams through one half of an Encodec, all at the same point.

    `stack` is its network, `before` and `after` what the quantizer does at either end of it, `whole` one call on a
    signal too short for a stream, `least` the input steps from which on it is long enough, `nothing` an output of no
    steps for a batch.
    """

    def __init__(
        self,
        stack: Any,
        name: str,
        least: int,
        whole: Callable[[Tensor], Tensor],
        nothing: Callable[[int], Tensor],
        *,
        backend: str | None,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self._whole, self._nothing, self._before, self._after = whole, nothing, before, after
        self._layers, self._begin = LayerStreams(stack.named(name), backend), Begin(least)
        self._names = list(stack.named(name))
        convs = (x.conv if isinstance(x, SeanetConv | SeanetUpsample) else x for x in stack.layers.values())
        self._steps = [self._layers.steps(layer) for layer in convs]
        self.parts = {"layers": self._layers, "begin": self._begin}

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        x, enough = self._begin.step(x)
        if not enough:
            return self._whole(x) if final and x.shape[2] else self._nothing(len(x))
        y = self._before(x)
        for step in self._steps:
            y = step(y, final)
        return self._after(y)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """Beside the LSTM, which every step before reaches."""
        for name in reversed(self._names):
            first, last = self._layers.reads(name, first, last)
        return first, last
