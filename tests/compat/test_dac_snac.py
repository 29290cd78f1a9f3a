"""The classes of dac, snac and Transformers' DAC against what those packages computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from whole_codecs import CONFIGS, sound

from fastvoc.compat.dac import DAC, DACFile
from fastvoc.compat.snac import SNAC
from fastvoc.compat.transformers import DacConfig, DacFeatureExtractor, DacModel
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.models.snac import SnacConfig
from helpers import assert_golden, golden


@pytest.mark.golden
def test_golden_transformers() -> None:
    case = golden("dac_44k_hf")
    model = DacModel.from_pretrained(case.dir)
    audio = case.inputs["audio"]
    assert_golden(model.encoder(audio), case, "mid.encoder")
    made = model.encode(audio)
    assert_golden(made.audio_codes, case, "codes")
    assert_golden(made.quantized_representation, case, "z")
    assert_golden(made.projected_latents, case, "mid.projected_latents")
    assert made.loss.shape == (2,)
    assert_golden(model.quantizer.from_codes(made.audio_codes)[0], case, "z_from_codes")
    assert_golden(model.quantizer.from_latents(made.projected_latents)[0], case, "z_from_latents")
    assert_golden(model.decode(audio_codes=made.audio_codes).audio_values, case, "audio")
    for count in (1, 4):
        few = model.encode(audio, n_quantizers=count)
        assert_golden(few.audio_codes, case, f"codes_n{count}")
        assert_golden(model.decode(few.quantized_representation).audio_values, case, f"audio_n{count}")
    codes = model.encode(case.inputs["audio_odd"]).audio_codes
    assert_golden(codes, case, "codes_odd")
    assert_golden(model.decode(audio_codes=codes).audio_values, case, "audio_odd")
    assert_golden(model.decode(audio_codes=case.inputs["codes_any"]).audio_values, case, "audio_any")
    loss, wav, z, codes, latents = model(audio, return_dict=False)
    assert wav.shape == (2, 6672)
    assert torch.equal(codes, made.audio_codes)
    assert torch.equal(model(audio).audio_values, wav)
    assert (loss.shape, z.shape, latents.shape) == ((2,), (2, 64, 24), (2, 72, 24))


@pytest.mark.golden
def test_transformers_folder_is_written_as_it_was(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    case = golden("dac_44k_hf")
    model = DacModel.from_pretrained(case.dir)
    model.save_pretrained(tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(case.dir / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    again = DacModel.from_pretrained(tmp_path)
    assert again.config == model.config
    fresh = DacModel(model.config)
    fresh.load_state_dict(theirs)
    audio = case.inputs["audio"]
    assert torch.equal(fresh.encode(audio).audio_codes, model.encode(audio).audio_codes)


def test_transformers_misuse() -> None:
    with pytest.raises(ArgumentError, match="power of two"):
        DacModel(DacConfig(codebook_size=1000))
    small = DacConfig(encoder_hidden_size=2, decoder_hidden_size=16, downsampling_ratios=[2, 2], codebook_size=16)
    assert (small.hop_length, small.hidden_size, small.upsampling_ratios) == (4, 8, [2, 2])
    model = DacModel(small)
    with pytest.raises(ArgumentError, match="expected one of them"):
        model.decode()
    with pytest.raises(ShapeError, match="input_values"):
        model.encode(torch.randn(1, 2, 40))


def test_feature_extractor_pads_to_whole_frames() -> None:
    extractor = DacFeatureExtractor(sampling_rate=24000, hop_length=320)
    sounds = [np.ones(1000, np.float32), np.ones(321, np.float32)]
    made = extractor(sounds, sampling_rate=24000, return_tensors="pt")
    assert made["input_values"].shape == (2, 1, 1280)
    assert made["padding_mask"].sum(1).tolist() == [1000, 321]
    assert made["input_values"].sum((1, 2)).tolist() == [1000.0, 321.0]
    assert set(extractor.to_dict()) == {
        "feature_extractor_type",
        "feature_size",
        "hop_length",
        "padding_side",
        "padding_value",
        "return_attention_mask",
        "sampling_rate",
    }
    with pytest.raises(ArgumentError, match="sampling_rate"):
        extractor(sounds, sampling_rate=16000)


@pytest.mark.golden
def test_golden_dac() -> None:
    case = golden("dac_24k")
    file = case.dir / "weights_24khz.pth"
    model = DAC.load(file)
    audio = case.inputs["audio"]
    x = model.preprocess(audio, 24000)
    assert_golden(model.encoder(x), case, "mid.encoder")
    z, codes, latents, commitment, codebook = model.encode(x)
    assert_golden(codes, case, "codes")
    assert_golden(z, case, "z")
    assert_golden(latents, case, "mid.latents")
    assert commitment.shape == codebook.shape == ()
    z_codes, entries, _ = model.quantizer.from_codes(codes)
    assert_golden(z_codes, case, "z_from_codes")
    assert_golden(entries, case, "mid.z_p_from_codes")
    assert_golden(model.quantizer.from_latents(latents)[0], case, "z_from_latents")
    assert_golden(model.decode(z), case, "audio")
    assert_golden(model.decode(z_codes), case, "audio_from_codes")
    assert_golden(model(audio, 24000)["audio"], case, "audio_trimmed")
    made = DAC(**{**torch.load(file, weights_only=True)["metadata"]["kwargs"]})
    made.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    assert torch.equal(made.encode(x, 5)[1], model.encode(x, 5)[1])
    with pytest.raises(ArgumentError, match="sample_rate"):
        model.preprocess(audio, 44100)


@pytest.mark.golden
def test_dac_files_go_out_and_come_back(tmp_path: Path) -> None:
    case = golden("dac_24k")
    model = DAC.load(case.dir / "weights_24khz.pth")
    wav = torch.sin(torch.arange(30000) * 0.05)[None] * torch.tensor([[0.3], [0.1]])
    file = model.compress(wav, 24000)
    assert (file.channels, file.original_length, file.padding) == (2, 30000, True)
    path = DACFile.save(tmp_path / "sound", file)
    assert path.name == "sound.dac"
    back = model.decompress(path)
    assert back.shape == wav.shape
    assert torch.equal(back, model.decompress(file))
    assert model.compress(wav, n_quantizers=2).codes.shape[1] == 2


@pytest.mark.golden
@pytest.mark.parametrize("name", ["snac_24k", "snac_44k"])
def test_golden_snac(name: str) -> None:
    case = golden(name)
    model = SNAC.from_pretrained(case.dir)
    codes = model.encode(case.inputs["audio"])
    for i, level in enumerate(codes):
        assert_golden(level, case, f"codes_{i}")
    assert_golden(model.quantizer.from_codes(codes), case, "mid.z_q")
    noise = iter([case.inputs[f"noise_{i}"] for i in range(len(model.decoder_rates))])

    def drawn(*shape: int, **_: Any) -> torch.Tensor:
        made = next(noise)
        assert tuple(made.shape) == shape
        return made

    with mock.patch("torch.randn", drawn):
        assert_golden(model.decode(codes), case, "audio")
    fresh = SNAC.from_config(case.dir / "config.json")
    fresh.load_state_dict(torch.load(case.dir / "pytorch_model.bin", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(fresh.encode(case.inputs["audio"]), codes, strict=True))
    wav, again = model(case.inputs["audio"])
    assert wav.shape == case.inputs["audio"].shape
    assert len(again) == model.n_codebooks == len(model.vq_strides)


def test_snac_of_numbers() -> None:
    config = CONFIGS["snac"]
    assert isinstance(config, SnacConfig)
    values = config.to_dict()
    model = SNAC(sampling_rate=values.pop("sample_rate"), **values)
    assert (model.hop_length, model.sampling_rate, model.latent_dim) == (6, 24000, 16)
    torch.manual_seed(3)
    first = model.decode(model.encode(sound(100)))
    torch.manual_seed(3)
    assert torch.equal(model.decode(model.encode(sound(100))), first)
    with pytest.raises(ShapeError, match="levels"):
        model.decode([torch.zeros(1, 2, dtype=torch.int64)] * 3)


def test_other_models_are_refused(tmp_path: Path) -> None:
    case = golden("dac_44k_hf")
    with pytest.raises(LoadError, match="expected snac"):
        SNAC.from_pretrained(case.dir)
    with pytest.raises(LoadError, match="expected dac"):
        DAC.load(golden("snac_24k").dir)


def test_orpheus_tokens() -> None:
    from fastvoc.compat.orpheus import levels, tokens

    codes = [torch.tensor([1, 2]), torch.tensor([3, 4, 5, 6]), torch.tensor([7, 8, 9, 10, 11, 12, 13, 4095])]
    made = tokens(codes)
    expected = [1, 3, 7, 8, 4, 9, 10, 2, 5, 11, 12, 6, 13, 4095]
    assert made.tolist() == [code + 10 + 4096 * (i % 7) for i, code in enumerate(expected)]
    assert all(torch.equal(a, b) for a, b in zip(levels(made), codes, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(levels(made.tolist()), codes, strict=True))
    for part in (made[:-1], [], iter(())):
        with pytest.raises(ArgumentError, match="whole frames"):
            levels(part)
    with pytest.raises(ArgumentError, match=r"4106\.\.8201 at 1"):
        levels([10, 9, 0, 0, 0, 0, 0])
    for wrong in (["a"] * 7, [1.5] * 7, torch.full((7,), 10.0)):
        with pytest.raises(DtypeError, match="tokens"):
            levels(wrong)  # type: ignore[arg-type]
    for few in (codes[:1], codes[:2], [code[None] for code in codes]):
        with pytest.raises(ShapeError, match="codes"):
            tokens(few)
    for off in (-1, 4096):
        with pytest.raises(ArgumentError, match=r"0\.\.4095"):
            tokens([torch.tensor([1, off]), *codes[1:]])
    with pytest.raises(DtypeError, match="codes"):
        tokens([codes[0].float(), *codes[1:]])


def test_codes_that_are_no_whole_numbers_are_refused() -> None:
    dac = DAC(2, (2, 2), None, 16, (2, 2), 2, 16, 4)
    snac = SNAC(24000, 2, (2, 2), None, 16, (2, 2), None, 16, 4, (2, 1))
    halves = torch.full((1, 2, 4), 1.5)
    for call in (
        lambda: dac.quantizer.from_codes(halves),
        lambda: snac.decode([halves[:, 0, ::2], halves[:, 0]]),
        lambda: snac.quantizer.from_codes([halves[:, 0, ::2], halves[:, 0]]),
    ):
        with pytest.raises(DtypeError, match=r"codes.*: expected a tensor of whole numbers, got torch.float32"):
            call()
