"""Ragged batches: an item's sound depends on nothing but itself, in every family."""

from __future__ import annotations

import pytest
import torch
from stream_families import FAMILIES, mel_of, vocoder

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from helpers import relative_l2

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
    voc = vocoder(family, "cpp")
    mel = mel_of(voc, 23)
    alone = voc(mel, check=False)
    for position in range(3):
        batch = torch.full((3, voc.n_mels, 41), torch.nan)
        batch[position, :, :23] = mel
        lengths = [41, 41, 41]
        lengths[position] = 23
        wav = voc(batch, lengths, check=False)[position]
        assert torch.equal(wav[: len(alone)], alone)
        assert not wav[len(alone) :].any()


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
