"""Mimi for the tests: small, with random weights under which signals stay lively and codes differ."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from fastvoc.models.mimi import Mimi
from fastvoc.models.mimi_config import MimiConfig

SMALL = MimiConfig(
    n_filters=4,
    dimension=24,
    ratios=(3, 2),
    layers=2,
    heads=3,
    kv_heads=3,
    head_dim=8,
    hidden=40,
    window=5,
    n_q=4,
    bins=32,
    code_dimension=12,
)
UNUSUAL = {
    "small": SMALL,
    "shared-keys": replace(SMALL, heads=4, kv_heads=2, head_dim=6, window=1),
    "deep": replace(SMALL, n_residual_layers=2, conv_shortcut=True, compress=1, ratios=(2, 5, 2), semantic=2),
    "replicate": replace(SMALL, pad_mode="replicate", downsample=3),
    "not-projected": replace(SMALL, projected=False, code_dimension=24, kernel_size=4, last_kernel_size=5),
}


def lively(config: MimiConfig, seed: int = 3) -> Mimi:
    """Random weights under which a signal keeps about its size, and every codebook refines the one before."""
    draw = torch.Generator().manual_seed(seed)
    model = Mimi(config)
    for name, parameter in model.named_parameters():
        if "codebooks" in name:
            nn.init.normal_(parameter, 0.0, 0.7 * 0.8 ** int(name.rsplit(".", 1)[1]), draw)
        elif "layernorm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5, draw)
        elif name.endswith((".bias", ".scale")):
            nn.init.normal_(parameter, 0.0, 0.4, draw)
        elif name.startswith("upsample"):
            nn.init.normal_(parameter, 0.0, 0.7, draw)
        else:
            up = (
                name.startswith("decoder.")
                and name.endswith(".conv.weight")
                and parameter.shape[0] > parameter.shape[1]
            )
            fan = 2 * parameter.shape[0] if up else parameter[0].numel()
            nn.init.normal_(parameter, 0.0, fan**-0.5, draw)
    return model.eval().requires_grad_(False)


def noise(config: MimiConfig, samples: int, items: int = 1, seed: int = 5) -> Tensor:
    """Random sound [items, 1, samples]."""
    return torch.randn(items, 1, samples, generator=torch.Generator().manual_seed(seed)) * 0.5
