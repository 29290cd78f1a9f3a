"""Kokoro's decoder, out of the file of the whole model: github.com/hexgrad/kokoro, `kokoro-v1_0.pth`.

`config.json` beside it says the rates; widths are the tensors'. Names may be those of a wrapped module, and the norms'
own scales and shifts be absent, which then are 1 and 0. The model's other parts are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, refuse
from fastvoc.checkpoints.hift_names import canonical_names, weight_shape
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.errors import ArgumentError
from fastvoc.models.kokoro_config import KokoroConfig

_SIGNATURE = ("generator.m_source.l_linear.weight", "asr_res.0.bias", "encode.norm1.fc.bias")
_PREFIXES = ("decoder.", "")
_ALPHA = re.compile(r"\.alpha([12])\.(\d+)$")
_FC = ".fc.weight"


def detect(source: Source) -> bool:
    return _prefix(source) is not None


def load(source: Source) -> Checkpoint:
    tensors = canonical_names(renamed(source, source.with_prefix(_prefix(source) or ""), _canonical))
    tensors |= {name: entry for name, entry in _constants(tensors) if name not in tensors}

    def shape(module: str, rank: int) -> tuple[int, ...]:
        return weight_shape(source.path, tensors, module, rank)

    values: dict[str, Any] = {
        "num_mels": shape("asr_res.0", 3)[1],
        "asr_channels": shape("asr_res.0", 3)[0],
        "channels": shape("encode.conv1", 3)[0],
        "style_dim": shape("encode.norm1.fc", 2)[1],
        "upsample_initial_channel": shape("ups.0", 3)[0],
        "harmonics": shape("m_source", 1)[0] - 1,
    }
    origins = {"sample_rate": Origin("format", "upstream's source is made for 24000 Hz")}
    if source.has("config.json"):
        fields = source.json("config.json").sub("istftnet")
        values |= {
            "upsample_rates": fields.integers("upsample_rates"),
            "upsample_kernel_sizes": fields.integers("upsample_kernel_sizes"),
            "resblock_kernel_sizes": fields.integers("resblock_kernel_sizes"),
            "resblock_dilation_sizes": fields.rows("resblock_dilation_sizes"),
            "n_fft": fields.integer("gen_istft_n_fft"),
            "istft_hop": fields.integer("gen_istft_hop_size"),
        }
    else:
        stages = {name.split(".")[1] for name in tensors if name.startswith("ups.")}
        kernels = tuple(shape(f"ups.{i}", 3)[2] for i in range(len(stages)))
        values |= {
            "upsample_rates": tuple(size // 2 for size in kernels),
            "upsample_kernel_sizes": kernels,
            "n_fft": shape("conv_post", 3)[0] - 2,
            "istft_hop": (shape("conv_post", 3)[0] - 2) // 4,
        }
        why = "no config.json says it; as in Kokoro 82M, where a kernel spans two steps and a window four hops"
        origins |= {name: Origin("assumed", why) for name in ("upsample_rates", "istft_hop", "resblock_dilation_sizes")}
    try:
        config = KokoroConfig(**values)
    except ArgumentError as error:
        raise refuse(source.path, f"illegal configuration: {error}") from None
    metadata = {"container": source.container}
    return Checkpoint(config, canonical_state(source, config, tensors), "kokoro", metadata, origins=origins)


def _prefix(source: Source) -> str | None:
    return next((p for p in _PREFIXES if all(p + name in source.entries for name in _SIGNATURE)), None)


def _canonical(name: str) -> str:
    return _ALPHA.sub(r".adain\1.\2.snake.alpha", name.removeprefix("generator."))


def _constants(tensors: dict[str, TensorEntry]) -> Iterator[tuple[str, TensorEntry]]:
    """Scales of 1 and shifts of 0 of the norm beside each layer that reads a style."""
    for name, entry in tensors.items():
        if name.endswith(_FC) and entry.shape:
            shape = (entry.shape[0] // 2,)
            for kind, value in (("weight", 1.0), ("bias", 0.0)):
                norm = f"{name.removesuffix(_FC)}.norm.{kind}"
                read = partial(torch.full, shape, value, dtype=torch.float32, device="cpu")
                yield norm, TensorEntry(norm, shape, torch.float32, read)
