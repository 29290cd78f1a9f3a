"""`fastvoc vocode` for folders: all of it, resumed, in spite of broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import Run

from fastvoc.sound.audio import read_audio, write_audio
from fastvoc.sound.files import FORMATS, READABLE
from fastvoc.vocoder import Vocoder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Audio, mels, nested, hidden and foreign files."""
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name in ("a.wav", "deep/b.flac", ".cache/hidden.wav", ".hidden.wav"):
        write_audio(folder / name, torch.rand(3000) - 0.5, 22050)
    write_audio(folder / "stereo.wav", torch.rand(2, 3000) - 0.5, 16000)
    np.save(folder / "deep/er/c.npy", np.random.default_rng(0).standard_normal((80, 6), np.float32))
    (folder / "notes.txt").write_text("no sound")
    return folder


MADE = ["a.wav", "deep/b.wav", "deep/er/c.wav", "stereo.wav"]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("jobs", [1, 3])
def test_makes_every_file(run: Run, model: Path, voc: Vocoder, clips: Path, tmp_path: Path, jobs: int) -> None:
    threads = torch.get_num_threads()
    try:
        result = run("vocode", clips, tmp_path / "new" / "out", "--model", model, "--jobs", jobs)
    finally:
        torch.set_num_threads(threads)
    assert result.code == 0, result.err
    assert "4 written, 0 already there, 0 failed" in result.err
    assert "1 files: 2 channels mixed to one" in result.err
    assert "1 files: resampled from 16000 to 22050 Hz" in result.err
    assert _files(tmp_path / "new" / "out") == MADE
    expected = voc(torch.from_numpy(np.load(clips / "deep/er/c.npy")))
    torch.testing.assert_close(read_audio(tmp_path / "new/out/deep/er/c.wav")[0][0], expected, atol=1e-4, rtol=0)


def test_goes_on_and_reports_the_broken(run: Run, model: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (clips / "broken.wav").write_text("no sound")
    (clips / "deep" / "nan.npy").write_bytes(b"\x93NUMPY")
    write_audio(clips / "short.wav", torch.rand(50), 22050)
    result = run("vocode", clips, out, "--model", model, "--jobs", 2)
    assert result.code == 1
    assert "4 written, 0 already there, 3 failed" in result.err
    for name in ("broken.wav", "deep/nan.npy", "short.wav"):
        assert f"error: {clips}/{name}: " in result.err
    assert _files(out) == MADE
    times = {name: (out / name).stat().st_mtime_ns for name in MADE}

    again = run("vocode", clips, out, "--model", model)
    assert again.code == 1
    assert "0 written, 4 already there, 3 failed" in again.err
    assert {name: (out / name).stat().st_mtime_ns for name in MADE} == times

    for name in ("broken.wav", "deep/nan.npy", "short.wav"):
        (clips / name).unlink()
    (out / "a.wav").unlink()
    last = run("vocode", clips, out, "--model", model)
    assert last.code == 0
    assert "1 written, 3 already there, 0 failed" in last.err
    assert "4 written" in run("vocode", clips, out, "--model", model, "--force").err


def test_every_format_and_what_is_passed_over(run: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    wav = (torch.rand(24000) - 0.5).numpy()
    names = []
    for kind, suffixes in FORMATS.items():
        for suffix in set(suffixes) - {".mp2"}:  # soundfile does not write it
            names.append(f"a{suffix[1:]}.wav")
            subtype = "OPUS" if suffix == ".opus" else None
            soundfile.write(folder / f"a{suffix[1:]}{suffix}", wav, 24000, format=kind, subtype=subtype)
    for name in ("a.m4a", "b.M4A", "notes.txt", "README", "sub.dir/c.wma"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    result = run("vocode", folder, tmp_path / "out", "--model", model)
    assert result.code == 0, result.err
    assert _files(tmp_path / "out") == sorted(names)
    told = (
        "5 files skipped, their suffix means no audio and no mel that can be read: 2 .m4a, 1 .txt, 1 .wma, 1 no suffix"
    )
    assert told in result.err
    for name in (path for path in folder.iterdir() if path.suffix.lower() in READABLE):
        name.unlink()
    result = run("vocode", folder, tmp_path / "none", "--model", model)
    assert (result.code, told in result.err) == (2, True)


def test_out_inside_in_is_not_an_input(run: Run, model: Path, clips: Path) -> None:
    for written in (4, 0):
        result = run("vocode", clips, clips / "out", "--model", model)
        assert f"{written} written, {4 - written} already there" in result.err


def test_refusals(run: Run, model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([clips, "-"], "OUT: IN is a folder"),
        ([clips, tmp_path / "file"], "OUT: IN is a folder"),
        ([clips, clips], "another folder than IN"),
        ([tmp_path / "empty", tmp_path / "out"], "no audio and no mel files"),
        ([clips, tmp_path / "out", "--plot", "p.png"], "--plot: draws one file"),
    ):
        result = run("vocode", *arguments, "--model", model)
        assert result.code == 2
        assert message in result.err
    np.save(clips / "a.npy", np.zeros((80, 5), np.float32))
    result = run("vocode", clips, tmp_path / "out", "--model", model)
    assert result.code == 2
    assert f"a.npy and {clips}/a.wav would both become" in result.err
    assert not (tmp_path / "out").exists()
