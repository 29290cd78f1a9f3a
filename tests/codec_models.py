"""Codecs for the tests: small, with random weights under which signals stay lively and codes differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import EncodecConfig
from helpers import implementations

MONO = EncodecConfig(n_filters=4, dimension=12, bins=64, n_q=8, bandwidths=(1.0, 3.6))
STEREO = EncodecConfig(
    sample_rate=16000,
    channels=2,
    causal=False,
    norm="time_group_norm",
    normalize=True,
    segment=0.25,
    overlap=0.02,
    n_filters=4,
    dimension=12,
    bins=64,
    n_q=6,
    bandwidths=(0.6, 1.5),
)


def with_bandwidths(config: EncodecConfig) -> EncodecConfig:
    """The same with bandwidths that pay for 2 codebooks and for all."""
    book = config.frame_rate * (config.bins.bit_length() - 1)
    return replace(config, bandwidths=(2 * book / 1000, config.n_q * book / 1000))


_SHAPES = {
    "mono": MONO,
    "stereo": STEREO,
    "causal-normed": replace(MONO, norm="time_group_norm"),
    "two-sided": replace(MONO, causal=False, ratios=(5, 3)),
    "deep": replace(MONO, n_residual_layers=3, lstm=1, ratios=(4, 2), compress=4),
    "identity-shortcut": replace(MONO, conv_shortcut=False, n_residual_layers=2, ratios=(3, 2)),
    "normed-identity": replace(STEREO, conv_shortcut=False),
    "zeros": replace(MONO, pad_mode="zeros", channels=2),
    "replicate": replace(STEREO, pad_mode="replicate", segment=None, overlap=0.01),
    "trimmed": replace(MONO, trim_right_ratio=0.3),
    "wide-kernels": replace(MONO, kernel_size=9, last_kernel_size=4, residual_kernel_size=5, ratios=(2, 2)),
}
UNUSUAL = {name: with_bandwidths(config) for name, config in _SHAPES.items()}
OPS = ("conv1d", "upsample", "seanet_block", "lstm", "group_norm_act", "rvq_encode", "rvq_decode")


def codec_implementations() -> list[Any]:
    """The implementations that every op of a codec has, as pytest parameters."""
    names = [{param.values[0] for param in implementations(op)} for op in OPS]
    return [param for param in implementations("conv1d") if all(param.values[0] in known for known in names)]


def lively(config: EncodecConfig) -> Encodec:
    """Random weights under which a signal keeps about its size, and every codebook refines the one before."""
    model = Encodec(config)
    for name, parameter in model.named_parameters():
        if "codebooks" in name:
            nn.init.normal_(parameter, 0.0, 0.7 * 0.8 ** int(name.rsplit(".", 1)[1]))
        elif "norm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, 0.0, 0.1)
        elif parameter.dim() == 3:
            up = (
                name.startswith("decoder") and name.endswith(".conv.weight") and parameter.shape[0] > parameter.shape[1]
            )
            fan = 2 * parameter.shape[0] if up else parameter.shape[1] * parameter.shape[2]
            nn.init.normal_(parameter, 0.0, fan**-0.5)
    return model.eval().requires_grad_(False)


def noise(config: EncodecConfig, samples: int, items: int = 1) -> Tensor:
    """Random sound [items, channels, samples] of which no two segments are equally loud."""
    loudness = torch.linspace(0.2, 1.0, samples) * torch.linspace(1.0, 0.5, items)[:, None, None]
    return torch.randn(items, config.channels, samples) * loudness * 0.3
