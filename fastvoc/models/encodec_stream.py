"""A causal EnCodec on codes and samples that arrive in chunks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastvoc.nn.network import Network
from fastvoc.nn.streams import Begin, NetworkStream
from fastvoc.runtime.registry import use_exact


class EncodecStream(NetworkStream):
    """A batch of streams through one half of an Encodec, all at the same point.

    least: input steps from which on a signal is long enough for a stream; whole: one call on a shorter one.
    """

    def __init__(self, network: Network, backend: str | None, *, least: int, whole: Callable[[Tensor], Tensor]) -> None:
        super().__init__(network, backend)
        self._begin, self._whole = Begin(least), whole
        self.parts["begin"] = self._begin

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        x, enough = self._begin.take(x)
        if enough:
            return super().step(x, final)
        if not final or not x.shape[2]:
            return super().step(x[:, :, :0], False)
        with use_exact():  # as all streams of codecs
            return self._whole(x)
