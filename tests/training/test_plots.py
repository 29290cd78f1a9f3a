"""The picture of a sound, by its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from matplotlib import colormaps
from matplotlib.image import imread

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.sound.mel import HIFIGAN_22K, MelSpectrogram
from fastvoc.training.plots import plot_audio


def picture(path: Path, wav: torch.Tensor, mel: torch.Tensor) -> np.ndarray:
    """The pixels [rows, columns, 3], row 0 on top."""
    plot_audio(path, wav, mel, 22050, 256, title="a title")
    return np.asarray(imread(path))[..., :3]


def spectrogram(image: np.ndarray) -> np.ndarray:
    """The mel's own pixels as loudness 0..1: where and what, both by the colour map that no other part uses."""
    colours = np.asarray(colormaps["viridis"].colors)
    distinct, where = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)
    distances = np.linalg.norm(distinct[:, None] - colours, axis=-1)
    nearest, distance = distances.argmin(1)[where.ravel()], distances.min(1)[where.ravel()]
    mapped = (distance < 0.02).reshape(image.shape[:2])
    rows, columns = np.flatnonzero(mapped.mean(1) > 0.5), np.flatnonzero(mapped.mean(0) > 0.5)
    loudness = (nearest / (len(colours) - 1)).reshape(image.shape[:2])
    return loudness[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_a_louder_band_is_brighter_at_its_rows_and_frames(tmp_path: Path) -> None:
    mel = torch.full((80, 100), -8.0)
    mel[60:70, 20:40] = 0.0
    area = spectrogram(picture(tmp_path / "a.png", torch.zeros(25600), mel))
    height, width = area.shape
    bright = np.argwhere(area > 0.9)
    rows, columns = 80 * (1 - bright[:, 0] / height), 100 * bright[:, 1] / width
    assert rows.min() == pytest.approx(60, abs=1)
    assert rows.max() == pytest.approx(70, abs=1)
    assert columns.min() == pytest.approx(20, abs=1)
    assert columns.max() == pytest.approx(40, abs=1)


def test_a_tone_is_brightest_at_its_band(tmp_path: Path) -> None:
    wav = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(22050) / 22050)
    mel = MelSpectrogram(HIFIGAN_22K)(wav)
    area = spectrogram(picture(tmp_path / "a.png", wav, mel))
    band = 80 * (1 - (area.mean(1).argmax() + 0.5) / area.shape[0])
    assert int(band) == mel.mean(1).argmax()


def test_the_waveform_shows_its_peaks_where_they_are(tmp_path: Path) -> None:
    """One sample of a long sound is enough to reach the top of the plot, at its place in time."""
    wav = torch.zeros(441000)
    wav[110250] = 1.0
    silent = picture(tmp_path / "silent.png", torch.zeros(441000), torch.zeros(80, 1722))
    peaked = picture(tmp_path / "peaked.png", wav, torch.zeros(80, 1722))
    changed = np.argwhere(np.abs(silent - peaked).max(-1) > 0.05)
    frame = np.flatnonzero((silent.max(-1) < 0.2).mean(0) > 0.2)
    left, right = frame[0], frame[-1]
    assert (changed[:, 1].mean() - left) / (right - left) == pytest.approx(0.25, abs=0.01)
    height = np.ptp(changed[:, 0])
    assert height > 0.1 * silent.shape[0]


def test_the_picture_replaces_a_file_only_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail(self: Figure, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_audio(target, torch.zeros(100), torch.zeros(80, 1), 22050, 256)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    good, mel = torch.zeros(100), torch.zeros(80, 1)
    with pytest.raises(ArgumentError, match=r"\.png, got 'a\.jpg'"):
        plot_audio(tmp_path / "a.jpg", good, mel, 22050, 256)
    with pytest.raises(ShapeError, match=r"wav: expected samples \[L\], got \[1, 100\]"):
        plot_audio(tmp_path / "a.png", good[None], mel, 22050, 256)
    with pytest.raises(ShapeError, match=r"mel: expected \[n_mels, T\], got \[80, 0\]"):
        plot_audio(tmp_path / "a.png", good, mel[:, :0], 22050, 256)
    assert not list(tmp_path.iterdir())
