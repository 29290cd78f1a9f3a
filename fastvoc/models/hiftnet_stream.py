"""HiFTNet on mel spectrograms that arrive in chunks: F0, source and network each with their own delay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError
from fastvoc.nn.streams import LayerStreams, ModelStream
from fastvoc.ops.join import Sum


class ReflectFirst:
    """One reflected step before the first, as soon as the second is there."""

    def __init__(self) -> None:
        self._held: Tensor | None = None
        self._begun = 0

    @property
    def counters(self) -> tuple[int, ...]:
        return self._begun, 0 if self._held is None else self._held.shape[2]

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._held is None else {"held": self._held}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._begun, self._held = counters[0], tensors.get("held")

    def step(self, x: Tensor) -> Tensor:
        """[B, C, n] -> [B, C, n], n + 1 once."""
        if self._begun:
            return x
        x = x if self._held is None else torch.cat([self._held, x], 2)
        if x.shape[2] < 2:
            self._held = x.clone()
            return x[:, :, :0]
        self._begun, self._held = 1, None
        rows = x.transpose(1, 2)
        return torch.cat([rows[:, 1:2], rows], 1).transpose(1, 2)


class HiftStream(ModelStream):
    """A batch of streams through a HiftNet (`model`), all at the same point.

    seed [B] int64 or None: of the noise and the start phases. given_f0: F0 comes with every chunk and is not predicted.
    """

    def __init__(
        self, model: Any, backend: str | None, seed: Tensor | None, given_f0: bool, *, exact: bool = True
    ) -> None:
        self._model, self._given = model, given_f0
        used = {n: layer for n, layer in model.layers().items() if not (given_f0 and n.startswith("f0_predictor."))}
        self._layers = LayerStreams(used, backend, exact=exact)
        self._sums = [Sum(native=self._layers.stream(f"ups.{i}").native) for i in range(len(model.stages()))]
        self._reflect = ReflectFirst()
        self.parts = {"layers": self._layers, "reflect": self._reflect}
        self.parts |= {f"sum{i}": one for i, one in enumerate(self._sums)}
        self._layers.stream("m_source").seed = seed
        self._source_dtype = model.m_source.weight.dtype
        steps = self._layers.steps
        self._stages = [[steps(layer) for layer in stage] for stage in model.stages()]
        self._source, self._spectrum = steps(model.m_source), steps(model.stft)
        self._pre, self._post, self._istft = steps(model.conv_pre), steps(model.conv_post), steps(model.istft)

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        self._layers.final = final
        f0 = self._f0(x, **inputs)
        source = self._source(f0.to(self._source_dtype), final)
        spectrum = self._spectrum(source, final).to(x.dtype)
        x = self._pre(x, final)
        for i, (up, down, source_stage, stage) in enumerate(self._stages):
            x = up(x, final)
            if i + 1 == len(self._stages):
                x = self._reflect.step(x)
            x = stage(self._sums[i](x, source_stage(down(spectrum, final), final)), final)
        return self._istft(self._post(x, final), final)

    def _f0(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F0 [B, 1, n] of the next frames: what came with them, or what the model reads from them."""
        if self._given != (f0 is not None) and x.shape[2]:
            expected = "with every chunk of a stream that" if self._given else "only for a stream that"
            raise ArgumentError(f"f0: expected {expected} was begun with f0=True")
        if not self._given:
            read: Tensor = self._model.f0_predictor.through(self._layers, x)
            return read
        return x.new_zeros((x.shape[0], 1, 0)) if f0 is None else f0[:, None]

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """Beside the phase, to which every frame before adds."""
        reads = self._layers.reads
        span = reads("conv_post", *reads("istft", first, last))
        sources: list[tuple[int, int]] = []
        for i in reversed(range(len(self._sums))):
            span = reads(f"mrf.{i}", *span)
            sources.append(reads(f"source_downs.{i}", *reads(f"source_mrf.{i}", *span)))
            shift = 1 if i + 1 == len(self._sums) else 0
            span = reads(f"ups.{i}", span[0] - shift, span[1] - shift)
        mel = reads("conv_pre", *span)
        spectrum = min(low for low, _ in sources), max(high for _, high in sources)
        f0 = reads("m_source", *reads("stft", *spectrum))
        if not self._given:
            names = [name for name in self._model.layers() if name.startswith("f0_predictor.")]
            for name in reversed(names):
                f0 = reads(name, *f0)
        return min(mel[0], f0[0]), max(mel[1], f0[1])
