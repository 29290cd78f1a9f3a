"""A causal EnCodec on codes and samples that arrive in chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastvoc.nn.network import Network
from fastvoc.nn.streams import NetworkStream


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


class EncodecStream(NetworkStream):
    """A batch of streams through one half of an Encodec, all at the same point.

    least: input steps from which on a signal is long enough for a stream; whole: one call on a shorter one.
    """

    def __init__(self, network: Network, backend: str | None, *, least: int, whole: Callable[[Tensor], Tensor]) -> None:
        super().__init__(network, backend)
        self._begin, self._whole = Begin(least), whole
        self.parts["begin"] = self._begin

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        x, enough = self._begin.step(x)
        if enough:
            return super().step(x, final)
        return self._whole(x) if final and x.shape[2] else super().step(x[:, :, :0], False)
