"""What the caller set torch to, default dtype and device, changes no bit of a loaded model and of its front end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import NAMES, Uses, saved, speech
from torch import Tensor

import fastvoc
from fastvoc.compat.bigvgan import BigVGAN
from fastvoc.compat.cosyvoice import HiFTGenerator
from fastvoc.compat.transformers import EncodecModel, HiFTNetModel, SpeechT5HifiGan
from fastvoc.compat.vocos import Vocos
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig, FloatLm
from fastvoc.nn.spectral import IstftHead, Stft
from fastvoc.runtime import flags
from fastvoc.sound.mel import PRESETS, MelSpectrogram
from helpers import golden

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
        if name.startswith("fastvoc.") and name not in ("fastvoc.runtime.library", "fastvoc.runtime.forks"):
            for value in list(vars(module).values()):  # what is there, without what a name would load
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def _assert_equal(ours: dict[str, Tensor], meant: dict[str, Tensor]) -> None:
    assert ours.keys() == meant.keys()
    for name, value in meant.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize(
    ("name", "backend", "half"),  # each in one of the half precisions
    [
        (n, backend, SETTINGS[1 + i % 2])
        for backend, step in ((None, 1), ("torch", 5))
        for i, n in enumerate(NAMES[::step])
    ],
)
def test_every_use_of_a_model_has_the_same_bits(
    name: str, backend: str | None, half: torch.dtype, folder: Path
) -> None:
    path = saved(name, folder)
    loaded = fastvoc.load(path, backend=backend)
    uses = Uses(loaded)
    meant = uses(loaded)
    for setting in (torch.float64, half, META):
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
    voc, wav = fastvoc.load("hifigan"), 0.1 * torch.randn(2, 9000)
    mel = voc.mel(speech())
    judged = [mel, mel.exp(), (mel - mel.mean()) / mel.std(), mel[:, 40:120].t().contiguous()]

    def made() -> tuple[list[Tensor], list[str | None]]:
        rows = [voc.mel(wav[0]), voc(mel)]
        for config in PRESETS.values():
            stream = MelSpectrogram(config).stream()
            rows += [MelSpectrogram(config)(wav), stream._empty()]
            rows += [stream.push(wav[:, :100]), stream.push(wav[:, 100:]), stream.flush()]
        return rows, [voc.examine(mel) for mel in judged]

    _forget()
    with _set(setting):
        ours, found = made()
    _forget()
    theirs, meant = made()
    assert found == meant
    assert len(set(meant)) > 2
    for value, other in zip(ours, theirs, strict=True):
        assert value.dtype == other.dtype
        assert torch.equal(value, other)


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
        beside = torch.nn.Linear(1, 1)
        layers = Stft(64, 16, beside), IstftHead(64, 16, beside)
    beside.to_empty(device="cpu")
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


_FOLDERS: dict[str, tuple[Any, tuple[int, ...], Callable[[Any, Tensor], Any]]] = {
    "chatterbox_hift": (HiFTNetModel, (1, 9, 80), lambda model, mel: model(mel)),
    "cosyvoice2_hift": (HiFTGenerator, (1, 80, 9), lambda model, mel: model.decode(mel, mel.new_ones(1, 1, 9 * 480))),
    "bigvgan_v2_small": (BigVGAN, (1, 100, 9), lambda model, mel: model(mel)),
    "hf_speecht5_hifigan": (SpeechT5HifiGan, (1, 9, 80), lambda model, mel: model(mel)),
    "hf_encodec_24k_small": (EncodecModel, (1, 1, 900), lambda model, wav: model(wav).audio_values),
    "vocos_mel_center": (Vocos, (1, 100, 9), lambda model, mel: model.decode(mel)),
}


@pytest.mark.golden
@pytest.mark.parametrize("name", sorted(_FOLDERS))
def test_other_packages_classes_read_their_folders_alike(name: str) -> None:
    kind, shape, run = _FOLDERS[name]
    x, path = torch.randn(shape), golden(name).dir

    def made() -> Tensor:
        torch.manual_seed(1)
        with torch.inference_mode():
            y: Tensor = run(kind.from_pretrained(path), x)
        return y

    meant = made()
    for setting in SETTINGS:
        _forget()
        with _set(setting):
            ours = made()
        assert ours.dtype == meant.dtype, setting
        assert torch.equal(ours, meant), setting
