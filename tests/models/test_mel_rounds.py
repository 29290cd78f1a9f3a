"""Rounds that bring the mel of a made sound near the given one, at the end of a HiFi-GAN."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fastvoc
from fastvoc.errors import ArgumentError
from fastvoc.loading import loaded, read_checkpoint
from fastvoc.models.hifigan import HIFIGAN_V2, HifiGan, HifiGanConfig
from fastvoc.sound.audio import read_audio
from fastvoc.sound.mel import MelConfig, MelSpectrogram, mel_filterbank
from helpers import ROOT, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("mrf"))
# The front end's logarithms and powers, and a window that is no multiple of the hop.
FRONTS = {
    "ln": MelConfig(8000, 64, 64, 16, 10),
    "log10-power": MelConfig(8000, 50, 50, 16, 8, f_min=80.0, f_max=3500.0, log="log10", power=2.0, scale="htk"),
}
SMALL = HifiGanConfig(
    sample_rate=8000, upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8), upsample_initial_channel=16
)


def model(front: str, rounds: int) -> HifiGan:
    mel = FRONTS[front]
    torch.manual_seed(1)
    made = HifiGan(replace(SMALL, num_mels=mel.n_mels, mel=mel, mel_rounds=rounds)).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5 * 0.7)
    return made


def meant(wav: Tensor, mel: Tensor, config: MelConfig, rounds: int) -> Tensor:
    """The rounds in float64, by torch's transforms and a product of all frames with their overlap."""
    size, hop = config.n_fft, config.hop_length
    frames, side = mel.shape[-1], config.padding
    window, filters = torch.hann_window(size, dtype=torch.float64), mel_filterbank(config, torch.float64)
    shares = (filters / filters.sum(0).clamp(min=1e-30)).t()
    wanted = (mel.double() if config.log == "ln" else mel.double() * 2.302585092994046) / config.power
    x = F.pad(wav.double(), (side, side))[:, 0]
    for number in range(rounds):
        z = torch.stft(x, size, hop, window=window, center=False, return_complex=True)
        bands = (filters @ z.abs() ** config.power).clamp(min=config.floor).log() / config.power
        z = z * (shares @ ((wanted - bands).clamp(-3, 3) * 1.5)).exp()
        pieces = torch.fft.irfft(z, n=size, dim=1) * window[:, None]
        square = (window.square() + (0 if number == rounds - 1 else 1e-6))[None, :, None].expand(1, size, frames)
        length = (1, (frames - 1) * hop + size)
        x, weight = (F.fold(p, length, (1, size), stride=(1, hop))[:, 0, 0] for p in (pieces, square.contiguous()))
        x = x / weight.clamp(min=1e-12)
    return x[:, None, side : side + frames * hop].clamp(-1, 1)


@each_impl
@pytest.mark.parametrize(("rounds", "frames"), [(1, 23), (3, 23), (2, 1)])
@pytest.mark.parametrize("front", FRONTS)
def test_equals_its_meaning(front: str, rounds: int, frames: int, impl: str, nan_poison: None) -> None:
    voc, plain = model(front, rounds), model(front, 0)
    mel = torch.randn(2, voc.config.num_mels, frames) - 4
    expected = meant(plain.double()(mel.double(), backend="torch"), mel, FRONTS[front], rounds)
    assert relative_l2(voc(mel, backend=impl), expected) < 2e-5
    assert relative_l2(voc.double()(mel.double(), backend="torch"), expected) < 1e-6


@each_impl
def test_ragged_batch_equals_single_items(impl: str, nan_poison: None) -> None:
    voc = model("ln", 2)
    lengths = torch.tensor([23, 1, 9])
    mel = torch.randn(3, 10, 23)
    batched = voc(mel, lengths, impl)
    for i, n in enumerate(lengths.tolist()):
        alone = voc(mel[i : i + 1, :, :n].contiguous(), backend=impl)[0]
        assert (
            torch.equal(batched[i, :, : 16 * n], alone)
            if impl == "cpp"
            else relative_l2(batched[i, :, : 16 * n], alone) < 2e-5
        )
        assert not batched[i, :, 16 * n :].any()


def test_every_round_brings_speech_nearer_to_its_mel() -> None:
    checkpoint = read_checkpoint("hifigan")
    wav = read_audio(ROOT / "fastvoc/assets/demo.flac")[0][0, :44032]
    front = MelSpectrogram(checkpoint.config.mel)
    mel = front(wav)
    distances = []
    for rounds in (0, 1, 2, 4, 8):
        made = loaded(replace(checkpoint, config=replace(checkpoint.config, mel_rounds=rounds)))(mel)
        distances.append((front(made) - mel).abs().mean().item())
    assert all(later < 0.95 * sooner for sooner, later in pairwise(distances))
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.native
def test_no_layer_runs_unfused() -> None:
    voc = model("ln", 2)
    rows = list(fastvoc.explain(voc))
    plain = list(fastvoc.explain(model("ln", 0)))
    added = [row.layer for row in rows[len(plain) :]]
    assert added == [
        f"rounds.{name}" for name in ("first", "bands", "bins", "between", "again", "bands.1", "bins.1", "last")
    ]
    assert {row.layer: row.chosen for row in rows if row.chosen != "cpp"} == {}


def test_gradients_reach_every_weight() -> None:
    voc = model("ln", 2).train().requires_grad_(True)
    voc(torch.randn(2, 10, 12)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in voc.parameters())


def test_constants_that_follow_a_cast_serve_calls_of_every_kind() -> None:
    with torch.inference_mode():
        voc = model("ln", 1).double()
    made = [voc.rounds.bands.constant, voc.rounds.bins.constant, voc.rounds.first.window]
    assert [(t.dtype, t.is_inference()) for t in made] == [(torch.float64, False)] * 3


def test_native_file_keeps_the_rounds(tmp_path: Path) -> None:
    voc = model("ln", 2)
    fastvoc.save(fastvoc.vocoder.Vocoder(voc, voc.config, voc.config.mel), tmp_path / "model.safetensors")
    again = fastvoc.load(tmp_path / "model.safetensors")
    assert again.config == voc.config
    mel = torch.randn(10, 9)
    assert torch.equal(again(mel), voc(mel[None])[0, 0])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mel_rounds": -1}, "mel_rounds: got -1, expected a number of rounds from 0 to 256"),
        ({"mel_rounds": True}, "mel_rounds: got True"),
        ({"mel": None}, "mel: got None, expected a front end, since there are mel_rounds"),
        ({"mel": replace(HIFIGAN_V2.mel or FRONTS["ln"], pad="center")}, "expected padding reflect_hop"),
        ({"mel": replace(HIFIGAN_V2.mel or FRONTS["ln"], win_length=800)}, "a window of n_fft"),
        ({"mel": replace(HIFIGAN_V2.mel or FRONTS["ln"], n_fft=256, win_length=256)}, "two hops at least"),
        ({"upsample_rates": (8, 8, 2), "upsample_kernel_sizes": (16, 16, 4)}, "the model's hop, 128"),
        ({"upsample_kernel_sizes": (17, 16, 4, 4)}, "256 samples of every frame"),
    ],
)
def test_wrong_configurations_are_named(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        replace(HIFIGAN_V2, **{"mel_rounds": 2, **values})
