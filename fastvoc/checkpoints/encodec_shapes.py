"""EnCodec's configuration from tensors alone: sizes are read off them, the rest is a published model's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from fastvoc.checkpoints.checkpoint import Origin, TensorEntry, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.errors import ArgumentError
from fastvoc.models.encodec_config import ENCODEC_24K, ENCODEC_48K, EncodecConfig

# By what the tensors show of the rest.
_PUBLISHED = {(c.channels, c.norm): c for c in (ENCODEC_24K, ENCODEC_48K)}
_WEIGHT = r"(?:weight|weight_v|parametrizations\.weight\.original1)"


def recognised(source: Source, tensors: Mapping[str, TensorEntry]) -> tuple[EncodecConfig, dict[str, Origin]]:
    """The configuration of tensors under the names of `fastvoc.models.encodec`, and what of it they do not show.

    Raises LoadError for tensors that are like neither published model's.
    """
    first = _shapes(source, tensors, "encoder", "conv")[0]
    outer, inner = _shapes(source, tensors, "decoder", "conv"), _shapes(source, tensors, "decoder", "conv1")
    norm = "time_group_norm" if "encoder.layers.0.norm.weight" in tensors else "weight_norm"
    kind = _PUBLISHED.get((first[1], norm))
    if kind is None:
        what = f"{first[1]} audio channels and {norm}"
        raise refuse(
            source.path, f"{what}: neither the 24 kHz nor the 48 kHz model; a config.json beside it must say what"
        )
    upsampling, (hidden, width, residual_kernel) = outer[1:-1], inner[0]
    if not upsampling or any(kernel % 2 for *_, kernel in upsampling) or len(inner) % len(upsampling):
        raise refuse(source.path, "its decoder's convolutions are not EnCodec's: kernels of two strides, equal stages")
    book = tensors.get("quantizer.codebooks.0")
    if book is None or len(book.shape) != 2:
        raise refuse(source.path, "tensor 'quantizer.codebooks.0' is missing, or has not the shape [entries, channels]")
    try:
        sizes = replace(
            kind,
            n_filters=first[0],
            dimension=outer[0][1],
            ratios=tuple(kernel // 2 for *_, kernel in upsampling),
            n_residual_layers=len(inner) // len(upsampling),
            kernel_size=first[2],
            last_kernel_size=outer[-1][2],
            residual_kernel_size=residual_kernel,
            compress=width // hidden,
            conv_shortcut=any(".shortcut." in name for name in tensors),
            lstm=_count(tensors, r"decoder\.layers\.1\.weight_ih_l\d+"),
            bins=book.shape[0],
            n_q=1 << 10,
        )
        config = sizes.fitted(kind.sample_rate, _count(tensors, r"quantizer\.codebooks\.\d+"))
    except ArgumentError as error:
        raise refuse(source.path, f"illegal configuration: {error}") from None
    return config, _origins(source, config, kind)


def _shapes(source: Source, tensors: Mapping[str, TensorEntry], part: str, layer: str) -> list[tuple[int, ...]]:
    """Of the weights of a part's convolutions of this name, in their order. Raises LoadError when there are none."""
    pattern = re.compile(rf"{part}\.layers\.(\d{{1,4}})\.{layer}\.{_WEIGHT}")
    numbered = ((pattern.fullmatch(name), entry.shape) for name, entry in tensors.items())
    found = sorted((int(match[1]), shape) for match, shape in numbered if match)
    if not found or any(len(shape) != 3 or 0 in shape for _, shape in found):
        raise refuse(source.path, f"tensor '{part}.layers.*.{layer}.weight' is missing, or is no convolution's")
    return [shape for _, shape in found]


def _count(tensors: Mapping[str, TensorEntry], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in tensors)


def _origins(source: Source, config: EncodecConfig, kind: EncodecConfig) -> dict[str, Origin]:
    """The rate, and what follows from it; a file of the published name has them of the published model."""
    if f"{kind.sample_rate // 1000}khz" in source.path.name.lower():
        return dict.fromkeys(("sample_rate", "bandwidths"), Origin("name", kind.name))
    why = f"no config.json says it, and the tensors are like those of {kind.name}"
    facts = ["sample_rate", "bandwidths"] + ["dilation_base"] * (config.n_residual_layers > 1)
    return dict.fromkeys(facts, Origin("assumed", why))
