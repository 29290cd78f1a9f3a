"""Exported files against what the published implementations computed."""

from __future__ import annotations

import pytest
import torch
from exported_files import outputs

import fastvoc
from fastvoc.exporting.export import serialized
from fastvoc.models.levels import packed
from helpers import assert_golden, golden

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

GOLDEN = {
    "hifigan_v2": ("mel", "wav"),
    "hifigan_v3": ("mel", "wav"),
    "hifigan_odd_kernel": ("mel", "wav"),
    "bigvgan_base_small": ("mel", "wav"),
    "bigvgan_v2_small": ("mel", "wav"),
    "vocos_mel_same": ("features", "wav"),
    "vocos_mel_center": ("features", "wav"),
    "hf_univnet": ("input_features", "wav"),
    "chatterbox_hift": ("mel", "wav"),
    "cosyvoice1_hift": ("mel", "wav"),
    "cosyvoice2_hift": ("mel", "wav"),
    "hiftnet_original": ("mel", "wav"),
}


@pytest.mark.golden
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    case, (given, result) = golden(name), GOLDEN[name]
    x = case.inputs[given]
    feeds = {"mel": x.mT if given == "input_features" else x}
    if "source" in case.inputs:
        source = case.inputs["source"]
        feeds["source"] = source if source.dim() == 3 else source[:, None]
    if "noise_sequence" in case.inputs:
        feeds["noise"] = case.inputs["noise_sequence"].mT
    data = serialized(fastvoc.load(case.dir, backend="torch"), inputs=sorted(feeds.keys() - {"mel"}))
    wav = outputs(data)({key: value.contiguous().numpy() for key, value in feeds.items()})["audio"]
    assert_golden(wav.reshape(case.outputs[result].shape), case, result)


@pytest.mark.golden
def test_golden_codes() -> None:
    case = golden("vocos_encodec")
    run = outputs(serialized(fastvoc.load(case.dir, backend="torch")))
    for i, books in enumerate((2, 4, 8, 16)):
        codes = case.inputs["codes"][:books].transpose(0, 1).contiguous()
        rows = torch.full((len(codes),), i)
        wav = run({"codes": codes.numpy(), "bandwidth_id": rows.numpy()})["audio"]
        assert_golden(wav[:, 0], case, f"wav_{i}")


@pytest.mark.golden
def test_golden_encodec() -> None:
    case = golden("encodec_24k")
    run = outputs(serialized(fastvoc.load(case.dir, backend="torch")))
    for bandwidth in ("1p5", "3", "6"):
        wav = run({"codes": case.outputs[f"codes_bw{bandwidth}"].numpy()})["audio"]
        assert_golden(wav, case, f"audio_bw{bandwidth}")


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("dac_24k", {"audio": "codes", "audio_n1": "codes_n1", "audio_n5": "codes_n5"}),
        ("dac_44k_hf", {"audio": "codes", "audio_n1": "codes_n1", "audio_n4": "codes_n4"}),
        ("mimi_hf", {"audio": "codes", "audio_n3": "codes_n3"}),
    ],
)
def test_golden_whole_codecs(name: str, rows: dict[str, str]) -> None:
    case = golden(name)
    run = outputs(serialized(fastvoc.load(case.dir, backend="torch")))
    for sound, codes in rows.items():
        wav = run({"codes": case.outputs[codes].numpy()})["audio"]
        assert_golden(wav.reshape(case.outputs[sound].shape), case, sound)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["snac_24k", "snac_44k"])
def test_golden_snac(name: str) -> None:
    case = golden(name)
    codec = fastvoc.load_codec(case.dir, backend="torch")
    levels = [case.outputs[f"codes_{i}"] for i in range(codec.config.n_q)]
    feeds = {"codes": packed(levels, codec.config.rates).numpy()}
    feeds |= {key: value.numpy() for key, value in case.inputs.items() if key.startswith("noise_")}
    wav = outputs(serialized(codec, inputs=("noise",)))(feeds)["audio"]
    assert_golden(wav, case, "audio")


@pytest.mark.golden
def test_golden_vits() -> None:
    case = golden("vits_hf")
    run = outputs(serialized(fastvoc.load(case.dir, backend="torch")))
    latent = case.inputs["latent"]
    wav = run({"latent": latent.numpy(), "speaker": torch.full((len(latent),), 3).numpy()})["audio"]
    assert_golden(wav, case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("given", ["har", "source"])
def test_golden_kokoro(given: str) -> None:
    case = golden("kokoro_istftnet")
    voc = fastvoc.load(case.dir / "kokoro-v1_0.pth", backend="torch")
    feeds = {name: case.inputs[name].numpy() for name in ("asr", "f0", "n", "style")}
    har = torch.cat([case.inputs["har_magnitude"], case.inputs["har_phase"]], 1)
    feeds[given] = {"har": har, "source": case.inputs["har_source"].mT.contiguous()}[given].numpy()
    wav = outputs(serialized(voc, inputs=(given,)))(feeds)["audio"]
    assert_golden(wav, case, {"har": "wav_given_har", "source": "wav"}[given])


@pytest.mark.golden
def test_golden_rvc() -> None:
    case = golden("rvc_nsf_hifigan")
    voc = fastvoc.load(case.dir / "voice.pth", backend="torch")
    noise = case.inputs["noise_unit"].mT.contiguous()
    feeds = {"latent": case.inputs["latent"], "f0": case.inputs["f0"], "noise": noise}
    run = outputs(serialized(voc, inputs=("noise",)))
    speaker = case.inputs["speaker_id"]
    wav = run({name: value.numpy() for name, value in {**feeds, "speaker": speaker}.items()})["audio"]
    assert_golden(wav, case, "wav")
