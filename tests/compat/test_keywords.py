"""The keywords of loading and saving: every class takes them with one meaning, and none reaches a saved file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from fastvoc.compat import bigvgan, chatterbox, cosyvoice, keywords, vocos
from fastvoc.compat import transformers as ours
from fastvoc.errors import ArgumentError, DeviceError, DtypeError, LoadError
from fastvoc.hub import download as hub
from helpers import golden

pytestmark = pytest.mark.golden

MODELS: dict[str, tuple[Any, str]] = {
    "EncodecModel": (ours.EncodecModel, "hf_encodec_24k_small"),
    "SpeechT5HifiGan": (ours.SpeechT5HifiGan, "hf_speecht5_hifigan"),
    "FastSpeech2ConformerHifiGan": (ours.FastSpeech2ConformerHifiGan, "hf_fastspeech2conformer_hifigan"),
    "UnivNetModel": (ours.UnivNetModel, "hf_univnet"),
    "VocosModel": (ours.VocosModel, "vocos_mel_center"),
    "VocosWithEncodecModel": (ours.VocosWithEncodecModel, "vocos_encodec"),
    "HiFTNetModel": (ours.HiFTNetModel, "chatterbox_hift"),
    "BigVGAN": (bigvgan.BigVGAN, "bigvgan_v2_small"),
    "Vocos": (vocos.Vocos, "vocos_mel_center"),
    "cosyvoice": (cosyvoice.HiFTGenerator, "cosyvoice2_hift"),
    "cosyvoice3": (cosyvoice.CausalHiFTGenerator, "cosyvoice3_causal_hift"),
    "chatterbox": (chatterbox.HiFTGenerator, "chatterbox_hift"),
}
CONFIGS: dict[str, tuple[Any, str]] = {
    "EncodecConfig": (ours.EncodecConfig, "hf_encodec_24k_small"),
    "SpeechT5HifiGanConfig": (ours.SpeechT5HifiGanConfig, "hf_speecht5_hifigan"),
    "UnivNetConfig": (ours.UnivNetConfig, "hf_univnet"),
    "VocosConfig": (ours.VocosConfig, "vocos_mel_center"),
    "HiFTNetConfig": (ours.HiFTNetConfig, "chatterbox_hift"),
    "EncodecFeatureExtractor": (ours.EncodecFeatureExtractor, "hf_encodec_24k_small"),
    "VocosFeatureExtractor": (ours.VocosFeatureExtractor, "vocos_mel_center"),
}
LOADED = {**MODELS, **CONFIGS}
USUAL: dict[str, Any] = {
    "cache_dir": "/nowhere",
    "force_download": False,
    "local_files_only": True,
    "proxies": None,
    "resume_download": None,
    "revision": "main",
    "subfolder": "",
    "token": "hf_SECRET",
    "attn_implementation": "eager",
    "device_map": "cpu",
    "low_cpu_mem_usage": True,
    "trust_remote_code": False,
    "quantization_config": None,
}


def secrets(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if b"SECRET" in p.read_bytes() or b"/nowhere" in p.read_bytes()]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)


@pytest.mark.parametrize("name", LOADED)
def test_usual_keywords_are_taken_and_never_written(name: str, tmp_path: Path) -> None:
    kind, folder = LOADED[name]
    made = kind.from_pretrained(golden(folder).dir, **USUAL)
    if hasattr(made, "save_pretrained"):
        made.save_pretrained(tmp_path, token="hf_SECRET", commit_message="SECRET", max_shard_size="5GB")
        assert secrets(tmp_path) == []
        written = json.loads(next(tmp_path.glob("*config.json")).read_text())
        assert not set(written) & set(USUAL)


@pytest.mark.parametrize("name", LOADED)
def test_local_files_only_asks_nobody(name: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="local_files_only"):
        LOADED[name][0].from_pretrained("some/model", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(AssertionError, match="was asked"):
        LOADED[name][0].from_pretrained("some/model", cache_dir=tmp_path)


@pytest.mark.parametrize("name", LOADED)
def test_subfolders_and_other_caches_are_read(name: str, tmp_path: Path) -> None:
    kind, folder = LOADED[name]
    shutil.copytree(golden(folder).dir, tmp_path / "local" / "part")
    kind.from_pretrained(tmp_path / "local", subfolder="part")
    snapshot = tmp_path / "cache" / "models--some--model" / "snapshots" / "abc"
    shutil.copytree(tmp_path / "local", snapshot)
    options = {"subfolder": "part", "revision": "abc", "cache_dir": tmp_path / "cache", "local_files_only": True}
    kind.from_pretrained("some/model", **options)
    with pytest.raises(LoadError, match="local_files_only"):
        kind.from_pretrained("some/model", **{**options, "revision": "main"})
    with pytest.raises(ArgumentError, match="subfolder"):
        kind.from_pretrained(tmp_path, subfolder="../x")


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, tmp_path: Path) -> None:
    kind, folder = MODELS[name]
    refused = [k for k, meaning in keywords._LOADING.items() if meaning is keywords.Meaning.REFUSED]
    assert "quantization_config" in refused
    for keyword in [*refused, "colour"]:
        with pytest.raises(ArgumentError, match=f"'{keyword}'"):
            kind.from_pretrained(golden(folder).dir, **{keyword: {"a": 1}})
    with pytest.raises(DeviceError, match="device_map"):
        kind.from_pretrained(golden(folder).dir, device_map={"a": "cpu", "b": "meta"})
    with pytest.raises(DtypeError, match="dtype"):
        kind.from_pretrained(golden(folder).dir, dtype="int8")
    made = kind.from_pretrained(golden(folder).dir)
    if hasattr(made, "save_pretrained"):
        wrong = {
            "push_to_hub": True,
            "safe_serialization": False,
            "max_shard_size": "1KB",
            "distributed_checkpoint": True,
        }
        for keyword, value in wrong.items():
            with pytest.raises(ArgumentError, match=keyword):
                made.save_pretrained(tmp_path / "out", **{keyword: value})
        made.save_pretrained(tmp_path / "out", is_main_process=False)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["EncodecModel", "SpeechT5HifiGan", "UnivNetModel"])
def test_auto_is_the_saved_type(name: str, tmp_path: Path) -> None:
    kind, folder = MODELS[name]
    half = kind.from_pretrained(golden(folder).dir, torch_dtype=torch.bfloat16)
    half.save_pretrained(save_directory=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    for stated in (True, False):
        assert kind.from_pretrained(pretrained_model_name_or_path=tmp_path, dtype="auto").dtype is torch.bfloat16
        assert kind.from_pretrained(tmp_path).dtype is torch.float32
        if stated:
            values = json.loads((tmp_path / "config.json").read_text())
            (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k != "dtype"}))


def test_which_weights() -> None:
    folder = golden("hf_speecht5_hifigan").dir
    kept = {path.suffix for path in folder.iterdir()}
    asked = ".safetensors" in kept
    ours.SpeechT5HifiGan.from_pretrained(folder, use_safetensors=asked)
    with pytest.raises(LoadError, match=f"use_safetensors={not asked}"):
        ours.SpeechT5HifiGan.from_pretrained(folder, use_safetensors=not asked)


def test_variants_and_states(tmp_path: Path) -> None:
    model = ours.SpeechT5HifiGan.from_pretrained(golden("hf_speecht5_hifigan").dir)
    doubled = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, variant="twice", state_dict=doubled)
    again, info = ours.SpeechT5HifiGan.from_pretrained(tmp_path, variant="twice", output_loading_info=True)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in doubled.items())
    assert not any(info.values())
    with pytest.raises(LoadError, match="variant='thrice'"):
        ours.SpeechT5HifiGan.from_pretrained(tmp_path, variant="thrice")
    made = ours.SpeechT5HifiGan.from_pretrained(None, config=model.config, state_dict=doubled)
    assert torch.equal(made.state_dict()["conv_pre.weight"], doubled["conv_pre.weight"])
    with pytest.raises(ArgumentError, match="state_dict"):
        ours.SpeechT5HifiGan.from_pretrained(tmp_path, state_dict=doubled)


def test_configurations_keep_what_they_do_not_know(tmp_path: Path) -> None:
    values = json.loads((golden("hf_encodec_24k_small").dir / "config.json").read_text())
    config = ours.EncodecConfig(**values, voice="anna", token="hf_SECRET")
    assert config == ours.EncodecConfig.from_dict(values)
    config.save_pretrained(tmp_path)
    again = ours.EncodecConfig.from_pretrained(tmp_path)
    assert (again.voice, again.to_dict()) == ("anna", config.to_dict())
    assert secrets(tmp_path) == []
    changed, rest = ours.EncodecConfig.from_pretrained(tmp_path, normalize=True, colour=1, return_unused_kwargs=True)
    assert (changed.normalize, rest) == (True, {"colour": 1})
    with pytest.raises(ArgumentError, match="'frame_rate'"):
        ours.EncodecConfig(frame_rate=3)
    theirs = transformers.EncodecConfig(**values)
    assert ours.EncodecModel(theirs).config == config
    given = ours.EncodecConfig.from_dict(values)
    model = ours.EncodecModel.from_pretrained(golden("hf_encodec_24k_small").dir, config=theirs)
    assert model.config == given
    with pytest.raises(ArgumentError, match="expected one of univnet, got encodec"):
        ours.UnivNetModel(theirs)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"token": "hf_SECRET", "sampling_rate": 24000}))
    ours.EncodecFeatureExtractor.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert secrets(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        *((name, lambda c: (c.pop("model_type"), c.pop("architectures", 0))) for name in list(MODELS)[:4]),
        ("SpeechT5HifiGan", lambda c: (c.update(model_type="hifigan"), c.pop("architectures", 0))),
        ("UnivNetModel", lambda c: c.update(model_type="my_vocoder")),
    ],
)
def test_the_class_says_what_a_folder_is(name: str, edit: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    kind, folder = MODELS[name]
    shutil.copytree(golden(folder).dir, tmp_path, dirs_exist_ok=True)
    values = json.loads((tmp_path / "config.json").read_text())
    edit(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    found, expected = kind.from_pretrained(tmp_path), kind.from_pretrained(golden(folder).dir)
    assert all(torch.equal(found.state_dict()[key], tensor) for key, tensor in expected.state_dict().items())
    (tmp_path / "config.json").unlink()
    found = kind.from_pretrained(tmp_path, config=expected.config)
    assert torch.equal(next(found.parameters()), next(expected.parameters()))


def test_options_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="local_files_only, force_download"):
        hub.fetch("some/model", hub.Options(local_files_only=True, force_download=True))
    with pytest.raises(ArgumentError, match="proxies"):
        hub.fetch("some/model", hub.Options(proxies={"https": "x"}, cache_dir=tmp_path))
    assert "SECRET" not in repr(hub.Options(token="hf_SECRET"))
