"""Writes Vocos' files the way upstream and the drafts for Transformers do, for the tests of reading them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastvoc.models.vocos_config import VOCOS_ENCODEC_24K, VOCOS_MEL_24K, VocosConfig
from fastvoc.sound.mel import mel_filterbank

MEL = replace(VOCOS_MEL_24K, dim=16, intermediate_dim=40, num_layers=2)
CODES = replace(VOCOS_ENCODEC_24K, input_channels=6, dim=16, intermediate_dim=40, num_layers=2)


def yaml_values(config: VocosConfig) -> dict[str, Any]:
    """The published `config.yaml` of a configuration."""
    transform = {"n_fft": config.n_fft, "hop_length": config.hop_length, "padding": config.padding}
    if config.num_codebooks:
        name = "vocos.feature_extractors.EncodecFeatures"
        front: dict[str, Any] = {"encodec_model": "encodec_24khz", "bandwidths": list(config.bandwidths)}
        front["train_codebooks"] = False
    else:
        name = "vocos.feature_extractors.MelSpectrogramFeatures"
        front = {"sample_rate": config.sample_rate, "n_mels": config.input_channels, **transform}
    backbone: dict[str, Any] = {
        "input_channels": config.input_channels,
        "dim": config.dim,
        "intermediate_dim": config.intermediate_dim,
        "num_layers": config.num_layers,
    }
    if config.adanorm_num_embeddings:
        backbone["adanorm_num_embeddings"] = config.adanorm_num_embeddings
    return {
        "feature_extractor": {"class_path": name, "init_args": front},
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": backbone},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": {"dim": config.dim, **transform}},
    }


def random_state(config: VocosConfig) -> dict[str, Tensor]:
    """A state of the model's own names."""
    return {name: torch.randn(shape) * 0.1 for name, shape in config.tensors()}


def upstream(state: dict[str, Tensor], config: VocosConfig) -> dict[str, Tensor]:
    """The state as the upstream package saves it, constants of the transforms included."""
    adaptive = config.adanorm_num_embeddings is not None
    tensors = {"head.istft.window": torch.hann_window(config.n_fft)}
    if config.mel is not None:
        tensors["feature_extractor.mel_spec.spectrogram.window"] = torch.hann_window(config.n_fft)
        tensors["feature_extractor.mel_spec.mel_scale.fb"] = mel_filterbank(config.mel).T.contiguous()
    for name, tensor in state.items():
        if adaptive and ".norm." in name:
            name = name.replace(".weight", ".scale.weight").replace(".bias", ".shift.weight")
        tensors[name] = tensor
    return tensors


def draft(state: dict[str, Tensor], config: VocosConfig, revision: str) -> dict[str, Tensor]:
    """The state under the names of a draft: `early`, with VocosWithEncodecModel, or `late`."""
    head = "decoder" if revision == "late" else "head"
    tensors = {f"{head}.window": torch.hann_window(config.n_fft)}
    for name, tensor in state.items():
        name = name.removeprefix("feature_extractor.").replace("convnext", "layers")
        name = name.replace(".gamma", ".layer_scale_parameter")
        if revision == "late":
            name = name.replace("head.out.", "decoder.out.").removeprefix("backbone.")
        else:
            name = name.replace("head.out.", "head.out_proj.")
        tensors[name] = tensor
    return tensors
