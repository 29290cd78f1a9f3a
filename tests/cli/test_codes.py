"""`fastvoc encode` and `fastvoc decode` with files of codes, of codecs that have no format of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import Run
from mimi_models import SMALL, lively
from safetensors.torch import save_file

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DecodeError
from fastvoc.sound.audio import read_audio, write_audio
from fastvoc.sound.code_file import CodeFile, read_codes, write_codes

CODES = CodeFile(torch.arange(12).reshape(3, 4) + 60000, "mimi", 24000, 7000, 3)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Mimi, in a file."""
    path = tmp_path_factory.mktemp("models") / "mimi.safetensors"
    fastvoc.save(Codec(lively(SMALL), SMALL), path)
    return path


def test_codes_go_there_and_back(tmp_path: Path) -> None:
    size = write_codes(tmp_path / "codes.safetensors", CODES)
    assert size == (tmp_path / "codes.safetensors").stat().st_size
    again = read_codes(tmp_path / "codes.safetensors")
    assert torch.equal(again.codes, CODES.codes)
    assert again == replace(CODES, codes=again.codes)
    with pytest.raises(ArgumentError, match=r"0\.\.65535"):
        write_codes(tmp_path / "large.safetensors", replace(CODES, codes=CODES.codes * 2))
    assert not (tmp_path / "large.safetensors").exists()


@pytest.mark.parametrize(
    "facts",
    [
        None,
        {},
        {"version": 2, "family": "mimi", "sample_rate": 24000, "samples": 7000, "codebooks": 3},
        {"version": 1, "family": 3, "sample_rate": 24000, "samples": 7000, "codebooks": 3},
        {"version": 1, "family": "mimi", "sample_rate": 24000, "samples": True, "codebooks": 3},
    ],
)
def test_other_files_are_refused(facts: dict[str, object] | None, tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    metadata = None if facts is None else {"fastvoc.codes": json.dumps(facts)}
    save_file({"codes": torch.zeros(3, 4, dtype=torch.uint16)}, path, metadata)
    with pytest.raises(DecodeError, match=r"codes\.safetensors"):
        read_codes(path)
    for content in (b"", b"not at all", path.read_bytes()[:-3]):
        path.write_bytes(content)
        with pytest.raises(DecodeError, match=r"codes\.safetensors"):
            read_codes(path)


def test_sound_goes_there_and_back(run: Run, model: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "in.wav", 0.1 * torch.randn(1, 5000), SMALL.sample_rate)
    where = str(tmp_path / "in.wav"), str(tmp_path / "codes.safetensors"), "--model", str(model)
    done = run("encode", *where, "--codebooks", "3")
    assert done.code == 0, done.err
    assert "3 codebooks" in done.err
    voc = fastvoc.load_codec(model)
    read, _ = read_audio(tmp_path / "in.wav")
    codes = voc.encode(read, codebooks=3)
    made = read_codes(tmp_path / "codes.safetensors")
    assert torch.equal(made.codes, codes.codes[0])
    assert (made.samples, made.codebooks, made.family) == (5000, 3, "mimi")
    back = "decode", where[1], str(tmp_path / "out.wav"), "--model", str(model)
    assert run(*back, "--float").code == 0
    heard, rate = read_audio(tmp_path / "out.wav")
    assert rate == SMALL.sample_rate
    torch.testing.assert_close(heard, voc.decode(codes), rtol=0, atol=1e-5)
    (tmp_path / "folder").mkdir()
    assert run("encode", where[0], str(tmp_path / "folder"), "--model", str(model)).code == 0
    assert read_codes(tmp_path / "folder" / "in.safetensors").codebooks == 4
    for words, text in (
        (("encode", where[0], "-", "--model", str(model)), "standard output"),
        (("encode", *where, "--force", "--lm"), "--lm"),
        (("encode", *where), "exists"),
        (("encode", where[0], str(tmp_path / "a.ecdc"), "--model", str(model)), "safetensors"),
        (("encode", where[0], str(tmp_path / "a.safetensors"), "--model", str(model), "--codebooks", "9"), "codebooks"),
    ):
        refused = run(*words)
        assert refused.code != 0
        assert text in refused.err, refused.err
    for name, wrong, text in (
        ("short", {"samples": 6000}, "frames of codes"),
        ("other", {"family": "snac"}, "--model"),
    ):
        write_codes(tmp_path / f"{name}.safetensors", replace(made, **wrong))
        refused = run("decode", str(tmp_path / f"{name}.safetensors"), str(tmp_path / "no.wav"), "--model", str(model))
        assert refused.code != 0
        assert text in refused.err, refused.err
        assert not (tmp_path / "no.wav").exists()
