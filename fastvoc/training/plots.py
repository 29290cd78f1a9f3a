"""Pictures of speech: the waveform above its log-mel spectrogram. matplotlib is imported when one is drawn."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, FastvocError, ShapeError
from fastvoc.runtime.io import atomic_path

_POINTS = 2000
_DYNAMIC_RANGE = 11.5


def need_matplotlib() -> None:
    """Raises FastvocError where matplotlib is not installed; for callers who would otherwise find out late."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise FastvocError("pictures need the package matplotlib: pip install matplotlib") from error


def plot_audio(
    path: str | os.PathLike[str], wav: Tensor, mel: Tensor, sample_rate: int, hop: int, title: str | None = None
) -> None:
    """Writes a PNG with the waveform on top and the log-mel below, low bands at the bottom, louder is brighter.

    Args:
        path: target, ends in .png; replaced at once when the picture is complete.
        wav: [L] samples in -1..1.
        mel: [n_mels, T] log-mel of the same sound.
        sample_rate, hop: in Hz and samples; they give both plots the same time axis in seconds.
        title: line above the picture.

    Raises:
        ArgumentError: another suffix. ShapeError: a tensor of another rank, or an empty one.
        FastvocError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ArgumentError(f"path: expected a name ending in .png, got {path.name!r}")
    if wav.dim() != 1 or wav.numel() == 0:
        raise ShapeError(f"wav: expected samples [L], got {list(wav.shape)}")
    if mel.dim() != 2 or mel.numel() == 0:
        raise ShapeError(f"mel: expected [n_mels, T], got {list(mel.shape)}")
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wav, mel = wav.detach().float().cpu(), mel.detach().float().cpu()
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    low, high, times = _envelope(wav, sample_rate)
    top.fill_between(times, low, high, linewidth=0.5, step="mid")
    top.set_ylim(-1, 1)
    top.set_ylabel("amplitude")
    seconds = mel.shape[1] * hop / sample_rate
    loudest = float(mel.max())
    bottom.imshow(
        mel.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds, 0, mel.shape[0]),
        vmin=loudest - _DYNAMIC_RANGE,
        vmax=loudest,
    )
    bottom.set_xlim(0, max(seconds, len(wav) / sample_rate))
    bottom.set_ylabel("mel band")
    bottom.set_xlabel("seconds")
    if title is not None:
        figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def _envelope(wav: Tensor, sample_rate: int) -> tuple[list[float], list[float], list[float]]:
    """Lowest and highest sample of each stretch, and its middle in seconds: no peak is lost however long the sound."""
    stretches = wav.tensor_split(min(_POINTS, len(wav)))
    starts = torch.tensor([0, *(len(s) for s in stretches[:-1])], device="cpu").cumsum(0)
    middles = [(float(a) + len(s) / 2) / sample_rate for a, s in zip(starts, stretches, strict=True)]
    return [float(s.min()) for s in stretches], [float(s.max()) for s in stretches], middles
