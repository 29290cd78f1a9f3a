"""Ragged batches: an item's sound depends on nothing but itself, in every family."""

from __future__ import annotations

import copy

import pytest
import torch
from stream_families import FAMILIES, MAKERS, mel_of, vocoder

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.vocoder import Vocoder
from helpers import batches_with, relative_l2

LENGTHS = (17, 40, 5, 23)
BACKENDS = ["torch", pytest.param("cpp", marks=pytest.mark.native)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_is_as_alone(family: str, backend: str, nan_poison: None) -> None:
    voc = vocoder(family, backend)
    mels = [mel_of(voc, n, n) for n in LENGTHS]
    wavs = voc.each(mels, check=False)
    assert [len(w) for w in wavs] == [voc.config.samples(n) for n in LENGTHS]
    for mel, wav in zip(mels, wavs, strict=True):
        alone = voc(mel, check=False)
        assert torch.equal(wav, alone) if backend == "cpp" else relative_l2(wav, alone) < 2e-6


@pytest.mark.native
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_neighbours_change_nothing(family: str) -> None:
    """Nor do threads or the place in the batch."""
    voc = vocoder(family, "cpp")
    mel = torch.full((1, voc.n_mels, 41), torch.nan)
    mel[0, :, :23] = mel_of(voc, 23)
    alone = voc(mel[0, :, :23], check=False)
    for batch, position in batches_with(mel):
        lengths = [41] * len(batch)
        lengths[position] = 23
        wav = voc(batch, lengths, check=False)[position]
        assert torch.equal(wav[: len(alone)], alone)
        assert not wav[len(alone) :].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_extreme_mels_give_bounded_sound(family: str, backend: str) -> None:
    voc = vocoder(family, backend)
    mel = mel_of(voc, 20)
    for extreme in (torch.full_like(mel, 1e4), torch.full_like(mel, -1e4), torch.zeros_like(mel), mel * 1e4):
        wav = voc(extreme, check=False)
        assert wav.isfinite().all()
        assert wav.abs().max() <= 1.0 or family.startswith("vocos")


def made_by(backend: str, voc: Vocoder) -> torch.Tensor:
    voc.backend = backend
    return voc(mel_of(voc, 12), check=False)


@pytest.mark.native
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_weights_follow_the_parameters(family: str) -> None:
    voc = MAKERS[family]()
    used = [(n, p) for n, p in voc.model.named_parameters() if not n.startswith(("cond", "emb_g"))]  # of no speaker
    for name, parameter in used[::5]:
        before = made_by("cpp", voc)
        with torch.no_grad():
            parameter.mul_(-1.5)
        assert not torch.equal(made_by("cpp", voc), before), name
    after = made_by("cpp", voc)
    assert relative_l2(after, made_by("torch", voc)) < 1e-4
    twin = copy.deepcopy(voc)
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter.mul_(0.9)
    assert relative_l2(made_by("cpp", twin), made_by("torch", twin)) < 1e-4
    assert torch.equal(made_by("cpp", voc), after)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith(("bigvgan", "univnet", "vocos-s"))])
def test_gradients_reach_every_parameter(family: str) -> None:
    voc = MAKERS[family]()
    model = voc.model.requires_grad_(True)
    model(mel_of(voc, 12)[None]).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_wrong_mels_are_named() -> None:
    voc = vocoder(FAMILIES[0])
    good = mel_of(voc, 9)
    for wrong, error in ((good[None], ShapeError), (good[:-1], ShapeError), (good.long(), DtypeError)):
        with pytest.raises(error, match=r"mels\[1\]"):
            voc.each([good, wrong])
    with pytest.raises(ShapeError, match="at least one"):
        voc.each([])
    with pytest.raises(ArgumentError, match="NaN"):
        voc.each([good, good * torch.nan], check=True)
