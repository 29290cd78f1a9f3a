"""Every family in bfloat16 on the CPU: every layer native, near its meaning, whatever the threads and the batch."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from codec_models import UNUSUAL, lively, noise
from stream_families import MAKERS, randomised
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.vocoder import Vocoder
from helpers import relative_l2

pytestmark = pytest.mark.native

CODES = VocosConfig(
    input_channels=12,
    dim=24,
    intermediate_dim=40,
    num_layers=2,
    n_fft=80,
    hop_length=20,
    padding="same",
    num_codebooks=4,
    codebook_size=32,
    adanorm_num_embeddings=2,
)
VOCODERS = sorted(MAKERS)
CODECS = sorted(UNUSUAL)


@cache
def vocoder(name: str) -> Vocoder:
    voc = MAKERS[name]() if name in MAKERS else randomised(CODES)
    return voc.to(torch.bfloat16)


@cache
def codec(name: str) -> Codec:
    config = UNUSUAL[name]
    return Codec(lively(config), config).to(torch.bfloat16)


def double(model: Any) -> Any:
    """The same rounded numbers in float64, for the reference."""
    wide = deepcopy(model).double()
    wide.prepare(backend="torch")
    return wide


def inputs_of(voc: Vocoder, frames: int) -> dict[str, Any]:
    """What makes the sound independent of a network that predicts its pitch."""
    return {"f0": torch.full((1, frames), 160.0)} if "f0" in getattr(voc.model, "inputs", ()) else {}


@pytest.mark.parametrize("name", [*VOCODERS, "vocos-codes"])
def test_every_layer_of_a_vocoder_is_native(name: str) -> None:
    voc = vocoder(name)
    assert voc.dtype is torch.bfloat16
    assert {(row.layer, row.chosen) for row in fastvoc.explain(voc) if row.chosen != "cpp"} == set()


@pytest.mark.parametrize("name", CODECS)
def test_every_layer_of_a_codec_is_native(name: str) -> None:
    assert codec(name).dtype is torch.bfloat16
    assert {(row.layer, row.chosen) for row in fastvoc.explain(codec(name)) if row.chosen != "cpp"} == set()
    assert {book.dtype for book in codec(name).model.quantizer.codebooks} == {torch.float32}


@pytest.mark.parametrize("name", VOCODERS)
def test_a_vocoder_is_as_near_its_meaning_as_torch(name: str, nan_poison: None) -> None:
    voc = vocoder(name)
    mel = torch.randn(1, voc.n_mels, 40)
    further = inputs_of(voc, 40)
    meant = double(voc.model)(mel.to(voc.input_dtype).double(), backend="torch", **further)
    errors = {}
    for backend in ("cpp", "torch"):
        wav = voc.model(mel.to(voc.input_dtype), backend=backend, **further)
        errors[backend] = relative_l2(wav, meant)
    assert errors["cpp"] <= max(1.5 * errors["torch"], 5e-3), errors


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_as_near_its_meaning_as_torch(name: str, nan_poison: None) -> None:
    model = codec(name).model
    wide = double(model)
    wav = noise(UNUSUAL[name], 40 * model.config.hop + 3).to(torch.bfloat16)
    z = {backend: model.encoder(wav, None, backend) for backend in ("cpp", "torch")}
    meant = wide.encoder(wav.double(), None, "torch")
    assert relative_l2(z["cpp"], meant) <= max(1.5 * relative_l2(z["torch"], meant), 5e-3)
    codes = torch.randint(0, model.config.bins, (1, model.config.n_q, 40))
    sound = {backend: model.decode_segment(codes, None, None, backend) for backend in ("cpp", "torch")}
    meant = wide.decode_segment(codes, None, None, "torch")
    assert sound["cpp"].dtype is torch.bfloat16
    assert relative_l2(sound["cpp"], meant) <= max(1.5 * relative_l2(sound["torch"], meant), 5e-3)


def test_vocos_takes_codes() -> None:
    voc = vocoder("vocos-codes")
    codes = torch.randint(0, 32, (2, 4, 30))
    wav = voc.decode_codes(codes, bandwidth_id=1)
    features = voc.model.codes_to_features(codes)
    assert features.dtype is torch.float32
    assert torch.equal(voc(features, bandwidth_id=1), wav)
    with voc.stream(bandwidth_id=1) as stream:
        parts = [stream.push(part) for part in features[0].split(7, 1)]
        parts.append(stream.flush())
    assert torch.equal(torch.cat(parts), wav[0])


@pytest.mark.parametrize("name", VOCODERS)
def test_threads_batch_and_padding_do_not_change_a_bit(name: str) -> None:
    voc = vocoder(name)
    mel = torch.randn(voc.n_mels, 37)
    before = torch.get_num_threads()
    results = []
    for threads, batch, position in ((1, 1, 0), (2, 2, 1), (3, 3, 0)):
        torch.set_num_threads(threads)
        stacked = torch.full((batch, voc.n_mels, 45), 1e9)
        stacked[:, :, :37] = torch.randn(batch, voc.n_mels, 37)
        stacked[position, :, :37] = mel
        further = {key: value.expand(batch, -1) for key, value in inputs_of(voc, 45).items()}
        wav: Tensor = voc(stacked, [37] * batch, check=False, **further)[position]
        made = voc.config.samples(37)
        assert wav.isfinite().all()
        assert not wav[made:].any()
        results.append(wav[:made])
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_does_not_depend_on_threads_and_batch(name: str) -> None:
    of = codec(name)
    config = UNUSUAL[name]
    wav, others = noise(config, 20 * config.hop + 5), noise(config, 20 * config.hop + 5, 3)
    before = torch.get_num_threads()
    results = []
    for threads, stacked in ((1, wav), (2, torch.cat([others, wav])), (3, torch.cat([others[:1], wav]))):
        torch.set_num_threads(threads)
        codes = of.encode(stacked, bandwidth=config.bandwidths[-1])
        results.append([*(segment[-1] for segment in codes.segments), of.decode(codes)[-1]])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))
