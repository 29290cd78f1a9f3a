"""The transformers-style EnCodec against transformers itself: shapes, values, features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import UNUSUAL, codec_implementations, lively, noise

from fastvoc.compat import encodec_transformers as ours
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.runtime.registry import use_backend
from helpers import assert_golden, golden

transformers: Any = pytest.importorskip("transformers")
IMPLS = codec_implementations()
FOLDERS = ("hf_encodec_24k_small", "hf_encodec_24k_small_weight_g", "hf_encodec_48k_small")


def both(name: str) -> tuple[Any, Any]:
    """The golden folder in our class and in theirs."""
    folder = golden(name).dir
    theirs = transformers.EncodecModel.from_pretrained(folder).eval()
    return ours.EncodecModel.from_pretrained(folder), theirs


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 2e-5 * b.square().mean().sqrt())


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", FOLDERS)
def test_golden(name: str, impl: str) -> None:
    case = golden(name)
    model = ours.EncodecModel.from_pretrained(case.dir)
    with use_backend(impl):
        for bandwidth in model.config.target_bandwidths:
            text = f"bw{bandwidth:g}".replace(".", "p")
            made = model.encode(case.inputs["audio"], bandwidth=bandwidth)
            assert_golden(made.audio_codes, case, f"codes_{text}")
            assert_golden(torch.tensor([made.last_frame_pad_length]), case, "last_frame_pad_length")
            decoded = model.decode(
                made.audio_codes, made.audio_scales, last_frame_pad_length=made.last_frame_pad_length
            )
            assert_golden(decoded.audio_values, case, f"audio_{text}")
        if "scales" in case.outputs:
            assert_golden(torch.stack(made.audio_scales), case, "scales")


@pytest.mark.golden
@pytest.mark.parametrize("name", FOLDERS)
def test_same_as_transformers(name: str) -> None:
    mine, theirs = both(name)
    channels = mine.config.audio_channels
    for samples in (1, 321, 50000 if mine.config.chunk_length else 9000):
        wav = torch.randn(2, channels, samples) * 0.1
        mask = torch.ones(2, samples, dtype=torch.bool)
        mask[1, samples - samples // 3 :] = False
        for arguments in ({}, {"padding_mask": mask}, {"bandwidth": mine.config.target_bandwidths[-1]}):
            with torch.no_grad():
                a, b = mine.encode(wav, **arguments), theirs.encode(wav, **arguments)
                assert torch.equal(a.audio_codes, b.audio_codes)
                assert a.last_frame_pad_length == b.last_frame_pad_length
                for x, y in zip(a.audio_scales, b.audio_scales, strict=True):
                    assert x is y is None or close(x, y)
                c, d = (
                    m.decode(o.audio_codes, o.audio_scales, last_frame_pad_length=o.last_frame_pad_length)
                    for m, o in ((mine, a), (theirs, b))
                )
                assert close(c.audio_values, d.audio_values)
                e, f = mine(wav, **arguments), theirs(wav, **arguments)
                assert torch.equal(e.audio_codes, f.audio_codes)
                assert close(e.audio_values, f.audio_values)
                assert [type(v) for v in mine.encode(wav, return_dict=False)] == [torch.Tensor, list, int]
                assert torch.equal(mine(wav, **arguments, return_dict=False)[1], e.audio_values)
                assert torch.equal(mine(wav, None, None, a.audio_codes, a.audio_scales)[0], a.audio_codes)


@pytest.mark.parametrize("name", UNUSUAL)
def test_any_configuration_as_transformers_runs_it(name: str, tmp_path: Path) -> None:
    config = ours.EncodecConfig.of_codec(UNUSUAL[name])
    assert config.to_codec() == UNUSUAL[name]
    fields = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "return_dict")}
    assert ours.EncodecConfig(**fields) == config
    theirs = transformers.EncodecModel(transformers.EncodecConfig(**fields)).eval()
    source = lively(UNUSUAL[name])
    for i, layer in enumerate(theirs.quantizer.layers):
        layer.codebook.embed.copy_(source.quantizer.codebooks[i])
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.3, 0.3)
    theirs.save_pretrained(tmp_path)
    mine = ours.EncodecModel.from_pretrained(tmp_path)
    assert mine.config == config
    for key in ("chunk_length", "chunk_stride", "hop_length", "codebook_nbits", "frame_rate", "num_quantizers"):
        assert getattr(mine.config, key) == getattr(theirs.config, key)
    for samples in (3, 4000, 2 * 3920 + 4000):
        wav = noise(UNUSUAL[name], samples)
        with torch.no_grad():
            assert torch.equal(mine.encode(wav)[0], theirs.encode(wav)[0]), samples
            assert close(mine(wav).audio_values, theirs(wav).audio_values), samples


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_we_write_is_what_transformers_reads(name: str, tmp_path: Path) -> None:
    mine = ours.EncodecModel(ours.EncodecConfig.of_codec(UNUSUAL[name])).eval().requires_grad_(False)
    mine.load_state_dict(lively(UNUSUAL[name]).state_dict())
    mine.save_pretrained(tmp_path)
    theirs = transformers.EncodecModel.from_pretrained(tmp_path).eval()
    again = ours.EncodecModel.from_pretrained(tmp_path)
    other = ours.EncodecModel(mine.config).eval().requires_grad_(False)
    other.load_state_dict(theirs.state_dict())
    wav = noise(UNUSUAL[name], 5000)
    with torch.no_grad():
        meant = mine(wav)
        for model in (theirs, again, other):
            made = model(wav)
            assert torch.equal(meant.audio_codes, made.audio_codes)
            assert close(meant.audio_values, made.audio_values)


@pytest.mark.golden
def test_parts_that_others_use() -> None:
    mine, theirs = both("hf_encodec_24k_small")
    wav = torch.randn(1, 1, 5000)
    with torch.no_grad():
        codes = mine.encode(wav).audio_codes[0].transpose(0, 1)
        assert close(mine.quantizer.decode(codes), theirs.quantizer.decode(codes))
        assert close(mine.encoder(wav), theirs.encoder(wav))
        latent = theirs.quantizer.decode(codes)
        assert close(mine.decoder(latent), theirs.decoder(latent))
        for bandwidth in (None, 1.5, 6.0):
            a, b = (m.quantizer.encode(mine.encoder(wav), bandwidth) for m in (mine, theirs))
            assert torch.equal(a, b)
        for a, b in zip(mine.quantizer.layers, theirs.quantizer.layers, strict=True):
            assert torch.equal(a.codebook.embed, b.codebook.embed)
            assert a.codebook.codebook_size == b.codebook.codebook_size
            assert torch.equal(a.encode(latent), b.encode(latent))
            assert torch.equal(a.decode(codes[0]), b.decode(codes[0]))
            assert torch.equal(a.codebook.encode(latent.mT), b.codebook.encode(latent.mT))
        mine.quantizer.layers[0].codebook.embed.copy_(torch.zeros(()))
        assert not torch.equal(mine.quantizer.decode(codes), theirs.quantizer.decode(codes))
    assert mine.device.type == "cpu"
    assert mine.dtype == torch.float32
    assert mine.bits_per_codebook == theirs.bits_per_codebook
    assert ours.EncodecModel.from_pretrained(golden("hf_encodec_24k_small").dir, dtype="bf16").dtype == torch.bfloat16


@pytest.mark.golden
def test_outputs_are_read_in_every_way() -> None:
    model = ours.EncodecModel.from_pretrained(golden("hf_encodec_24k_small").dir)
    made = model.encode(torch.randn(1, 1, 1000))
    assert made[0] is made["audio_codes"] is made.audio_codes
    assert list(made) == ["audio_codes", "audio_scales", "last_frame_pad_length"]
    assert made.to_tuple() == tuple(made[:])
    out = ours.EncodecOutput(audio_values=torch.zeros(1))
    assert list(out) == ["audio_values"]
    assert len(out.to_tuple()) == 1


@pytest.mark.golden
def test_wrong_arguments() -> None:
    model = ours.EncodecModel.from_pretrained(golden("hf_encodec_24k_small").dir)
    wav = torch.randn(1, 1, 1000)
    with pytest.raises(ValueError, match=r"bandwidth: expected one of 1\.5, 3, 6 kbit/s, got 7"):
        model.encode(wav, bandwidth=7.0)
    with pytest.raises(ShapeError, match="wav"):
        model.encode(torch.randn(1, 2, 1000))
    codes, scales, _ = model.encode(wav, return_dict=False)
    with pytest.raises(ArgumentError, match="codes"):
        model.decode(codes + 256, scales)
    with pytest.raises(DtypeError, match="audio_codes"):
        model.decode(codes.float(), scales)
    with pytest.raises(ShapeError, match="audio_codes"):
        model.decode(codes[0], scales)
    with pytest.raises(ArgumentError, match="both or neither"):
        model(wav, audio_codes=codes)
    with pytest.raises(ArgumentError, match="codebook_size"):
        ours.EncodecConfig(codebook_size=100).to_codec()
    stereo = ours.EncodecModel.from_pretrained(golden("hf_encodec_48k_small").dir)
    with pytest.raises(ShapeError, match=r"chunks of \[150, 149, 1\] frames"):
        stereo.encode(torch.randn(1, 2, 47520 + 47545))
    with pytest.raises(LoadError, match=r"model_type .encodec., expected one of speecht5_hifigan"):
        ours.EncodecModel.from_pretrained(golden("hf_speecht5_hifigan").dir)


def sounds(channels: int, *sizes: int) -> list[np.ndarray[Any, Any]]:
    shape = {1: lambda n: (n,), 2: lambda n: (2, n)}[channels]
    return [np.random.default_rng(n).standard_normal(shape(n)).astype(np.float32) for n in sizes]


@pytest.mark.parametrize("tensors", ["pt", "np", None])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": True},
        {"padding": "longest"},
        {"padding": "max_length", "max_length": 6000},
        {"truncation": True, "max_length": 2000},
        {"truncation": True},
        {"padding": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["mono", "mono-left", "stereo", "chunked", "chunked-mono"])
def test_features_as_transformers_makes_them(kind: str, arguments: dict[str, Any], tensors: str | None) -> None:
    options: dict[str, Any] = {"feature_size": 1 if "mono" in kind else 2, "sampling_rate": 4000}
    if "chunked" in kind:
        options |= {"chunk_length_s": 0.25, "overlap": 0.02}
    if "left" in kind:
        options |= {"padding_side": "left", "padding_value": -0.5}
    mine = ours.EncodecFeatureExtractor(**options)
    theirs = transformers.EncodecFeatureExtractor(**options)
    assert (mine.chunk_length, mine.chunk_stride) == (theirs.chunk_length, theirs.chunk_stride)
    several = sounds(options["feature_size"], 4999, 3000, 4100)
    listed = [several[2].tolist()] if "mono" in kind else []  # two lists would be two mono sounds
    for raw in (several, several[0], [several[1]], several[0].astype(np.float64), *listed):
        call: dict[str, Any] = {"return_tensors": tensors, "sampling_rate": 4000, **arguments}
        if arguments.get("truncation") and "max_length" not in arguments and "chunked" not in kind:
            with pytest.raises(ArgumentError, match="max_length"):
                mine(raw, **call)
            continue
        if raw is several and tensors and arguments in ({"padding": False}, {"padding": "max_length"}):
            continue  # sounds of several lengths make no tensor
        expected = theirs(raw, **call)
        made = mine(raw, **call)
        assert set(made) == set(expected)
        for key, value in expected.items():
            assert type(made[key]) is type(value), key
            for a, b in zip(made[key], value, strict=True):
                assert a.dtype == b.dtype
                assert np.array_equal(np.asarray(a), np.asarray(b)), key


def test_wrong_features() -> None:
    mono, stereo = ours.EncodecFeatureExtractor(), ours.EncodecFeatureExtractor(2)
    with pytest.warns(UserWarning, match="taken for 24000 Hz"):
        mono(np.zeros(100, np.float32))
    with pytest.raises(ValueError, match="sampling_rate: expected 24000"):
        mono(np.zeros(100, np.float32), sampling_rate=16000)
    with pytest.raises(ShapeError, match="raw_audio: expected at least one sound, got an empty list"):
        mono([], sampling_rate=24000)
    with pytest.raises(ShapeError, match=r"expected \[S\], mono, got \[2, 100\]"):
        mono(np.zeros((2, 100), np.float32), sampling_rate=24000)
    with pytest.raises(ShapeError, match=r"expected \[2, S\], got \[100\]"):
        stereo(np.zeros(100, np.float32), sampling_rate=24000)
    with pytest.raises(ArgumentError, match="padding, truncation"):
        mono(np.zeros(100, np.float32), sampling_rate=24000, padding=True, truncation=True)
    with pytest.raises(ArgumentError, match="return_tensors"):
        mono(np.zeros(100, np.float32), sampling_rate=24000, return_tensors="tf")
    with pytest.raises(ArgumentError, match="padding"):
        mono(np.zeros(100, np.float32), sampling_rate=24000, padding="most")


@pytest.mark.golden
def test_extractor_of_a_folder(tmp_path: Path) -> None:
    folder = golden("hf_encodec_48k_small").dir
    made = ours.EncodecFeatureExtractor.from_pretrained(folder)
    assert (made.feature_size, made.sampling_rate, made.chunk_stride) == (2, 48000, 47520)
    theirs = transformers.EncodecFeatureExtractor(feature_size=1, sampling_rate=8000, padding_value=0.5)
    theirs.save_pretrained(tmp_path)
    assert os.listdir(tmp_path) == ["preprocessor_config.json"]
    made = ours.EncodecFeatureExtractor.from_pretrained(tmp_path)
    assert (made.feature_size, made.sampling_rate, made.padding_value, made.chunk_length_s) == (1, 8000, 0.5, None)
    assert ours.EncodecFeatureExtractor.from_pretrained(tmp_path, overlap=0.1).overlap == 0.1
    made.save_pretrained(tmp_path / "again")
    again = transformers.EncodecFeatureExtractor.from_pretrained(tmp_path / "again")
    assert again.to_dict() == theirs.to_dict()


@pytest.mark.golden
def test_people_s_example() -> None:
    """Features, encode, decode and forward as in the documentation of transformers."""
    folder = golden("hf_encodec_48k_small").dir
    model, processor = ours.EncodecModel.from_pretrained(folder), ours.EncodecFeatureExtractor.from_pretrained(folder)
    inputs = processor(raw_audio=sounds(2, 50000)[0], sampling_rate=processor.sampling_rate, return_tensors="pt")
    assert inputs["input_values"].shape == (1, 2, 95520)
    encoded = model.encode(inputs["input_values"], inputs["padding_mask"])
    assert encoded.audio_codes.shape == (3, 1, 2, 150)
    wav = model.decode(encoded.audio_codes, encoded.audio_scales, inputs["padding_mask"])[0]
    assert wav.shape == (1, 2, 95520)
    assert model(**inputs.to("cpu")).audio_values.shape == (1, 2, 95520)
