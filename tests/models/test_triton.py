"""Whole models on Triton's kernels: golden cases in the interpreter, and launches of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from codec_models import MONO, STEREO, lively
from stream_families import MAKERS, vocoder
from torch import Tensor

import fastvoc
from fastvoc.checkpoints import detect_and_load
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import ENCODEC_24K
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan
from fastvoc.models.hift_config import COSYVOICE2
from fastvoc.models.hiftnet import HiftNet
from fastvoc.models.vocos import Vocos
from fastvoc.models.vocos_config import VOCOS_MEL_24K
from fastvoc.runtime.registry import use_backend
from helpers import GoldenCase, assert_golden, golden, need_triton


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    need_triton()
    with torch.inference_mode():
        yield


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    [
        "hifigan_odd_kernel",
        pytest.param("hifigan_v3", marks=pytest.mark.slow),
        pytest.param("hifigan_v1_small", marks=pytest.mark.slow),
        pytest.param("hifigan_v2", marks=pytest.mark.slow),
    ],
)
def test_golden_hifigan(name: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    model = HifiGan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    assert_golden(model(case.inputs["mel"], backend="triton"), case, "wav")


@pytest.mark.golden
def test_golden_vocos() -> None:
    case = golden("vocos_mel_same")
    checkpoint = detect_and_load(case.dir)
    model = Vocos(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    assert_golden(model(case.inputs["features"], backend="triton")[:, 0], case, "wav")


def _loaded(name: str) -> tuple[GoldenCase, Any]:
    case = golden(name)
    return case, fastvoc.load(case.dir).model


@pytest.mark.golden
def test_golden_hift() -> None:
    case, model = _loaded("cosyvoice2_hift")
    mel = case.inputs["mel_loud"]
    assert_golden(model(mel, source=case.inputs["source_loud"], backend="triton")[:, 0], case, "wav_loud")
    assert_golden(model.predict_f0(case.inputs["mel"], backend="triton"), case, "f0")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_hiftnet_with_its_pitch_network() -> None:
    case, model = _loaded("hiftnet_original")
    with use_backend("lstm=torch,*=triton"):
        assert_golden(model.predict_f0(case.inputs["mel"]), case, "f0")
        assert_golden(model(case.inputs["mel"], source=case.inputs["source"][:, None]), case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("part", ["short", pytest.param("bw1p5", marks=pytest.mark.slow)])
def test_golden_encodec(part: str) -> None:
    case, model = _loaded("encodec_24k")
    audio = case.inputs["audio_short" if part == "short" else "audio"]
    with use_backend("lstm=torch,*=triton"):
        (codes,), _ = model.encode(audio, 2)
        assert_golden(codes, case, f"codes_{part}")
        assert_golden(model.decode([codes]), case, f"audio_{part}")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_encodec_stereo() -> None:
    case, model = _loaded("hf_encodec_48k_small")
    with use_backend("lstm=torch,*=triton"):
        codes, scales = case.outputs["codes_bw3"], case.outputs["scales"]
        wav = model.decode([codes[0], codes[1, :, :, :8]], scales[:, :, 0].T)  # the second segment is 8 frames long
    assert_golden(wav, case, "audio_bw3")


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigvgan_base_small", "bigvgan_v2_small"])
def test_golden_bigvgan(name: str) -> None:
    case, model = _loaded(name)
    assert_golden(model(case.inputs["mel"], backend="triton"), case, "wav")


@pytest.mark.golden
def test_golden_univnet() -> None:
    case, model = _loaded("hf_univnet")
    mel, noise = case.inputs["input_features"].mT, case.inputs["noise_sequence"].mT
    assert_golden(model(mel, backend="triton", noise=noise)[:, 0], case, "wav")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_rvc() -> None:
    case, model = _loaded("rvc_nsf_hifigan")
    f0, speaker, noise = (case.inputs[name] for name in ("f0", "speaker_embedding", "noise_unit"))
    wav = model(case.inputs["latent"], backend="triton", f0=f0, speaker=speaker, noise=noise.mT)
    assert_golden(wav, case, "wav")


def test_what_is_left_with_torch() -> None:
    """Every layer of every family runs on Triton, but for LSTMs, and those say why, and what computes in float64."""
    left = {}
    models = [vocoder(family) for family in MAKERS] + [lively(MONO), lively(STEREO)]
    for layer in (row for model in models for row in fastvoc.explain(model, "triton")):
        (verdict,) = (v for v in layer.verdicts if v.impl == "triton")
        if verdict.reason is not None and "not in torch.float64" not in verdict.reason:
            left[layer.op] = verdict.reason
    assert set(left) == {"lstm"}
    assert "cuDNN" in left["lstm"]


def _vocoder(model: Callable[[Any], Any], config: Any) -> Callable[[], Tensor]:
    return lambda: model(config).bfloat16()(torch.randn(1, config.num_mels, 9).bfloat16())


def _decoded() -> Tensor:
    return Encodec(ENCODEC_24K).bfloat16().decode([torch.zeros(1, 8, 9, dtype=torch.int64)])


@pytest.mark.parametrize(
    ("forward", "most"),
    [
        pytest.param(_vocoder(HifiGan, HIFIGAN_V1), 32, id="v1"),
        pytest.param(_vocoder(HifiGan, HIFIGAN_V2), 32, id="v2"),
        pytest.param(_vocoder(HifiGan, HIFIGAN_V3), 13, id="v3"),
        pytest.param(_vocoder(HiftNet, COSYVOICE2), 40, id="hift"),
        pytest.param(_vocoder(Vocos, VOCOS_MEL_24K), 30, id="vocos"),
        pytest.param(_decoded, 16, id="encodec-decode"),
    ],
)
def test_launches_per_forward(forward: Callable[[], Tensor], most: int) -> None:
    """Of Triton's kernels in bfloat16 on sm_90; the LSTM of EnCodec is torch's."""
    from fastvoc.kernels.launch import record
    from fastvoc.kernels.tuned import compile_for

    with compile_for("sm_90"), record(dry=True) as recording, use_backend("lstm=torch,*=triton"):
        forward()
    assert 0 < len(recording.launches) <= most, [launch.name for launch in recording.launches]
