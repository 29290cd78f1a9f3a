"""Whole models by the emulated CUDA kernels: golden cases, accuracy on tensor cores, launches of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cuda_emulation import dry_launches, emulated, set_device
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.loading import model_of
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import ENCODEC_24K
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan
from fastvoc.models.hift_config import COSYVOICE2
from fastvoc.models.hiftnet import HiftNet
from fastvoc.models.levels import packed
from fastvoc.models.vocos import Vocos
from fastvoc.models.vocos_config import VOCOS_MEL_24K
from fastvoc.nn.wide import WideOnCpu
from helpers import GoldenCase, assert_golden, golden, relative_l2


@pytest.fixture
def device() -> Iterator[None]:
    yield
    set_device()


def load(case: GoldenCase) -> Any:
    return model_of(detect_and_load(case.dir))


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    [pytest.param("hifigan_v1_small", marks=pytest.mark.slow), "hifigan_v2", "hifigan_v3", "hifigan_odd_kernel"],
)
def test_golden(name: str) -> None:
    case = golden(name)
    with torch.inference_mode(), emulated():
        assert_golden(load(case)(case.inputs["mel"], backend="cuda"), case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("hopper", [False, True])
@pytest.mark.parametrize("name", ["hifigan_v1_small", "hifigan_v3"])
def test_bfloat16_errs_no_more_than_torch(name: str, hopper: bool, device: None) -> None:
    case = golden(name)
    set_device(hopper=hopper)
    mel = case.inputs["mel"][:1, :, :12].bfloat16()
    model = load(case).bfloat16()
    with torch.inference_mode():
        theirs = model(mel, backend="torch")
        with emulated():
            ours = model(mel, backend="cuda")
        exact = model.double()(mel.double(), backend="torch")
    assert relative_l2(ours, exact) <= 1.1 * relative_l2(theirs, exact)


@pytest.mark.golden
@pytest.mark.slow
def test_golden_hift() -> None:
    case = golden("cosyvoice2_hift")
    with torch.inference_mode(), emulated():
        wav = load(case)(case.inputs["mel"], source=case.inputs["source"], backend="cuda")
    assert_golden(wav[:, 0], case, "wav")


@pytest.mark.golden
@pytest.mark.parametrize("name", ["vocos_mel_same", pytest.param("vocos_mel_center", marks=pytest.mark.slow)])
def test_golden_vocos(name: str) -> None:
    case = golden(name)
    with torch.inference_mode(), emulated():
        assert_golden(load(case)(case.inputs["features"], backend="cuda")[:, 0], case, "wav")


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("name", "bandwidth"), [("encodec_24k", 6), ("hf_encodec_48k_small", 12)])
def test_golden_encodec(name: str, bandwidth: int) -> None:
    case = golden(name)
    model = load(case)
    with torch.inference_mode(), emulated():
        segments, scale = model.encode(case.inputs["audio"], model.config.codebooks(bandwidth), backend="cuda")
        padded = [torch.nn.functional.pad(s, (0, 150 - s.shape[2])) for s in segments]
        assert_golden(segments[0] if scale is None else torch.stack(padded), case, f"codes_bw{bandwidth}")
        assert_golden(model.decode(segments, scale, backend="cuda"), case, f"audio_bw{bandwidth}")


@pytest.mark.golden
@pytest.mark.parametrize(
    "name", [pytest.param(f"bigvgan_{kind}_small", marks=pytest.mark.slow) for kind in ("base", "v2")]
)
def test_golden_bigvgan(name: str) -> None:
    case = golden(name)
    with torch.inference_mode(), emulated():
        assert_golden(load(case)(case.inputs["mel"], backend="cuda"), case, "wav")


@pytest.mark.golden
def test_golden_univnet() -> None:
    case = golden("hf_univnet")
    mel, noise = case.inputs["input_features"].mT, case.inputs["noise_sequence"].mT
    with torch.inference_mode(), emulated():
        assert_golden(load(case)(mel, noise=noise, backend="cuda")[:, 0], case, "wav")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_rvc() -> None:
    case = golden("rvc_nsf_hifigan")
    f0, speaker, noise = (case.inputs[name] for name in ("f0", "speaker_embedding", "noise_unit"))
    with torch.inference_mode(), emulated():
        wav = load(case)(case.inputs["latent"], backend="cuda", f0=f0, speaker=speaker, noise=noise.mT)
    assert_golden(wav, case, "wav")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_kokoro() -> None:
    case = golden("kokoro_istftnet")
    inputs = {name: case.inputs[name] for name in ("f0", "n", "style")}
    har = torch.cat([case.inputs["har_magnitude"], case.inputs["har_phase"]], 1)
    with torch.inference_mode(), emulated():
        wav = load(case)(case.inputs["asr"], backend="cuda", har=har, **inputs)
    assert_golden(wav, case, "wav_given_har")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_hiftnet_with_its_pitch_network() -> None:
    case = golden("hiftnet_original")
    model = load(case)
    with torch.inference_mode(), emulated():
        assert_golden(model.predict_f0(case.inputs["mel"], backend="cuda"), case, "f0")
        wav = model(case.inputs["mel"], source=case.inputs["source"][:, None], backend="cuda")
    assert_golden(wav, case, "wav")


@pytest.mark.golden
@pytest.mark.slow
def test_golden_mimi() -> None:
    case = golden("mimi_hf")
    model = load(case)
    with torch.inference_mode(), emulated():
        x = model.encoder(case.inputs["audio"], backend="cuda")
        for layer in model.encoder_transformer.layers:
            x = layer(x, backend="cuda")
        assert_golden(x.mT, case, "mid.encoder_transformer")
        for count, name in ((6, "codes"), (1, "codes_n1")):
            assert_golden(model.encode(case.inputs["audio"], count, backend="cuda")[0][0], case, name)
        assert_golden(model.decode([case.outputs["codes"]], backend="cuda"), case, "audio")
        assert_golden(model.decode([case.inputs["codes_any"]], backend="cuda"), case, "audio_any")


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", ["snac_24k", "snac_44k"])
def test_golden_snac(name: str) -> None:
    case = golden(name)
    model = load(case)
    noise = [case.inputs[f"noise_{i}"] for i in range(len(model.config.decoder_rates))]
    with torch.inference_mode(), emulated():
        (codes,), _ = model.encode(case.inputs["audio"], backend="cuda")
        assert torch.equal(
            packed([case.outputs[f"codes_{i}"] for i in range(model.config.n_q)], model.config.rates), codes
        )
        assert_golden(model.decode([codes], backend="cuda", noise=noise), case, "audio")


def _vocoder(model: Callable[[Any], Any], config: Any) -> Callable[[], Tensor]:
    return lambda: model(config).bfloat16()(torch.randn(1, config.num_mels, 9).bfloat16(), backend="cuda")


def _decoded() -> Tensor:
    return Encodec(ENCODEC_24K).bfloat16().decode([torch.zeros(1, 8, 9, dtype=torch.int64)], backend="cuda")


@pytest.mark.parametrize(
    ("forward", "most"),
    [
        pytest.param(_vocoder(HifiGan, HIFIGAN_V1), 32, id="v1"),
        pytest.param(_vocoder(HifiGan, HIFIGAN_V2), 32, id="v2"),
        pytest.param(_vocoder(HifiGan, HIFIGAN_V3), 13, id="v3"),
        pytest.param(_vocoder(HiftNet, COSYVOICE2), 40, id="hift"),
        pytest.param(_vocoder(Vocos, VOCOS_MEL_24K), 30, id="vocos"),
        pytest.param(_decoded, 16 + 4, id="encodec-decode"),
    ],
)
def test_launches_per_forward(forward: Callable[[], Tensor], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 on sm_90; the LSTM of EnCodec is four of them."""
    monkeypatch.setattr(WideOnCpu, "stays_wide", lambda *_: False)  # as on a device
    set_device(multiprocessors=132)
    with torch.inference_mode(), emulated(), dry_launches() as count:
        forward()
        made = count()
    assert 0 < made <= most
