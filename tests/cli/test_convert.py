"""`fastvoc convert` and `fastvoc models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_files import DATA, SMALL, random_state, write_jik
from codec_files import file_tensors, original_config
from codec_files import random_state as codec_state
from codec_models import UNUSUAL
from safetensors.torch import load_file

from fastvoc import loading
from fastvoc.checkpoints import Checkpoint, detect_and_load, save
from fastvoc.cli import main


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_convert(name: str, dtype: torch.dtype, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    assert run("convert", DATA / "coqui", out, "--dtype", name) == 0
    shown = capfd.readouterr().err
    assert "coqui" in shown
    assert "22050 Hz" in shown
    original, converted = detect_and_load(DATA / "coqui"), detect_and_load(out)
    assert converted.config == original.config
    assert {tensor.dtype for tensor in load_file(out).values()} == {dtype}
    assert all(torch.equal(converted.state[k], v.to(dtype).float()) for k, v in original.state.items())


def test_convert_a_codec(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = UNUSUAL["stereo"]
    torch.save(file_tensors(codec_state(config), config, "original", "folded"), tmp_path / "codec.th")
    (tmp_path / "config.json").write_text(json.dumps(original_config(config)))
    assert run("convert", tmp_path / "codec.th", tmp_path / "out.safetensors") == 0
    shown = capfd.readouterr().err
    assert "encodec, 16000 Hz, hop 320" in shown
    assert "mel" not in shown
    assert detect_and_load(tmp_path / "out.safetensors").config == config


def test_convert_does_not_overwrite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    assert run("convert", DATA / "coqui", out) == 2
    assert "--force" in capfd.readouterr().err
    assert out.read_bytes() == b"precious"
    assert run("convert", DATA / "coqui", out, "--force") == 0
    assert detect_and_load(out).format == "fastvoc"


def test_convert_refusals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_jik(tmp_path / "in", random_state(SMALL))
    path.write_bytes(path.read_bytes()[:-9])
    for arguments, named in (
        ((path, tmp_path / "out.safetensors"), str(path)),
        ((DATA / "coqui", tmp_path / "out.pt"), ".safetensors"),
        ((DATA / "coqui", tmp_path / "absent" / "out.safetensors"), "absent"),
        ((tmp_path / "nothing", tmp_path / "out.safetensors"), "nothing"),
        ((DATA / "coqui", tmp_path / "out.safetensors", "--dtype", "int8"), "int8"),
    ):
        assert run("convert", *arguments) == 2
        assert named in "".join(capfd.readouterr().err.split("\n"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    voice = tmp_path / "voice.safetensors"
    save(Checkpoint(SMALL, random_state(SMALL), "test", {"licence": "CC0-1.0"}), voice)
    monkeypatch.setattr(loading, "EMBEDDED", {"hifigan": voice})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert run("models") == 0
    rows = {line.split()[0]: line for line in capfd.readouterr().out.splitlines() if " Hz " in line}
    assert {"hifigan", "22050", "embedded", "CC0-1.0"} <= set(rows["hifigan"].split())
    assert "not cached" in rows["microsoft/speecht5_hifigan"]
    assert rows["microsoft/speecht5_hifigan"].split()[-2:] == ["unknown", "unknown"]
