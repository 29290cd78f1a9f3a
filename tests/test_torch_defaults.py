"""What the caller set torch to, default dtype and device, changes no bit of a loaded model and of its front end."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from model_files import NAMES, Uses, saved
from torch import Tensor

import fastvoc
from fastvoc import flags
from fastvoc.compat.cosyvoice import HiFTGenerator
from fastvoc.mel import PRESETS, MelSpectrogram
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig, FloatLm
from fastvoc.nn.spectral import IstftHead, Stft

META = "meta"  # for any device but the CPU
SETTINGS = (torch.float64, torch.float16, torch.bfloat16, META)
each_default = pytest.mark.parametrize("setting", SETTINGS, ids=str)


@contextmanager
def _set(setting: torch.dtype | str) -> Iterator[None]:
    if isinstance(setting, str):
        with torch.device(setting):
            yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(setting)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _forget() -> None:
    """Empties the caches that may hold tensors: what is made next is made under the settings of the moment."""
    flags._flags.clear()
    for name, module in list(sys.modules.items()):
        if name.startswith("fastvoc.") and name not in ("fastvoc._library", "fastvoc.forks"):
            for _, value in inspect.getmembers(module, lambda value: hasattr(value, "cache_clear")):
                value.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def _assert_equal(ours: dict[str, Tensor], meant: dict[str, Tensor]) -> None:
    assert ours.keys() == meant.keys()
    for name, value in meant.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_every_use_of_a_model_has_the_same_bits(name: str, backend: str | None, folder: Path) -> None:
    path = saved(name, folder)
    loaded = fastvoc.load(path, backend=backend)
    uses = Uses(loaded)
    meant = uses(loaded)
    for setting in SETTINGS:
        _forget()
        with _set(setting):
            ours = uses(fastvoc.load(path, backend=backend))
        _assert_equal(ours, meant)
        fastvoc.load(path, backend=backend).warmup()  # with what the caches now hold


@each_default
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["hift-sample", "vocos-center", "hifigan-1"])
def test_a_dtype_asked_for_is_the_one_that_comes(
    name: str, dtype: str, setting: torch.dtype | str, folder: Path
) -> None:
    path = saved(name, folder)
    with _set(setting):
        ours = fastvoc.load(path, dtype=dtype)
    meant = fastvoc.load(path, dtype=dtype)
    for (key, value), other in zip(meant.model.named_buffers(), ours.model.buffers(), strict=True):
        assert other.dtype == value.dtype, key
        assert torch.equal(other, value), key
    _assert_equal(ours.model.state_dict(), meant.model.state_dict())


@each_default
def test_front_ends_have_the_same_bits(setting: torch.dtype | str) -> None:
    wav = 0.1 * torch.randn(2, 9000)
    voc = fastvoc.load("hifigan")
    _forget()

    def made() -> list[Tensor]:
        rows = []
        for config in PRESETS.values():
            stream = MelSpectrogram(config).stream()
            parts = [stream.push(wav[:, :100]), stream.push(wav[:, 100:]), stream.flush()]
            rows += [MelSpectrogram(config)(wav), torch.cat(parts, 2)]
        mel = voc.mel(wav[0])
        noise = 2 * torch.randn(80, 100, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
        assert voc.examine(noise) == said
        return [*rows, mel, voc(mel)]

    said = voc.examine(2 * torch.randn(80, 100, generator=torch.Generator().manual_seed(0)))
    assert said is not None
    _forget()
    with _set(setting):
        ours = made()
    _forget()
    for value, meant in zip(ours, made(), strict=True):
        assert value.dtype == meant.dtype
        assert torch.equal(value, meant)


@each_default
def test_entropy_coding_has_the_same_bits(setting: torch.dtype | str) -> None:
    config = EncodecLmConfig(codebooks=2, codes=8, dim=16, heads=2, layers=2, hidden=16, past=3)
    lm = FloatLm(EncodecLm(config))

    def tables() -> list[bytes]:
        steps, codes = lm.start(2), None
        rows = []
        for i in range(5):
            rows.append(steps.step(codes).tobytes())
            codes = torch.tensor([i % 8, 3], device="cpu").numpy()
        return rows

    with _set(setting):
        ours = tables()
    assert ours == tables()


@each_default
def test_layers_keep_their_window(setting: torch.dtype | str) -> None:
    meant = torch.hann_window(64)
    with _set(setting):
        layers = Stft(64, 16), IstftHead(64, 16)
    for layer in layers:
        assert layer.window.dtype is (torch.float64 if setting is torch.float64 else torch.float32)
        assert torch.equal(layer.window.float(), meant)


@pytest.mark.parametrize("setting", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_generator_built_by_hand_is_the_cast_one(setting: torch.dtype) -> None:
    torch.manual_seed(0)
    with _set(setting):
        ours = HiFTGenerator(base_channels=32)
    meant = HiFTGenerator(base_channels=32).to(setting)
    for (key, value), other in zip(meant.named_buffers(), ours.buffers(), strict=True):
        assert other.dtype == value.dtype, key
        assert torch.equal(other, value), key
    assert all(parameter.dtype is setting for parameter in ours.parameters())
