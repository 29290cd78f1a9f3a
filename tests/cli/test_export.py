"""`fastvoc export`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Run
from exported_files import off_by, outputs
from hift_files import write_cosyvoice

import fastvoc
from fastvoc.vocoder import Vocoder

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def test_a_file_gives_the_samples_of_the_model(run: Run, model: Path, voc: Vocoder, tmp_path: Path) -> None:
    out = tmp_path / "voice.onnx"
    done = run("export", model, out)
    assert done.code == 0, done.err
    for told in ("hifigan, 22050 Hz, hop 256", "mel [batch, 80, frames]", "fp32"):
        assert told in done.err
    mel = torch.randn(80, 7)
    wav = outputs(out.read_bytes())({"mel": mel[None].numpy()})["audio"]
    assert off_by(wav[0, 0], voc(mel)) <= 1e-5


def test_options_reach_the_file(run: Run, model: Path, tmp_path: Path) -> None:
    def stated(name: str) -> dict[str, str]:
        return {prop.key: prop.value for prop in onnx.load(str(tmp_path / name)).metadata_props}

    assert run("export", model, tmp_path / "sherpa.onnx", "--for", "sherpa-onnx", "--dtype", "fp16").code == 0
    assert stated("sherpa.onnx")["model_type"] == "hifigan"
    half = {weight.data_type for weight in onnx.load(str(tmp_path / "sherpa.onnx")).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in half
    write_cosyvoice(tmp_path / "cosyvoice2")
    hift = tmp_path / "cosyvoice2" / "hift.pt"
    files = []
    for name, more in (
        ("one", ("--seed", 1)),
        ("two", ("--seed", 2)),
        ("given", ("--input", "f0", "--input", "noise")),
    ):
        done = run("export", hift, tmp_path / f"{name}.onnx", *more)
        assert done.code == 0, done.err
        files.append(onnx.load(str(tmp_path / f"{name}.onnx")))
    assert files[0] != files[1]
    assert [given.name for given in files[2].graph.input] == ["mel", "f0", "noise"]
    assert "f0 [batch, frames]" in done.err


def test_wrong_arguments_are_told(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "voice.onnx"
    for arguments, message in (
        ((model, tmp_path / "voice.bin"), "OUT: expected a name that ends in .onnx"),
        ((model, tmp_path / "none" / "voice.onnx"), "does not exist"),
        ((model, out, "--input", "f0"), "inputs: HifiGan cannot take 'f0' from outside; there is none to choose"),
        ((tmp_path / "none", out), "no such file"),
        ((model, out, "--for", "tflite"), "tflite"),
    ):
        done = run("export", *arguments)
        assert done.code == 2
        assert message in done.err
    assert not list(tmp_path.iterdir())
    fastvoc.export(fastvoc.load(model), out)
    before = out.read_bytes()
    done = run("export", model, out, "--for", "sherpa-onnx")
    assert done.code == 2
    assert "--force replaces it" in done.err
    assert out.read_bytes() == before
    assert run("export", model, out, "--for", "sherpa-onnx", "--force").code == 0
    assert out.read_bytes() != before


def test_a_place_that_cannot_be_written_is_told_before_any_work(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    done = run("export", tmp_path / "none", folder, "--force")
    assert (done.code, done.err.strip()) == (2, f"error: OUT: {folder} is a folder, expected a file")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    done = run("export", tmp_path / "none", tmp_path / "voice.onnx")
    assert done.code == 2
    assert "cannot be written to" in done.err
    done = run("export", model, tmp_path / "voice.onnx", "--seed", 1 << 24)
    assert done.code == 2
    assert "--seed" in done.err
