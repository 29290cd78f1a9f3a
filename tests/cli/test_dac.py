"""`.dac` files by `fastvoc encode` and `fastvoc decode`."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import Run
from whole_codecs import whole_codec

import fastvoc
import fastvoc.cli
from fastvoc.compat.dac import DACFile
from fastvoc.sound.audio import read_audio, write_audio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small codecs, and a stereo sound at another rate than theirs."""
    folder = tmp_path_factory.mktemp("dac")
    for name in ("dac", "snac"):
        fastvoc.save(whole_codec(name, "torch"), folder / f"{name}.safetensors")
    t = torch.arange(9000) / 16000
    write_audio(folder / "in.wav", torch.stack([torch.sin(900 * t), torch.sin(2000 * t)]) * 0.3, 16000)
    return folder


def test_there_and_back(folder: Path, run: Run) -> None:
    model = ("--model", folder / "dac.safetensors", "--backend", "torch")
    made = run("encode", folder / "in.wav", folder / "out.dac", *model)
    assert made.code == 0, made.err
    assert "resampled from 16000 to 24000 Hz" in made.err
    assert "DAC, 4 codebooks" in made.err
    file = DACFile.load(folder / "out.dac")
    assert (file.codes.shape[:2], file.sample_rate, file.original_length) == ((2, 4), 16000, 9000)
    back = run("decode", folder / "out.dac", folder / "out.wav", *model)
    assert back.code == 0, back.err
    wav, rate = read_audio(folder / "out.wav")
    assert (wav.shape, rate) == ((2, 9000), 16000)
    few = run("encode", folder / "in.wav", folder, "--codebooks", 2, "--force", *model)
    assert few.code == 0, few.err
    assert DACFile.load(folder / "in.dac").codes.shape[1] == 2


def test_standard_output_and_input(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ("--model", folder / "dac.safetensors", "--backend", "torch")
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out, write=lambda text: len(text), flush=lambda: None))
    with pytest.raises(SystemExit) as left:
        fastvoc.cli.main([str(a) for a in ("encode", folder / "in.wav", "-", *model)])
    assert not left.value.code
    monkeypatch.undo()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(out.getvalue())))
    back = run("decode", "-", folder / "piped.wav", *model)
    assert back.code == 0, back.err
    assert read_audio(folder / "piped.wav")[0].shape == (2, 9000)


def test_misuse_is_told(folder: Path, run: Run) -> None:
    dac, snac = folder / "dac.safetensors", folder / "snac.safetensors"
    wav = folder / "in.wav"
    for arguments, said in (
        ((wav, folder / "a.dac", "--model", dac, "--lm"), ".ecdc streams"),
        ((wav, folder / "a.ecdc", "--model", dac), "ends in .dac"),
        ((wav, folder / "a.dac", "--model", dac, "--codebooks", 9), "expected 1..4"),
        ((wav, folder / "a.dac", "--model", dac, "--bandwidth", 7), "bandwidth"),
        ((wav, folder / "a.dac", "--model", snac), "ends in .safetensors"),
        ((wav, folder / "a.ecdc", "--model", snac), "ends in .safetensors"),
        ((wav, folder / "a.safetensors", "--model", snac, "--codebooks", 99), "codebooks"),
    ):
        result = run("encode", *arguments, "--backend", "torch")
        assert result.code != 0
        assert said in " ".join(result.err.split()), result.err
