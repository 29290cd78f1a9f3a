"""Vocoders on live signals: spectrograms to samples, chunk by chunk, as in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.model import Array
from fastvoc.nn.streams import ModelStream
from fastvoc.streams.saved import facts_of
from fastvoc.streams.stream import Chunk, Latency, reach


class MelStreamable:
    """A vocoder as its streams see it."""

    step = "frame"
    entries = None

    def __init__(self, vocoder: Any) -> None:
        self._voc = vocoder
        self.device, self.dtype, self.hop = vocoder.device, vocoder.input_dtype, vocoder.hop
        self.stats = vocoder.stats
        self.rate, self.sample_rate = vocoder.sample_rate / vocoder.hop, vocoder.sample_rate

    def samples(self, frames: int) -> int:
        return int(self._voc.config.samples(frames))

    @property
    def latency(self) -> Latency:
        found: Latency = self._voc.latency
        return found

    def lookahead(self, state: ModelStream) -> int:
        return reach(state, self.hop)[1]

    def new_stream(self, options: dict[str, Any]) -> ModelStream:
        known = (*self._voc.model.stream_options, "exact")
        for name in options:
            if name not in known:
                expected = ", ".join(known)
                raise ArgumentError(
                    f"stream: {type(self._voc.model).__name__} knows no option {name!r}, only {expected}"
                )
        state: ModelStream = self._voc.model.stream(self._voc.backend, **options)
        return state

    def facts(self, options: dict[str, Any]) -> dict[str, object]:
        return facts_of(self._voc.model, self._voc.config, options, self._voc.backend)

    def chunk(
        self, value: Chunk, inputs: dict[str, Array], batch: int | None
    ) -> tuple[Tensor, bool, dict[str, Tensor]]:
        bands = self._voc.n_mels
        if value is None:
            x, batched = torch.zeros(batch or 1, bands, 0, dtype=self._voc.input_dtype, device=self.device), False
        else:
            x = self._voc._floats(value, "chunk")
            if x.dim() not in (2, 3) or x.shape[-2] != bands or (x.dim() == 3 and not len(x)):
                raise ShapeError(f"chunk: expected [{bands}, n] or [B, {bands}, n], got {list(x.shape)}")
            batched = x.dim() == 3
            x = (x if batched else x[None]).to(self._voc.input_dtype)
        inputs = {k: self._voc._floats(v, k) if isinstance(v, np.ndarray) else v for k, v in inputs.items()}
        return x, batched, self._voc.model.stream_inputs(x, inputs) if inputs else {}

    def nothing(self, batch: int) -> Tensor:
        return torch.zeros((batch, 1, 0), dtype=torch.float32, device=self.device)

    def result(self, y: Tensor, batched: bool) -> Tensor:
        return (y[:, 0] if batched else y[0, 0]).float().clone()
