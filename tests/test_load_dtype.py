"""`load(dtype="bf16")` where the CPU multiplies bfloat16, and where that would only take longer."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import model_files
import pytest
import torch

import fastvoc
from fastvoc.runtime import library
from helpers import need_native

MEL = torch.randn(80, 20, generator=torch.Generator().manual_seed(1)) - 5


@pytest.mark.parametrize("isa", [isa for isa in library.ISAS if isa != "avx512_bf16"])
def test_without_products_of_bfloat16_it_is_float32(
    isa: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "cpu_isa", lambda: isa)
    with caplog.at_level(logging.INFO, logger="fastvoc"):
        voc = fastvoc.load("hifigan", dtype="bf16")
    assert voc.dtype is torch.float32
    assert torch.equal(voc(MEL), fastvoc.load("hifigan")(MEL))
    (note,) = voc.notes
    assert "float32, not in bfloat16" in note
    assert isa in note
    assert str(fastvoc.explain(voc)).startswith(note)
    assert note in caplog.text
    assert copy.deepcopy(voc).notes == voc.notes


@pytest.mark.parametrize("name", [name for name in model_files.NAMES if name != "int8"])
def test_no_family_takes_longer_than_in_float32(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in bfloat16, too: what loads is what float32 gives, layer for layer."""
    monkeypatch.setattr(library, "cpu_isa", lambda: "avx512")
    path = tmp_path / "half.safetensors"
    fastvoc.save(fastvoc.load(model_files.saved(name, tmp_path)), path, dtype="bf16")
    half, whole = fastvoc.load(path, dtype="bf16"), fastvoc.load(path)
    assert "computes in float32, not in bfloat16" in str(fastvoc.explain(half))
    assert {tensor.dtype for tensor in half.model.state_dict().values() if tensor.is_floating_point()} == {
        torch.float32
    }
    ours, theirs = list(fastvoc.explain(half)), list(fastvoc.explain(whole))
    assert [(row.layer, row.title, row.chosen) for row in ours] == [
        (row.layer, row.title, row.chosen) for row in theirs
    ]


@pytest.mark.parametrize("isa", ["avx512_bf16", None])
def test_otherwise_it_is_bfloat16(isa: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """None: without the C++ kernels torch computes, in what it is asked for."""
    monkeypatch.setattr(library, "cpu_isa", lambda: isa)
    voc = fastvoc.load("hifigan", dtype="bf16")
    assert voc.dtype is torch.bfloat16
    assert voc.notes == fastvoc.explain(voc).notes == ()


def test_what_is_forced_or_cast_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "cpu_isa", lambda: "avx2")
    assert fastvoc.load("hifigan", dtype="bf16", backend="torch").dtype is torch.bfloat16
    voc = fastvoc.load("hifigan", dtype="bf16").to(torch.bfloat16)
    assert voc.dtype is torch.bfloat16
    assert voc.notes == ()
    need_native()
    assert fastvoc.load("hifigan", dtype=torch.bfloat16, backend="cpp").dtype is torch.bfloat16
