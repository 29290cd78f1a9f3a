"""`fastvoc vocode` for one file, and what it refuses."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from codec_models import MONO, lively
from command_line import Run
from safetensors.torch import save_file

from fastvoc.checkpoints import Checkpoint
from fastvoc.checkpoints import save as save_checkpoint
from fastvoc.cli import main
from fastvoc.sound.audio import encode, mono, read_audio, resample, to_int16, write_audio
from fastvoc.vocoder import Vocoder


def _pcm(wav: torch.Tensor) -> torch.Tensor:
    return to_int16(wav).float()[None] / 32768


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    write_audio(path, torch.rand(5000) - 0.5, 22050)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.wav"


def test_copy_synthesis(run: Run, model: Path, voc: Vocoder, clip: Path, out: Path) -> None:
    result = run("vocode", clip, out, "--model", model)
    assert (result.code, result.out) == (0, "")
    assert str(out) in result.err
    assert "real-time factor" in result.err
    wav, rate = read_audio(out)
    assert rate == 22050
    assert torch.equal(wav, _pcm(voc(voc.mel(read_audio(clip)[0][0]))))


def test_stereo_of_another_rate_is_told(run: Run, model: Path, voc: Vocoder, tmp_path: Path, out: Path) -> None:
    source = tmp_path / "stereo.flac"
    write_audio(source, torch.rand(2, 44100) - 0.5, 44100)
    result = run("vocode", source, out, "--model", model, "--float")
    assert "2 channels mixed to one, resampled from 44100 to 22050 Hz" in result.err
    wav = read_audio(out)[0]
    assert wav.shape == (1, 22050 // 256 * 256)
    expected = voc(voc.mel(resample(mono(read_audio(source)[0]), 44100, 22050)))
    assert torch.equal(wav[0], expected)


@pytest.mark.parametrize("kind", ["npy", "npy64", "batch", "tensor mel", "single tensor"])
def test_mel_files(run: Run, model: Path, voc: Vocoder, tmp_path: Path, out: Path, kind: str) -> None:
    mel = torch.randn(80, 9) - 5
    path = tmp_path / ("mel.npy" if "npy" in kind or kind == "batch" else "mel.safetensors")
    if kind == "tensor mel":
        save_file({"mel": mel, "other": torch.zeros(3)}, path)
    elif kind == "single tensor":
        save_file({"x": mel}, path)
    else:
        array = mel[None].numpy() if kind == "batch" else mel.numpy()
        np.save(path, array.astype(np.float64) if kind == "npy64" else array)
    assert run("vocode", path, out, "--model", model).code == 0
    assert torch.equal(read_audio(out)[0], _pcm(voc(mel)))


def test_mel_of_another_front_end_is_told(run: Run, model: Path, tmp_path: Path, out: Path) -> None:
    np.save(tmp_path / "loud.npy", torch.rand(80, 90).pow(9).numpy())
    result = run("vocode", tmp_path / "loud.npy", out, "--model", model)
    assert result.code == 0
    assert result.err.startswith(f"warning: {tmp_path}/loud.npy: the mel looks linear magnitudes")


def test_standard_input_and_output(
    model: Path, voc: Vocoder, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    wav = torch.rand(3000) - 0.5
    data = encode(wav, 22050)
    unknown = data.replace(b"data" + len(data[44:]).to_bytes(4, "little"), b"data\xff\xff\xff\xff")
    assert unknown != data
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(unknown)))
    with pytest.raises(SystemExit) as left:
        main(["vocode", "-", "-", "--model", str(model)])
    captured = capsysbinary.readouterr()
    assert left.value.code == 0, captured.err
    expected = voc(voc.mel(read_audio(io.BytesIO(data))[0][0]))
    assert torch.equal(read_audio(io.BytesIO(captured.out))[0], _pcm(expected))
    assert b"real-time factor" in captured.err


def test_plot(run: Run, model: Path, clip: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("vocode", clip, out, "--model", model, "--plot", tmp_path / "p.png")
    assert result.code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert f"{tmp_path}/p.png: waveform and mel" in result.err


def test_plot_without_matplotlib_fails_before_any_sound(
    run: Run, model: Path, clip: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("vocode", clip, out, "--model", model, "--plot", tmp_path / "p.png")
    assert (result.code, result.err) == (2, "error: pictures need the package matplotlib: pip install matplotlib\n")
    assert not out.exists()


def test_into_a_folder(run: Run, model: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    assert run("vocode", clip, tmp_path / "made", "--model", model).code == 0
    assert (tmp_path / "made" / "clip.wav").exists()


def test_existing_files_stay(run: Run, model: Path, clip: Path, out: Path) -> None:
    out.write_bytes(b"old")
    result = run("vocode", clip, out, "--model", model)
    assert (result.code, result.err) == (2, f"error: OUT: {out} exists; --force replaces it\n")
    assert out.read_bytes() == b"old"
    assert run("vocode", clip, out, "--model", model, "--force").code == 0
    assert out.read_bytes() != b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.wav", "o.wav"], "IN: absent.wav: no such file or folder"),
        (["text.wav", "o.wav"], "text.wav: "),
        (["short.wav", "o.wav"], "short.wav: the file ends after"),
        (["tiny.wav", "o.wav"], "at least 385 samples"),
        (["transposed.npy", "o.wav"], "it is transposed"),
        (["numbers.npy", "o.wav"], "numbers.npy: expected a floating-point mel, got int32"),
        (["objects.npy", "o.wav"], "objects.npy: "),
        (["two.safetensors", "o.wav"], "two.safetensors: expected a tensor 'mel' or a single one"),
        (["text.safetensors", "o.wav"], "text.safetensors: no safetensors file"),
        (["nan.npy", "o.wav"], "nan.npy: mel: holds NaN or infinity"),
        (["good.npy", "o.mp3"], "OUT: expected a name that ends in .wav or .flac, got 'o.mp3'"),
        (["good.npy", "absent/o.wav"], "OUT: the folder absent does not exist"),
        (["good.npy", "o.wav", "--plot", "p.jpg"], "--plot: expected a name that ends in .png"),
        (["good.npy", "o.flac", "--float"], "--float: a FLAC file holds integers"),
        (["good.npy", "o.wav", "--model", "no-such-model"], "no-such-model"),
        (["good.npy", "o.wav", "--model", "codec.safetensors"], "codec.safetensors is a codec, not a vocoder"),
        (["good.npy", "o.wav", "--backend", "abacus"], "abacus"),
        (["good.npy", "o.wav", "--device", "toaster"], "toaster"),
        (["good.npy", "o.wav", "--jobs", "0"], "--jobs"),
        (["good.npy"], "OUT"),
        (["good.npy", "o.wav", "--bogus"], "No such option: --bogus"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.wav", "text.safetensors"):
        Path(name).write_text("nothing of the kind")
    Path("short.wav").write_bytes(encode(torch.rand(5000), 22050)[:-20])
    write_audio("tiny.wav", torch.rand(100), 22050)
    np.save("good.npy", np.random.default_rng(0).standard_normal((80, 5), np.float32))
    np.save("transposed.npy", np.zeros((5, 80), np.float32))
    np.save("numbers.npy", np.zeros((80, 5), np.int32))
    np.save("nan.npy", np.full((80, 5), np.nan, np.float32))
    np.save("objects.npy", np.array([Canary()], dtype=object), allow_pickle=True)
    save_file({"a": torch.zeros(80, 5), "b": torch.zeros(80, 5)}, "two.safetensors")
    save_checkpoint(Checkpoint(MONO, dict(lively(MONO).state_dict()), "test"), Path("codec.safetensors"))
    before = sorted(os.listdir())
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model)]
    result = run("vocode", *arguments)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert sorted(os.listdir()) == before


class Canary:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("canary",)
