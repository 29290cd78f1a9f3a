"""Autocast changes no bit: the dtype of its weights decides what a model computes in, with and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import NAMES, Uses, saved, speech
from torch import Tensor

import fastvoc
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig, FloatLm
from fastvoc.runtime.autocast import without_autocast

each_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize(("name", "backend"), [(n, "torch") for n in NAMES] + [(n, None) for n in NAMES[::5]])
def test_every_use_of_a_model_has_the_same_bits(name: str, backend: str | None, folder: Path) -> None:
    path = saved(name, folder)
    loaded = fastvoc.load(path, backend=backend)
    uses = Uses(loaded)
    meant = uses(loaded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = uses(fastvoc.load(path, backend=backend))
        assert torch.is_autocast_enabled("cpu")
    for key, value in meant.items():
        assert ours[key].dtype == value.dtype, key
        assert torch.equal(ours[key], value), key


def _gradients(
    model: torch.nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, autocast: torch.dtype | None
) -> list[Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        y = run(x)
    y.square().sum().backward()
    grads = [parameter.grad for parameter in model.parameters()]
    return [t for t in (y.detach(), x.grad, *grads) if t is not None]


_LEARN = [name for name in NAMES if name not in ("int8", "vocos-codes")]


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, torch.bfloat16) for n in _LEARN] + [(n, torch.float16) for n in _LEARN[::5]], ids=str
)
def test_gradients_have_the_same_bits(name: str, dtype: torch.dtype, folder: Path) -> None:
    loaded = fastvoc.load(saved(name, folder))
    uses, model = Uses(loaded), loaded.model.requires_grad_()
    inputs: dict[str, Any] = dict(getattr(model, "warmup_inputs", {}))
    runs: list[tuple[Callable[[Tensor], Tensor], Tensor]]
    if isinstance(loaded, fastvoc.Codec):
        latent = torch.randn(2, loaded.config.dimension, 12)
        runs = [(model.encoder, uses.wav), (model.decoder, latent)]
    else:
        runs = [(lambda mel: model(mel, **inputs), uses.mel)]
    for run, x in runs:
        meant = _gradients(model, run, x, None)
        assert len(meant) > 3
        ours = _gradients(model, run, x, dtype)
        assert all(torch.equal(a, b) for a, b in zip(ours, meant, strict=True))


@each_dtype
def test_entropy_coding_has_the_same_bits(dtype: torch.dtype) -> None:
    lm = FloatLm(EncodecLm(EncodecLmConfig(codebooks=2, codes=8, dim=16, heads=2, layers=2, hidden=16, past=3)))
    meant = lm.start(2).step(None).tobytes()
    with torch.autocast("cpu", dtype=dtype):
        assert lm.start(2).step(None).tobytes() == meant


@each_dtype
def test_mels_are_judged_alike(dtype: torch.dtype) -> None:
    voc = fastvoc.load("hifigan")
    mel = voc.mel(speech())
    others = [mel / 2.3, mel * 8.7, mel.exp(), (mel - mel.mean()) / mel.std(), mel[:, 40:120].t().contiguous()]
    mels = [mel, *others]
    meant = [voc.examine(mel) for mel in mels]
    assert len(set(meant)) > 3
    with torch.autocast("cpu", dtype=dtype):
        assert [voc.examine(mel) for mel in mels] == meant


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_off_inside_and_on_again_after(device: str) -> None:
    def state() -> tuple[bool, torch.dtype]:
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    before = state()
    torch.set_autocast_enabled(device, True)
    try:
        on = state()
        assert on[0]
        assert not without_autocast(state)()[0]
        assert state() == on
        with pytest.raises(ZeroDivisionError):
            without_autocast(lambda: 1 // 0)()
        assert state() == on
    finally:
        torch.set_autocast_enabled(device, before[0])
