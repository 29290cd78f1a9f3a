"""DAC and SNAC for the tests: small, with random weights under which signals stay lively and codes differ."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.codec import Codec
from fastvoc.models.dac import DacConfig
from fastvoc.models.families import build
from fastvoc.models.snac import SnacConfig
from fastvoc.models.whole_codec import WholeCodec
from helpers import implementations

Config = DacConfig | SnacConfig

_SNAC: dict[str, Any] = {
    "sample_rate": 24000,
    "encoder_dim": 4,
    "encoder_rates": (2, 3),
    "decoder_dim": 16,
    "decoder_rates": (3, 2),
    "attn_window_size": None,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": (4, 2, 1),
}
CONFIGS: dict[str, Config] = {
    "dac": DacConfig(24000, 4, (2, 4), None, 16, (4, 2), 4, 32, 6),
    "dac-odd": DacConfig(16000, 3, (2, 3, 5), 20, 24, (5, 3, 2), 3, 17, (4, 1, 8)),
    "snac": SnacConfig(**_SNAC),
    "snac-dense": SnacConfig(**{**_SNAC, "depthwise": False}),
    "snac-silent": SnacConfig(**{**_SNAC, "noise": False, "vq_strides": (2, 1, 1)}),
    "snac-attention": SnacConfig(
        **{**_SNAC, "encoder_dim": 16, "decoder_dim": 128, "attn_window_size": 6, "vq_strides": (4, 1)}
    ),
}
DAC_OPS = ("conv1d", "upsample", "mrf", "rvq_encode", "rvq_decode")
SNAC_OPS = (*DAC_OPS, "depthwise", "layer_norm")


def whole_codec_implementations() -> list[Any]:
    """The implementations that every op of these codecs has, as pytest parameters."""
    names = [{param.values[0] for param in implementations(op)} for op in SNAC_OPS]
    return [param for param in implementations("conv1d") if all(param.values[0] in known for known in names)]


def lively_whole(config: Config, seed: int = 1) -> WholeCodec:
    """Random weights under which a signal keeps about its size."""
    draw = torch.Generator().manual_seed(seed)
    model = build(config)
    assert isinstance(model, WholeCodec)
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            nn.init.uniform_(parameter, 0.3, 2.0, generator=draw)
        elif name.endswith("norm.weight"):
            nn.init.uniform_(parameter, 0.5, 1.5, generator=draw)
        elif parameter.dim() == 1:
            nn.init.normal_(parameter, 0.0, 0.1, generator=draw)
        elif ".codebook." in name:
            nn.init.normal_(parameter, 0.0, 1.0, generator=draw)
        else:
            up = "conv_t1" in name
            fan = 2 * parameter.shape[0] if up else parameter[0].numel()
            nn.init.normal_(parameter, 0.0, (0.7 if "res_unit" in name else 1.0) * fan**-0.5, generator=draw)
    return model.eval().requires_grad_(False)


@cache
def whole_codec(name: str, backend: str | None = None, dtype: torch.dtype = torch.float32) -> Codec:
    """One codec for all tests, which change nothing in it."""
    model = lively_whole(CONFIGS[name]).to(dtype)
    model.prepare(backend)
    return Codec(model, CONFIGS[name], backend=backend)


def sound(samples: int, items: int = 1, seed: int = 0) -> Tensor:
    """Random sound [items, 1, samples]."""
    return 0.3 * torch.randn(items, 1, samples, generator=torch.Generator().manual_seed(seed))


def random_codes(codec: Codec, frames: int, items: int = 1, seed: int = 0) -> Tensor:
    """Codes [items, rows, frames] of all codebooks."""
    shape = items, sum(codec.config.rates), frames
    return torch.randint(codec.config.bins, shape, generator=torch.Generator().manual_seed(seed))
