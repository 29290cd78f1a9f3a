"""Whole models on a device: accuracy in every dtype, and an item's independence of all that is beside it."""

from __future__ import annotations

import copy
import multiprocessing
from typing import Any

import pytest
import torch
from stream_families import MAKERS

import fastvoc
from fastvoc.errors import BackendError
from fastvoc.nn import pieces
from fastvoc.vocoder import Vocoder
from helpers import relative_l2

pytestmark = pytest.mark.gpu

each_backend = pytest.mark.parametrize("backend", ["torch", "triton", "cuda", None])
each_family = pytest.mark.parametrize("family", sorted(MAKERS))


def on_device(family: str, backend: str | None, dtype: torch.dtype) -> Vocoder:
    voc = MAKERS[family]()
    voc.backend = backend
    try:
        return voc.to("cuda", dtype)
    except BackendError as error:
        pytest.skip(str(error))


def snr(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return -20 * torch.log10(torch.tensor(relative_l2(ours, reference))).item()


def wide(family: str, mel: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """The model in float64 on the CPU."""
    model = copy.deepcopy(MAKERS[family]().model).double()
    with torch.inference_mode():
        wav: torch.Tensor = model(mel.double(), backend="torch", **inputs)
    return wav[:, 0]


@each_backend
@each_family
def test_float32_equals_float64(family: str, backend: str | None) -> None:
    voc = on_device(family, backend, torch.float32)
    given = given_source(voc, 57)
    mel = torch.randn(2, voc.n_mels, 57)
    ours = voc(mel.cuda(), **{name: t.cuda() for name, t in given.items()})
    assert relative_l2(ours, wide(family, mel, **{name: t.double() for name, t in given.items()})) < 2e-5


def given_source(voc: Vocoder, frames: int) -> dict[str, torch.Tensor]:
    """The source of a model that makes one, since a voiced frame here may be an unvoiced one there."""
    if "source" not in getattr(voc.model, "inputs", ()):
        return {}
    return {"source": torch.randn(2, 1, frames * voc.hop) * 0.1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["triton", "cuda", None])
@each_family
def test_narrow_types_err_no_more_than_torch(family: str, backend: str | None, dtype: torch.dtype) -> None:
    voc = on_device(family, backend, dtype)
    given = given_source(voc, 57)
    mel = torch.randn(2, voc.n_mels, 57)
    reference = wide(family, mel, **{name: t.double() for name, t in given.items()})
    there = {name: t.cuda() for name, t in given.items()}
    ours = relative_l2(voc(mel.cuda(), **there), reference)
    torchs = relative_l2(on_device(family, "torch", dtype)(mel.cuda(), **there), reference)
    assert ours <= 1.5 * torchs + 1e-6


@each_backend
def test_the_embedded_voice_keeps_40_db_in_bfloat16(backend: str | None) -> None:
    try:
        voc = fastvoc.load("hifigan", device="cuda", dtype="bf16", backend=backend)
    except BackendError as error:
        pytest.skip(str(error))
    exact = fastvoc.load("hifigan")
    rate = exact.sample_rate
    t = torch.arange(2 * rate) / rate
    wav = sum(torch.sin(2 * torch.pi * 140 * k * t) / k for k in range(1, 20)) * 0.1
    mel = exact.mel(wav * (1 + torch.sin(2 * torch.pi * 3 * t)) / 2)
    reference = exact.model.double()(mel[None].double(), backend="torch")[0, 0]
    if backend == "torch":
        pytest.skip(f"torch itself: {snr(voc(mel.cuda()), reference):.1f} dB")
    assert snr(voc(mel.cuda()), reference) >= 40


@each_backend
@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_item_does_not_depend_on_its_batch(family: str, backend: str | None, dtype: torch.dtype) -> None:
    if backend in (None, "torch"):
        pytest.skip("torch promises no bits")
    voc = on_device(family, backend, dtype)
    mel = torch.randn(8, voc.n_mels, 43, device="cuda")
    alone = voc(mel[5:6])[0]
    for count, at in ((2, 0), (3, 2), (8, 5)):
        batch = torch.randn(count, voc.n_mels, 43, device="cuda")
        batch[at] = mel[5]
        assert torch.equal(voc(batch)[at], alone), (count, at)


@each_backend
@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_chunks_and_pieces_have_the_bits_of_one_call(
    family: str, backend: str | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend in (None, "torch"):
        pytest.skip("torch promises no bits")
    voc = on_device(family, backend, dtype)
    mel = torch.randn(voc.n_mels, 153, device="cuda")
    whole = voc(mel)
    stream = voc.stream()
    chunks = [stream.push(mel[:, t : t + 7]) for t in range(0, 153, 7)]
    assert torch.equal(torch.cat([*chunks, stream.flush()], -1), whole)
    monkeypatch.setattr(pieces, "GPU_PIECE_BYTES", 1)
    for module in voc.model.modules():
        module.__dict__.pop("_networks", None)  # forgets how its networks are cut
    assert torch.equal(voc(mel), whole)


def test_a_fork_after_cuda_raises_and_names_spawn() -> None:
    voc = fastvoc.load("hifigan", device="cuda")
    voc(torch.randn(voc.n_mels, 20, device="cuda"))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        try:
            queue.put(str(fastvoc.load("hifigan", device="cuda")))
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")

    process = context.Process(target=child)
    process.start()
    said = queue.get(timeout=60)
    process.join(10)
    assert "spawn" in said
