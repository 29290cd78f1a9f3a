"""DAC and SNAC in the benchmarks: samples to all codes and codes to samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _frames(model: Any, audio: float) -> int:
    config = model.config
    return max(1, round(audio * config.sample_rate / config.hop))


def samples(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    """[batch, 1, S] of whole frames."""
    return (torch.randn(batch, 1, _frames(model, audio) * model.config.hop) * 0.1,)


def codes(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    """Codes [batch, rows, T] of so much audio, and the noise of every stage of a decoder that has any."""
    config, frames = model.config, _frames(model, audio)
    drawn = [torch.randn(batch, 1, n * frames) for n in getattr(config, "noise_steps", ())]
    return torch.randint(0, config.bins, (batch, sum(config.rates), frames)), *drawn


def encode(model: Any, wav: Tensor, backend: str | None = None) -> list[Tensor]:
    """What the first row times."""
    found: list[Tensor] = model.encode(wav, backend=backend)[0]
    return found


def decode(model: Any, frames: Tensor, *noise: Tensor, backend: str | None = None) -> Tensor:
    """What the second row times."""
    given = {"noise": list(noise)} if noise else {}
    wav: Tensor = model.decode([frames], backend=backend, **given)
    return wav


def latents(model: Any, wav: Tensor) -> Tensor:
    """The encoder, which others can run."""
    steps = wav.shape[2] // _frames_of(model, wav)
    made: Tensor = model.encoder.reading(per_frame=(steps,))(wav, backend="torch")
    return made


def _frames_of(model: Any, wav: Tensor) -> int:
    return max(1, wav.shape[2] // model.config.hop)


def quantised(model: Any, found: Any, *_: Tensor) -> list[Tensor]:
    """The codes of what the encoder found."""
    latent = found[0] if isinstance(found, tuple) else found
    return [model.quantizer.encoding(model.config.n_q)(latent, backend="torch")]


def looked_up(model: Any, frames: Tensor, *noise: Tensor) -> tuple[Tensor, ...]:
    """What the codes stand for, and the noise."""
    return model.quantizer.decoding(frames, backend="torch"), *noise


def sounds(model: Any, latent: Tensor, *noise: Tensor) -> Tensor:
    """The decoder, which others can run."""
    if not noise:
        plain: Tensor = model.decoder.reading()(latent, backend="torch")
        return plain
    per_frame = (1, *(n.shape[2] // latent.shape[2] for n in noise))
    made: Tensor = model.decoder.reading("given", per_frame)(latent, *noise, backend="torch")
    return made


def alone(model: Any, found: Any, *_: Tensor) -> Tensor:
    """The sound itself."""
    wav: Tensor = found[0] if isinstance(found, tuple) else found
    return wav
