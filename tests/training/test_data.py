"""Clips and the batches drawn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.sound import audio
from fastvoc.training.config import TrainConfig
from fastvoc.training.data import Clips, find_clips, read_clip


def test_a_folder_gives_its_clips_sorted_at_all_levels(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "deep.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("no clip")
    assert [p.name for p in find_clips(folder)] == ["deep.wav", "clip0.npy", "clip1.npy", "clip2.npy"]


def test_a_list_may_be_the_published_one(folder: Path) -> None:
    (folder / "LJ001.wav").write_bytes(b"")
    listing = folder / "training.txt"
    listing.write_text("LJ001|Printing, in the only sense\nclip1.npy\n\n")
    assert find_clips(listing) == [folder / "LJ001.wav", folder / "clip1.npy"]


@pytest.mark.parametrize(("content", "problem"), [("", "no clip found"), ("gone.wav\n", "listed, but not there")])
def test_a_bad_list_is_refused(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(LoadError, match=problem):
        find_clips(tmp_path / "list.txt")


def test_a_clip_with_nan_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.array([0.0, np.nan], np.float32))
    with pytest.raises(LoadError, match=r"nan\.npy: NaN or infinity in a clip"):
        read_clip(tmp_path / "nan.npy", 22050)


def test_a_clip_without_samples_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros(0, np.float32))
    with pytest.raises(LoadError, match=r"empty\.npy: a clip without samples"):
        read_clip(tmp_path / "empty.npy", 22050)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no clip found"):
        find_clips(tmp_path)
    with pytest.raises(LoadError, match="no such folder"):
        find_clips(tmp_path / "gone")


def test_audio_is_resampled_and_mixed_down(tmp_path: Path) -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(44100) / 44100)
    audio.write_audio(tmp_path / "a.wav", torch.stack([tone, torch.zeros_like(tone)]), 44100)
    wav = read_clip(tmp_path / "a.wav", 22050)
    expected = 0.25 * torch.sin(2 * torch.pi * 440 * torch.arange(22050) / 22050)
    assert wav.shape == (22050,)
    torch.testing.assert_close(wav[1000:-1000], expected[1000:-1000], rtol=0, atol=1e-3)


def test_samples_may_be_float_or_16_bit(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0, 16384, -32768], np.int16))
    assert read_clip(tmp_path / "a.npy", 22050).tolist() == [0.0, 0.5, -1.0]
    for bad in (np.zeros((2, 3), np.float32), np.zeros(3, np.int32)):
        np.save(tmp_path / "b.npy", bad)
        with pytest.raises(LoadError, match=r"b\.npy: expected float32 or int16 samples"):
            read_clip(tmp_path / "b.npy", 22050)


def test_a_batch_is_a_function_of_its_number(tiny: TrainConfig, folder: Path) -> None:
    first, second = (Clips(find_clips(folder), tiny) for _ in range(2))
    for number in (3, 0, 7):
        assert torch.equal(first.batch(number), second.batch(number))
    assert not torch.equal(first.batch(0), first.batch(1))
    assert not torch.equal(first.batch(0), Clips(find_clips(folder), tiny.replace(seed=2)).batch(0))


def test_every_clip_comes_once_an_epoch(tiny: TrainConfig, tmp_path: Path) -> None:
    """Constant clips of different sign and slope show which one a segment is from."""
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.linspace(0.1, 0.1 + i, 2048, dtype=np.float32))
    clips = Clips(find_clips(tmp_path), tiny.replace(gain_db=0.0))
    assert len(clips) == 2
    for epoch in range(3):
        starts = torch.cat([clips.batch(2 * epoch), clips.batch(2 * epoch + 1)])[:, 0, 0]
        expected = [0.95 * 0.1 / (0.1 + i) for i in range(4)]
        assert sorted(starts.tolist()) == pytest.approx(sorted(expected), rel=1e-5)


def test_gain_lies_in_its_range_and_short_clips_are_padded(tiny: TrainConfig, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(1000, np.float32) / 3)
    clips = Clips(find_clips(tmp_path), tiny.replace(gain_db=6.0))
    batches = torch.cat([clips.batch(i) for i in range(50)])
    peaks = batches.abs().amax((1, 2))
    assert peaks.max() <= 0.95
    assert 0.95 * 10 ** (-6 / 20) <= peaks.min() < 0.55
    assert (batches[..., 1000:] == 0).all()
    assert (batches[..., :1000] > 0).all()


def test_speeds_change_pitch(tiny: TrainConfig, tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050).astype(np.float32)
    np.save(tmp_path / "a.npy", tone)
    clips = Clips(find_clips(tmp_path), tiny.replace(speeds=(0.5, 2.0), segment_size=4096))
    spectra = torch.fft.rfft(torch.cat([clips.batch(i)[:, 0] for i in range(8)])).abs()
    hertz = spectra.argmax(1) * 22050 / 4096
    assert {round(h / 500) * 500 for h in hertz.tolist()} == {500, 2000}


def test_no_clip_is_an_error(tiny: TrainConfig) -> None:
    with pytest.raises(ArgumentError, match="at least one training clip"):
        Clips([], tiny)
