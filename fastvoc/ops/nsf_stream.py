"""nsf_source on F0 that arrives in chunks: the phase goes on, and a frame waits for those it interpolates to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class NsfStream:
    """The source between two chunks; seed [B] and phase [B, H + 1], if any, come with every one.

    begin(batch, seed, phase) gives the state [B, H + 2] before the first sample; run(f0 [B, 1, n], state, seed, frames)
    makes the first `frames` [B] of n frames and advances the state. Of F0 only `lookahead` frames are kept.
    """

    def __init__(
        self,
        hop: int,
        lookahead: int,
        begin: Callable[[int, Tensor | None, Tensor | None], Tensor],
        run: Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor],
    ) -> None:
        self._hop, self._lookahead, self._begin, self._run = hop, lookahead, begin, run
        self._state: Tensor | None = None
        self._held: Tensor | None = None
        self._made = 0, 0  # items and frames of the chunk before
        self._frames = torch.zeros(0, dtype=torch.int64, device="cpu")

    @property
    def counters(self) -> tuple[int, ...]:
        return int(self._state is not None), 0 if self._held is None else self._held.shape[2]

    def tensors(self) -> dict[str, Tensor]:
        kept = {"state": self._state, "held": self._held}
        return {name: t for name, t in kept.items() if t is not None}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._state = tensors.get("state")
        self._held = tensors.get("held")

    def fits(self, batch: int) -> bool:
        """Whether the state, if any, is one of so many signals."""
        if self._state is None:
            return True
        zeros = self._begin(batch, None, None)
        return self._state.shape == zeros.shape and self._state.dtype is zeros.dtype

    def step(
        self,
        x: Tensor,
        final: bool,
        state: None = None,
        phase: Tensor | None = None,
        seed: Tensor | None = None,
        noise: None = None,
    ) -> Tensor:
        """F0 [B, 1, n] -> the samples that it completes; `state` is its own, and noise is drawn."""
        f0 = x if self._held is None else torch.cat([self._held, x], 2)
        batch, _, have = f0.shape
        made = have if final else max(have - self._lookahead, 0)
        # Advanced in place: a clone, so that what was there before can come back.
        self._state = self._begin(batch, seed, phase) if self._state is None else self._state.clone()
        self._held = f0[:, :, made:].clone()
        if not made:
            return f0.new_empty((batch, 1, 0))
        if self._made != (batch, made):
            self._frames, self._made = torch.full((batch,), made, dtype=torch.int64, device="cpu"), (batch, made)
        return self._run(f0, self._state, seed, self._frames)[:, :, : made * self._hop]

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """Beside the phase, to which every frame before adds."""
        ahead = self._lookahead if 2 * (last % self._hop) + 1 >= self._hop else 0
        return first // self._hop, last // self._hop + ahead
