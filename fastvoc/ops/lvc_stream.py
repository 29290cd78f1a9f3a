"""lvc on a signal in chunks: the samples and the kernels of their frames each wait for the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


class LvcStream:
    """The state of an lvc layer.

    `reach`: steps to either side that an output reads. run(x, kernels, biases) is the op on whole frames without a
    residual.
    """

    def __init__(self, hop: int, reach: int, run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self._hop, self._reach, self._run = hop, reach, run
        self._held: dict[str, Tensor] = {}
        self._first = self._made = 0  # the frame where what is held begins; the steps made

    @property
    def counters(self) -> tuple[int, ...]:
        shift = max(self._first - 1, 0)
        sizes = (t.shape[1] for t in self._held.values())
        return self._first - shift, self._made - shift * self._hop, *sizes

    def tensors(self) -> dict[str, Tensor]:
        """Time in the second place: x from frame `first` on, kernels and biases likewise, residual from `made` on."""
        return dict(self._held)

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._first, self._made, *_ = counters
        self._held = {name: tensors[name] for name in ("x", "kernels", "biases", "residual") if name in tensors}

    def fits(self, batch: int) -> bool:
        """Whether it keeps every frame that a later output reads."""
        return self._first <= max(self._made - self._reach, 0) // self._hop

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first - self._reach, last + self._reach

    def step(self, x: Tensor, final: bool, kernels: Tensor, biases: Tensor, residual: Tensor) -> Tensor:
        """x and residual [B, C, n], kernels [B, K, C_in, C_out, f], biases [B, C_out, f] -> [B, C, m]."""
        new = {"x": x.mT, "kernels": kernels.permute(0, 4, 1, 2, 3), "biases": biases.mT, "residual": residual.mT}
        held = {name: torch.cat([self._held[name], t], 1) if self._held else t for name, t in new.items()}
        hop, begin = self._hop, self._made
        have = self._first * hop + held["x"].shape[1]
        frames = self._first + held["kernels"].shape[1]
        ready = (have if final else have - self._reach, frames * hop, begin + held["residual"].shape[1])
        end = max(min(ready), begin)
        y = residual[:, :, :0]
        if end > begin:
            made = self._window(held, -(-(end + self._reach) // hop) - self._first)
            y = made[:, :, begin - self._first * hop : end - self._first * hop]
            y = y + held["residual"][:, : end - begin].mT
        keep = max(end - self._reach, 0) // hop
        drop = max(keep - self._first, 0)
        self._held = {
            "x": held["x"][:, drop * hop :].clone(),
            "kernels": held["kernels"][:, drop:].clone(),
            "biases": held["biases"][:, drop:].clone(),
            "residual": held["residual"][:, end - begin :].clone(),
        }
        self._first, self._made = self._first + drop, end
        return y

    def _window(self, held: dict[str, Tensor], count: int) -> Tensor:
        """The op on `count` frames, those past the end of what is held made up: outputs that are used read none."""
        count = min(count, max(held["kernels"].shape[1], -(-held["x"].shape[1] // self._hop)))
        x = held["x"][:, : count * self._hop]
        x = F.pad(x, (0, 0, 0, count * self._hop - x.shape[1]))
        rows = []
        for name in ("kernels", "biases"):
            part = held[name][:, :count]
            missing = count - part.shape[1]
            rows.append(
                torch.cat([part, part.new_zeros((len(part), missing, *part.shape[2:]))], 1) if missing else part
            )
        return self._run(x.mT, rows[0].permute(0, 2, 3, 4, 1), rows[1].mT)
