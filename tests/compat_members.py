"""The public members of upstream's classes, and ours beside them.

`python tests/compat_members.py PACKAGE...` writes `compat/members/PACKAGE.json` by looking at the package itself, which
must be installed: transformers 5.24, encodec 0.1.1, vocos 0.1.0, bigvgan 2.4.1.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

TABLES = Path(__file__).parent / "compat" / "members"
MODULE = "torch.nn.Module"  # stands for all members of that class
_BIGVGAN = {
    "num_mels": 8,
    "upsample_rates": [2],
    "upsample_kernel_sizes": [4],
    "upsample_initial_channel": 4,
    "resblock": "1",
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "sampling_rate": 24000,
}
_VOCOS = """
feature_extractor: {class_path: vocos.feature_extractors.MelSpectrogramFeatures, init_args: {n_mels: 8, n_fft: 64,
  hop_length: 16, sample_rate: 24000, padding: center}}
backbone: {class_path: vocos.models.VocosBackbone, init_args: {input_channels: 8, dim: 8, intermediate_dim: 16,
  num_layers: 1}}
head: {class_path: vocos.heads.ISTFTHead, init_args: {dim: 8, n_fft: 64, hop_length: 16, padding: center}}
"""


def members(thing: Any) -> set[str]:
    """Its public names; for a module those beyond `torch.nn.Module`'s own, and a word for these."""
    names = {name for name in dir(thing) if not name.startswith("_")}
    return names - set(dir(nn.Module())) | {MODULE} if isinstance(thing, nn.Module) else names


def of_transformers(package: Any) -> dict[str, Any]:
    """Instances by class, of transformers or of `fastvoc.compat.transformers`."""
    config = package.EncodecConfig(num_filters=2, hidden_size=4, codebook_size=4, num_lstm_layers=1)
    encodec = package.EncodecModel(config)
    hifigan: dict[str, Any] = {"upsample_initial_channel": 32, "upsample_rates": [2], "upsample_kernel_sizes": [4]}
    univnet = package.UnivNetConfig(num_mel_bins=4)
    vocoder, zeros = package.UnivNetModel(univnet), torch.zeros(1)
    outputs = [sys.modules[type(model).__module__] for model in (encodec, vocoder)]  # not all are in the package itself
    things = [
        *(config, encodec, package.EncodecFeatureExtractor()),
        *(univnet, vocoder, package.UnivNetFeatureExtractor(), package.BatchFeature({})),
        *(getattr(outputs[0], f"Encodec{kind}Output")(zeros) for kind in ("", "Encoder", "Decoder")),
        outputs[1].UnivNetModelOutput(zeros),
    ]
    for name in ("SpeechT5HifiGan", "FastSpeech2ConformerHifiGan"):
        made = getattr(package, f"{name}Config")(**hifigan)
        things += [made, getattr(package, name)(made)]
    named = {type(thing).__name__: thing for thing in things}
    named["EncodecModel.quantizer"] = encodec.quantizer
    named["EncodecModel.quantizer.layers[0]"] = encodec.quantizer.layers[0]
    named["EncodecModel.quantizer.layers[0].codebook"] = encodec.quantizer.layers[0].codebook
    return named


def of_encodec(package: Any) -> dict[str, Any]:
    """Instances by class, of encodec or of `fastvoc.compat.encodec`."""
    model = package.EncodecModel.encodec_model_24khz(pretrained=False)
    vq = model.quantizer.vq
    return {
        "EncodecModel": model,
        "EncodecModel.quantizer": model.quantizer,
        "EncodecModel.quantizer.vq": vq,
        "EncodecModel.quantizer.vq.layers[0]": vq.layers[0],
        "EncodecModel.quantizer.vq.layers[0]._codebook": vq.layers[0]._codebook,
    }


def of_vocos(package: Any) -> dict[str, Any]:
    """Instances by class, of vocos or of `fastvoc.compat.vocos`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(_VOCOS)
        model = package.Vocos.from_hparams(path)
    return {"Vocos": model, "MelSpectrogramFeatures": model.feature_extractor, "EncodecFeatures": _on_codes(package)}


def _on_codes(package: Any) -> Any:
    """The front end of a model on codes, around an EnCodec with random weights."""
    if package.__name__ != "vocos":
        from fastvoc.models.vocos import Vocos as VocosModel
        from fastvoc.models.vocos_config import VOCOS_ENCODEC_24K

        return package.EncodecFeatures(VocosModel(replace(VOCOS_ENCODEC_24K, num_layers=1)))
    home = sys.modules["vocos.feature_extractors"]
    made = home.EncodecModel.encodec_model_24khz  # type: ignore[attr-defined]
    home.EncodecModel.encodec_model_24khz = lambda pretrained: made(False)  # type: ignore[attr-defined]
    return home.EncodecFeatures()  # type: ignore[attr-defined]


def of_bigvgan(package: Any) -> dict[str, Any]:
    """Instances by class, of bigvgan.bigvgan or of `fastvoc.compat.bigvgan`."""
    model = package.BigVGAN(package.AttrDict(_BIGVGAN))
    return {"AttrDict": model.h, "BigVGAN": model}


OF: dict[str, Callable[[Any], dict[str, Any]]] = {
    "transformers": of_transformers,
    "encodec": of_encodec,
    "vocos": of_vocos,
    "bigvgan": of_bigvgan,
}


def upstream(name: str) -> dict[str, list[str]]:
    """The table of a package that is installed."""
    from importlib import import_module

    package = import_module("bigvgan.bigvgan" if name == "bigvgan" else name)
    return {key: sorted(members(thing)) for key, thing in OF[name](package).items()}


if __name__ == "__main__":
    sys.modules["kernels"] = None  # type: ignore[assignment]  # transformers would find the repository's folder
    for name in sys.argv[1:]:
        (TABLES / f"{name}.json").write_text(json.dumps(upstream(name), indent=1) + "\n")
