"""HiFTNet in the benchmarks: what others can run of it, between its source and its inverse transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def heard(model: Any, mel: Tensor) -> tuple[Tensor, Tensor]:
    """The mel, and the spectrum of the source that its F0 makes."""
    f0 = model.predict_f0(mel, backend="torch")
    return mel, model.stft(model.make_source(f0, backend="torch"), backend="torch").to(mel.dtype)


def spectrum(model: Any, mel: Tensor, source: Tensor) -> Tensor:
    """The network: log-mel and the source's spectrum to log-magnitudes and phases."""
    x = model.conv_pre(mel, backend="torch")
    stages = model.stages
    for i, (up, down, source_stage, stage) in enumerate(stages):
        x = up(x, backend="torch")
        if i + 1 == len(stages):
            x = torch.cat([x[:, :, 1:2], x], 2)
        x = stage(x + source_stage(down(source, backend="torch"), backend="torch"), backend="torch")
    y: Tensor = model.conv_post(x, backend="torch")
    return y


def sounding(model: Any, x: Tensor, *_: Tensor) -> Tensor:
    """The inverse transform."""
    wav: Tensor = model.istft(x, backend="torch")
    return wav
