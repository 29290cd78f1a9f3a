"""Mimi in the benchmarks: samples to codes and codes to samples, 8 codebooks (1.1 kbit/s), as speech models use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvoc.nn.network import Trace, Value

BOOKS = 8


def samples(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    """[batch, 1, S] of whole frames."""
    return (torch.randn(batch, 1, _frames(model, audio) * model.config.hop) * 0.1,)


def codes(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    """Codes [batch, 8, T] of so much audio."""
    return (torch.randint(0, model.config.bins, (batch, BOOKS, _frames(model, audio))),)


def encode(model: Any, wav: Tensor, backend: str | None = None) -> Tensor:
    """What the first row times."""
    found: Tensor = model.encode(wav, BOOKS, backend=backend)[0][0]
    return found


def decode(model: Any, given: Tensor, backend: str | None = None) -> Tensor:
    """What the second row times."""
    wav: Tensor = model.decode([given], backend=backend)
    return wav


def latents(model: Any, wav: Tensor) -> Tensor:
    """The encoder, which others can run."""
    x = model.encoder(wav, None, "torch")
    for layer in model.encoder_transformer.layers:
        x = layer(x, backend="torch")
    found: Tensor = model.downsample(x, backend="torch")
    return found


def stated(model: Any) -> Callable[[Trace, Value], Value]:
    """The same as the network states it."""

    def network(run: Trace, wav: Value) -> Value:
        return run(model.downsample, model.encoder_transformer.network(run, model.encoder.network(run, wav)))

    return network


def quantised(model: Any, found: Tensor, *_: Tensor) -> Tensor:
    """The codes of what the encoder found."""
    parts = (model.quantizer.semantic, 1), (model.quantizer.acoustic, BOOKS - 1)
    return torch.cat([q.rvq.encode(q.input_proj(found, backend="torch"), n, None, "torch") for q, n in parts], 1)


def looked_up(model: Any, given: Tensor) -> tuple[Tensor, ...]:
    """What the codes stand for."""
    return (model.quantizer.decoding(given, backend="torch"),)


def sounds(model: Any, x: Tensor) -> Tensor:
    """The decoder, which others can run."""
    x = model.upsample(x)
    for layer in model.decoder_transformer.layers:
        x = layer(x, backend="torch")
    wav: Tensor = model.decoder(x, None, "torch")
    return wav


def _frames(model: Any, audio: float) -> int:
    return max(1, round(audio * model.config.sample_rate / model.config.hop))
