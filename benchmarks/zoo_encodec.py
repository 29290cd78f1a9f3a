"""EnCodec in the benchmarks: samples to codes and codes to samples, 6 kbit/s."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc.models.segments import Blend

BANDWIDTH = 6.0  # kbit/s


def samples(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    """[batch, channels, S] of whole frames."""
    config = model.config
    frames = max(1, round(audio * config.sample_rate / config.hop))
    return (torch.randn(batch, config.channels, frames * config.hop) * 0.1,)


def codes(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    """Codes [batch, K, T_i] of every segment of so much audio."""
    config = model.config
    frames = max(1, round(audio * config.sample_rate / config.hop))
    books = config.codebooks(BANDWIDTH)
    return tuple(torch.randint(0, config.bins, (batch, books, n)) for n in config.frames(frames * config.hop))


def encode(model: Any, wav: Tensor, backend: str | None = None) -> list[Tensor]:
    """What the first row times."""
    found: list[Tensor] = model.encode(wav, model.config.codebooks(BANDWIDTH), backend=backend)[0]
    return found


def decode(model: Any, *segments: Tensor, backend: str | None = None) -> Tensor:
    """What the second row times."""
    wav: Tensor = model.decode(list(segments), _volumes(model, segments), backend=backend)
    return wav


def pieces(model: Any, wav: Tensor) -> tuple[Tensor, ...]:
    """The segments of one length each as a batch, divided by their volumes."""
    length, stride = model.config.segment_length, model.config.segment_stride
    if length is None:
        return (wav,)
    cuts = [wav[:, :, i : i + length] for i in range(0, wav.shape[2], stride)]
    batches = [torch.cat(group) for group in _by_size(cuts).values()]
    return tuple(x / (x.mean(1).square().mean(1).sqrt()[:, None, None] + 1e-8) for x in batches)


def latents(model: Any, *batches: Tensor) -> tuple[Tensor, ...]:
    """The encoder, which others can run."""
    return tuple(model.encoder(x, None, "torch") for x in batches)


def quantised(model: Any, found: Any, *_: Tensor) -> list[Tensor]:
    """The codes of what the encoder found."""
    parts = found if isinstance(found, tuple) else (found,)
    return [model.quantizer.encode(z, model.config.codebooks(BANDWIDTH), None, "torch") for z in parts]


def looked_up(model: Any, *segments: Tensor) -> tuple[Tensor, ...]:
    """What the codes of segments of one length each stand for."""
    groups = _by_size(segments).values()
    return tuple(model.quantizer.decode(torch.cat(group), None, "torch") for group in groups)


def sounds(model: Any, *batches: Tensor) -> tuple[Tensor, ...]:
    """The decoder, which others can run."""
    return tuple(model.decoder(x, None, "torch") for x in batches)


def joined(model: Any, found: Any, *segments: Tensor) -> Tensor:
    """The segments' sounds, times their volumes, faded into each other."""
    parts = found if isinstance(found, tuple) else (found,)
    volumes = _volumes(model, segments)
    if volumes is None:
        return parts[0]
    rows = [row for part in parts for row in part.split(len(segments[0]))]
    rows = [row * volumes[:, i, None, None] for i, row in enumerate(rows)]
    stride = model.config.segment_stride
    blend = Blend([[row.shape[-1] for row in rows]] * len(segments[0]), stride)
    for i, row in enumerate(rows):
        for item, piece in enumerate(row):
            blend.add(item, i, piece)
    return blend.whole()


def _volumes(model: Any, segments: tuple[Tensor, ...]) -> Tensor | None:
    return torch.full((len(segments[0]), len(segments)), 0.1) if model.config.normalize else None


def _by_size(parts: Any) -> dict[int, list[Tensor]]:
    groups: dict[int, list[Tensor]] = {}
    for part in parts:
        groups.setdefault(part.shape[2], []).append(part)
    return groups
