"""Every class is built without values and filled afterwards, alone and as a part of a model of Transformers."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastvoc.compat import bigvgan, chatterbox, cosyvoice, encodec, hifigan, vocos
from fastvoc.compat import transformers as ours
from helpers import golden

SMALL_HIFT: dict[str, Any] = {"base_channels": 32, "upsample_rates": (4, 2), "upsample_kernel_sizes": (8, 4)}
SMALL_VOCOS: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 2}


def _hift(kind: Any, f0: Any) -> Any:
    return kind(f0_predictor=f0(cond_channels=16), sampling_rate=24000, **SMALL_HIFT)


def _codec(model: Any, x: Tensor) -> Tensor:
    out: Tensor = model(x)
    return out


MADE: dict[str, tuple[Any, Any]] = {
    "cosyvoice": (
        lambda: _hift(cosyvoice.HiFTGenerator, cosyvoice.ConvRNNF0Predictor),
        lambda m: m.decode(torch.ones(1, 80, 5), torch.ones(1, 1, 160)),
    ),
    "cosyvoice3": (
        lambda: _hift(cosyvoice.CausalHiFTGenerator, cosyvoice.CausalConvRNNF0Predictor),
        lambda m: m.decode(torch.ones(1, 80, 9), torch.ones(1, 1, 288)),
    ),
    "chatterbox": (
        lambda: _hift(chatterbox.HiFTGenerator, chatterbox.ConvRNNF0Predictor),
        lambda m: m.decode(torch.ones(1, 80, 5), torch.ones(1, 1, 160)),
    ),
    "vocos": (
        lambda: vocos.Vocos.from_hparams(golden("vocos_mel_center").dir / "config.yaml"),
        lambda m: m(torch.ones(1, 2000)),
    ),
    "bigvgan": (
        lambda: bigvgan.BigVGAN(bigvgan.load_hparams_from_json(golden("bigvgan_v2_small").dir / "config.json")),
        lambda m: m(torch.ones(1, m.h.num_mels, 5)),
    ),
    "hifigan": (
        lambda: hifigan.Generator(bigvgan.load_hparams_from_json(golden("hifigan_v3").dir / "config.json")),
        lambda m: m(torch.ones(1, 80, 5)),
    ),
    "encodec": (
        lambda: encodec.EncodecModel.encodec_model_24khz(pretrained=False),
        lambda m: m(torch.ones(1, 1, 700)),
    ),
    "EncodecModel": (
        lambda: ours.EncodecModel(ours.EncodecConfig(num_filters=4, hidden_size=16)),
        lambda m: m(torch.ones(1, 1, 700)).audio_values,
    ),
    "SpeechT5HifiGan": (
        lambda: ours.SpeechT5HifiGan(ours.SpeechT5HifiGanConfig(upsample_initial_channel=32)),
        lambda m: m(torch.ones(1, 5, 80)),
    ),
    "UnivNetModel": (
        lambda: ours.UnivNetModel(ours.UnivNetConfig(model_hidden_channels=8)),
        lambda m: m(torch.ones(1, 5, 100), torch.ones(1, 5, 64)).waveforms,
    ),
    "VocosModel": (
        lambda: ours.VocosModel(ours.VocosConfig(**SMALL_VOCOS)),
        lambda m: m(torch.ones(1, 100, 5)).audio,
    ),
    "VocosWithEncodecModel": (
        lambda: ours.VocosWithEncodecModel(ours.VocosWithEncodecConfig(**SMALL_VOCOS)),
        lambda m: m(codes=torch.zeros(2, 1, 5, dtype=torch.int64), bandwidth_id=0),
    ),
    "HiFTNetModel": (
        lambda: ours.HiFTNetModel(ours.HiFTNetConfig(base_channels=32, f0_predictor_cond_channels=16)),
        lambda m: m.hiftnet.decode(torch.ones(1, 80, 5), torch.ones(1, 1, 1280)),
    ),
}
each = pytest.mark.parametrize("name", MADE)


@cache
def holder() -> tuple[Any, Any]:
    """A user's model of Transformers with a vocoder as a part, and what it is made of."""
    import transformers  # seconds, which other tests' processes need not wait for

    class HolderConfig(transformers.PretrainedConfig):  # type: ignore[misc]
        model_type = "holder"

        def __init__(self, name: str = "cosyvoice", **values: Any) -> None:
            super().__init__(**values)
            self.name = name

    class Holder(transformers.PreTrainedModel):  # type: ignore[misc]
        config_class = HolderConfig

        def __init__(self, config: HolderConfig) -> None:
            super().__init__(config)
            self.front = nn.Linear(3, 3)
            self.vocoder = MADE[config.name][0]()
            self.post_init()

    return Holder, HolderConfig


def made(name: str) -> tuple[Any, Any]:
    make, call = MADE[name]
    model = make().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.1, 0.3)
    return model, call


@pytest.mark.golden
@each
@torch.inference_mode()
def test_built_on_meta_and_filled(name: str) -> None:
    model, call = made(name)
    expected = call(model)
    for way in ("assign", "to_empty", "to"):
        with torch.device("meta"):
            twin = MADE[name][0]().eval()
        if way != "assign":
            twin.to_empty(device="cpu")
        twin.load_state_dict(model.state_dict(), assign=way == "assign")
        if way == "to":
            twin = copy.deepcopy(twin).double().float()
        assert not any(t.is_meta for t in (*twin.parameters(), *twin.buffers()))
        assert torch.equal(call(twin), expected), way


@pytest.mark.golden
@each
@torch.no_grad()
def test_as_a_part_of_a_model_of_transformers(name: str, tmp_path: Path) -> None:
    Holder, HolderConfig = holder()
    model = Holder(HolderConfig(name)).eval()
    expected = MADE[name][1](model.vocoder)
    model.save_pretrained(tmp_path)
    again, info = Holder.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(MADE[name][1](again.eval().vocoder), expected)
