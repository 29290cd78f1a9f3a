"""The `vocos` package's class, used as its README uses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import fastvoc
from fastvoc.compat import vocos as module
from fastvoc.compat.encodec import EncodecModel
from fastvoc.compat.vocos import Vocos
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.models.vocos_config import VOCOS_ENCODEC_24K
from fastvoc.runtime.registry import use_backend
from helpers import assert_golden, golden, implementations

each_impl = pytest.mark.parametrize("impl", implementations("convnext_block"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder like charactr/vocos-encodec-24khz, at its size, with random weights."""
    config = VOCOS_ENCODEC_24K
    sizes = {"dim": config.dim, "n_fft": config.n_fft, "hop_length": config.hop_length, "padding": "same"}
    backbone = {
        "input_channels": 128,
        "dim": 384,
        "intermediate_dim": 1152,
        "num_layers": 8,
        "adanorm_num_embeddings": 4,
    }
    front = {"encodec_model": "encodec_24khz", "bandwidths": [1.5, 3.0, 6.0, 12.0], "train_codebooks": False}
    values = {
        "feature_extractor": {"class_path": "vocos.feature_extractors.EncodecFeatures", "init_args": front},
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": backbone},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": sizes},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    model = Vocos.from_hparams(tmp_path / "config.yaml")
    assert model.config == config
    state = {name.replace("codebooks.", "feature_extractor."): value for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    return tmp_path


def test_reconstruct_audio_from_encodec_tokens(published: Path) -> None:
    """The README's example, and Bark's: only the import differs."""
    vocos = Vocos.from_pretrained(published)
    audio_tokens = torch.randint(low=0, high=1024, size=(8, 200))
    features = vocos.codes_to_features(audio_tokens)
    bandwidth_id = torch.tensor([2])
    audio = vocos.decode(features, bandwidth_id=bandwidth_id)
    assert features.shape == (1, 128, 200)
    assert audio.shape == (1, 64000)
    assert audio.isfinite().all()
    assert audio.std() > 0
    fine_tokens = audio_tokens.numpy()
    again = vocos.decode(vocos.codes_to_features(torch.from_numpy(fine_tokens)), bandwidth_id=torch.tensor([2]))
    assert torch.equal(again, audio)
    assert torch.equal(vocos.codes_to_features(fine_tokens.astype(np.int16)), features)
    assert torch.equal(vocos.codes_to_features(audio_tokens[:, None].expand(-1, 3, -1))[2:], features)


def test_reading_and_decoding_never_need_encodec(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise LoadError("EnCodec was asked for")

    monkeypatch.setattr(module, "_published_encodec", refuse)
    vocos = Vocos.from_pretrained(published)
    vocos.decode(vocos.codes_to_features(torch.zeros(4, 3, dtype=torch.int64)), bandwidth_id=1)
    with pytest.raises(LoadError, match="EnCodec was asked for"):
        vocos(torch.zeros(1, 4000), bandwidth_id=torch.tensor([1]))


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("name", ["vocos_mel_center", "vocos_mel_same"])
def test_golden_mel(name: str, impl: str) -> None:
    case = golden(name)
    vocos = Vocos.from_pretrained(case.dir)
    with use_backend(impl):
        assert_golden(vocos.decode(case.inputs["features"]), case, "wav")
        assert_golden(vocos(case.inputs["audio"]), case, "wav_copy")
        assert vocos.feature_extractor is not None
        assert_golden(vocos.feature_extractor(case.inputs["audio"]), case, "mid.features_from_audio")
        # What has no meaning for this model has no effect, as upstream.
        assert_golden(vocos.decode(case.inputs["features"], bandwidth_id=torch.tensor([0])), case, "wav")


@pytest.mark.golden
@each_impl
@pytest.mark.parametrize("kind", ["codec", "module"])
def test_golden_codes(kind: str, impl: str) -> None:
    case = golden("vocos_encodec")
    codec = fastvoc.load(case.dir / "encodec_24khz.th")
    vocos = Vocos.from_pretrained(case.dir, encodec=codec if kind == "codec" else EncodecModel(codec.model))
    with use_backend(impl):
        for i, books in enumerate((2, 4, 8, 16)):
            features = vocos.codes_to_features(case.inputs["codes"][:books])
            assert_golden(features, case, f"features_{i}")
            assert_golden(vocos.decode(features, bandwidth_id=torch.tensor([i])), case, f"wav_{i}")
        assert_golden(vocos.feature_extractor.get_encodec_codes(case.inputs["audio"]), case, "codes_from_audio")
        for i in (0, 3):
            assert_golden(vocos(case.inputs["audio"], bandwidth_id=torch.tensor([i])), case, f"wav_copy_{i}")
        mixed = vocos.feature_extractor(case.inputs["audio"], bandwidth_id=torch.tensor([3, 0]))
    for item, i in ((0, 3), (1, 0)):
        codes = case.outputs["codes_from_audio"][: 2 << i]
        assert torch.allclose(mixed[item], vocos.codes_to_features(codes)[item], atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["vocos_mel_center", "vocos_encodec"])
def test_upstream_state_loads(name: str) -> None:
    case = golden(name)
    vocos = Vocos.from_hparams(case.dir / "config.yaml")
    state: dict[str, Tensor] = torch.load(case.dir / "pytorch_model.bin", weights_only=True)
    state["feature_extractor.encodec.encoder.model.0.conv.conv.bias"] = torch.zeros(4)
    result = vocos.load_state_dict(state)
    assert not result.missing_keys
    assert not result.unexpected_keys
    loaded = Vocos.from_pretrained(case.dir).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in vocos.state_dict().items())
    vocos.load_state_dict(loaded)
    with pytest.raises(ArgumentError, match=r"head\.istft\.window is not the configuration's Hann window"):
        vocos.load_state_dict({**state, "head.istft.window": torch.ones(vocos.config.n_fft)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        vocos.load_state_dict({**state, "backbone.more": torch.ones(2)})


@pytest.mark.golden
def test_wrong_arguments_are_named() -> None:
    case = golden("vocos_encodec")
    vocos, mel = Vocos.from_pretrained(case.dir), Vocos.from_pretrained(golden("vocos_mel_same").dir)
    codes = case.inputs["codes"]
    features = vocos.codes_to_features(codes)
    wrong: list[tuple[type[Exception], str, Any]] = [
        (ArgumentError, r"0\.\.1023, got .*1024", lambda: vocos.codes_to_features(codes.clamp(min=1024))),
        (ArgumentError, r"0\.\.1023, got -1", lambda: vocos.codes_to_features(codes - 1 - codes)),
        (ShapeError, r"1\.\.16", lambda: vocos.codes_to_features(torch.cat([codes, codes]))),
        (ShapeError, r"\[K, T\] or \[K, B, T\]", lambda: vocos.codes_to_features(codes[0, 0])),
        (DtypeError, "whole numbers", lambda: vocos.codes_to_features(codes.float())),
        (DtypeError, "whole numbers", lambda: vocos.codes_to_features(codes.float().numpy())),
        (DtypeError, "whole numbers", lambda: vocos.codes_to_features(codes.tolist())),
        (ArgumentError, "takes mels", lambda: mel.codes_to_features(codes)),
        (ArgumentError, "bandwidth_id: .* got None", lambda: vocos.decode(features)),
        (ArgumentError, "bandwidth_id: .* got 4", lambda: vocos.decode(features, bandwidth_id=torch.tensor([4]))),
        (ArgumentError, "bandwidth_id: .* got None", lambda: vocos(case.inputs["audio"])),
        (ShapeError, "bandwidth_id", lambda: vocos.decode(features, bandwidth_id=torch.tensor([1, 2, 3]))),
        (ShapeError, r"audio: expected \[B > 0, S > 0\]", lambda: vocos(torch.zeros(800), bandwidth_id=0)),
        (DtypeError, "audio", lambda: vocos(torch.zeros(1, 800, dtype=torch.int16), bandwidth_id=0)),
        (DtypeError, "features_input", lambda: vocos.decode(features.numpy(), bandwidth_id=0)),
        (ShapeError, r"\[B, 14, T > 0\]", lambda: vocos.decode(features[0], bandwidth_id=0)),
        (LoadError, "no such folder", lambda: Vocos.from_pretrained("nowhere")),
        (LoadError, "No such file", lambda: Vocos.from_hparams("nowhere/config.yaml")),
        (LoadError, "expected vocos", lambda: Vocos.from_pretrained(golden("hifigan_v3").dir)),
    ]
    for error, text, call in wrong:
        with pytest.raises(error, match=text):
            call()


def test_audio_without_a_front_end(tmp_path: Path) -> None:
    config = replace(VOCOS_ENCODEC_24K, num_codebooks=0, adanorm_num_embeddings=None, bandwidths=(), num_layers=1)
    vocos = Vocos(module.VocosModel(config))
    with pytest.raises(ArgumentError, match="does not say which front end"):
        vocos(torch.zeros(1, 4000))
