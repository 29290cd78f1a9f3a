"""The drafts of HiFTNet for transformers: shapes, golden numbers, folders written and read, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastvoc.compat.transformers import HiFTNetConfig, HiFTNetModel, HiFTNetVocoder
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from helpers import assert_golden, golden, implementations

RATES = {
    "sampling_rate": 24000,
    "upsample_rates": [8, 5, 3],
    "upsample_kernel_sizes": [16, 11, 7],
    "source_resblock_kernel_sizes": [7, 7, 11],
    "source_resblock_dilation_sizes": [[1, 3, 5]] * 3,
}


def small() -> HiFTNetConfig:
    return HiFTNetConfig(**RATES, base_channels=16, f0_predictor_cond_channels=8)  # type: ignore[arg-type]


def test_a_mel_of_100_frames_gives_48000_samples() -> None:
    model = HiFTNetModel(small()).eval()
    assert model(torch.randn(1, 100, 80)).shape == (1, 48000)
    wav, source = model.generate(torch.randn(1, 80, 100))
    assert (wav.shape, source.shape) == ((1, 48000), (1, 1, 48000))
    _, again = model.generate(torch.randn(1, 80, 100), cache_source=source[:, :, :960])
    assert torch.equal(again[:, :, :960], source[:, :, :960])


@pytest.mark.golden
@pytest.mark.parametrize("impl", implementations("nsf_source"))
def test_golden(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case = golden("chatterbox_hift")
    model = HiFTNetModel.from_pretrained(case.dir)
    assert model.config.sampling_rate == 24000
    assert model.config.base_channels == 64
    mel = case.inputs["mel"]
    with torch.inference_mode():
        assert_golden(model.hiftnet.decode(mel, case.inputs["source"]), case, "wav")
        torch.manual_seed(1)
        wav = model(mel.transpose(1, 2))
        torch.manual_seed(1)
        generated, source = model.generate(mel)
        torch.testing.assert_close(generated, wav, rtol=0, atol=1e-4)
        torch.testing.assert_close(model.hiftnet.decode(mel, source), wav, rtol=0, atol=1e-4)

        vocoder = HiFTNetVocoder.from_pretrained(case.dir)
        wav, lengths, f0 = vocoder(mel)
        assert lengths is None
        assert wav.shape == (2, 14 * 480)
        assert_golden(f0, case, "f0")


@pytest.mark.golden
def test_a_batch_of_unequal_mels() -> None:
    case = golden("chatterbox_hift")
    vocoder = HiFTNetVocoder.from_pretrained(case.dir)
    mel = case.inputs["mel"].clone()
    mel[1, :, 6:] = torch.nan
    with torch.inference_mode():
        wav, lengths, f0 = vocoder(mel, [14, 6])
        assert lengths is not None
        assert lengths.tolist() == [14 * 480, 6 * 480]
        assert wav.isfinite().all()
        assert not wav[1, 6 * 480 :].any()
        assert not f0[1, 6:].any()
        torch.testing.assert_close(f0[1:, :6], vocoder(mel[1:, :, :6])[2], rtol=0, atol=1e-3)


@pytest.mark.golden
def test_states_under_the_names_of_both_drafts(tmp_path: Path) -> None:
    case = golden("chatterbox_hift")
    raw = load_file(case.dir / "s3gen.safetensors")
    own = {key.removeprefix("mel2wav."): tensor for key, tensor in raw.items() if key.startswith("mel2wav.")}
    model = HiFTNetModel(HiFTNetModel.from_pretrained(case.dir).config)
    model.load_state_dict({f"hiftnet.{key}": tensor for key, tensor in own.items()})
    mel = case.inputs["mel"]
    with torch.inference_mode():
        assert_golden(model.hiftnet.decode(mel, case.inputs["source"]), case, "wav")
    assert "hiftnet.m_source.l_linear.weight" in model.state_dict()

    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["base_channels"]) == ("hiftnet", 64)
    again = HiFTNetModel.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())

    vocoder = HiFTNetVocoder(model.config)
    state = {key.removeprefix("hiftnet."): tensor for key, tensor in model.state_dict().items()}
    renamed = {
        "conv_pre.weight": "model.input_conv.weight",
        "resblocks.4.convs2.1.bias": "model.layers.1.multi_receptive_field_fusion.1.layers.1.conv2.bias",
        "source_resblocks.2.activations1.0.alpha": "model.layers.2.nsf_res.layers.0.snake_activation_1.alpha",
        "f0_predictor.classifier.weight": "fundamental_frequency_predictor.linear.weight",
    }
    vocoder.load_state_dict({renamed.get(key, key): tensor for key, tensor in state.items()})
    assert all(torch.equal(vocoder.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.golden
def test_refusals() -> None:
    with pytest.raises(LoadError, match="another generator than"):
        HiFTNetModel.from_pretrained(golden("cosyvoice2_hift").dir)
    with pytest.raises(LoadError, match="a bigvgan model, expected hiftnet"):
        HiFTNetModel.from_pretrained(golden("bigvgan_v2_small").dir)
    with pytest.raises(ArgumentError, match="unknown option 'base_channel'"):
        HiFTNetModel.from_pretrained(golden("chatterbox_hift").dir, base_channel=3)
    model = HiFTNetVocoder(small())
    with pytest.raises(ShapeError, match=r"input_features: expected \[B, 80, T\]"):
        model(torch.randn(1, 12, 80))
    with pytest.raises(DtypeError, match="input_lengths: expected whole numbers"):
        model(torch.randn(1, 80, 12), [1.5])
    with pytest.raises(ArgumentError, match="lengths: expected values in"):
        model(torch.randn(1, 80, 12), [13])
    with pytest.raises(ShapeError, match=r"speech_feat: expected \[B, T, 80\]"):
        HiFTNetModel(small())(torch.randn(1, 80, 12))
