"""Writes EnCodec checkpoints the way the dialects do, for the tests of reading them."""

from __future__ import annotations

import re
from typing import Any

import torch
from checkpoint_files import unfolded
from torch import Tensor

from fastvoc.models.encodec_config import EncodecConfig


def random_state(config: EncodecConfig) -> dict[str, Tensor]:
    """A folded state of the model's own names, without running any initialisation."""
    return {name: torch.randn(shape) * 0.1 for name, shape in config.tensors()}


def upsampling(name: str, config: EncodecConfig) -> bool:
    """Whether the tensor belongs to a transposed convolution: the decoder's second to last but one outside blocks."""
    match = re.match(r"decoder\.layers\.(\d+)\.(conv|norm)\.", name)
    last = 2 + len(config.ratios) * (2 + config.n_residual_layers) + 1
    return match is not None and 0 < int(match[1]) < last


def file_tensors(state: dict[str, Tensor], config: EncodecConfig, dialect: str, form: str) -> dict[str, Tensor]:
    """The state under the names of a dialect: `original` or `transformers`; weight norm in `form`, or `folded`."""
    books = {name: t for name, t in state.items() if name.startswith("quantizer")}
    rest = {name: t for name, t in state.items() if name not in books}
    if form != "folded":
        convs = {name: t for name, t in rest.items() if re.search(r"\.(?:conv[12]?|shortcut)\.", name)}
        rest = {**{n: t for n, t in rest.items() if n not in convs}, **unfolded(convs, form)}
    named = {}
    for name, tensor in rest.items():
        kind = "convtr" if upsampling(name, config) else "conv"
        renamed = re.sub(r"^((?:en|de)coder\.layers\.\d+)\.((?:weight|bias)_[ih]h)", r"\1.lstm.\2", name)
        renamed = re.sub(r"\.(conv|norm)([12])\.", lambda m: f".block.{2 * int(m[2]) - 1}.{m[1]}.", renamed)
        renamed = renamed.replace(".norm_shortcut.", ".shortcut.norm.")
        renamed = re.sub(r"\.shortcut\.(?!norm)", ".shortcut.conv.", renamed)
        if dialect == "original":
            renamed = renamed.replace(".layers.", ".model.", 1).replace(".norm.", f".{kind}.norm.")
            renamed = renamed.replace(".conv.", f".{kind}.{kind}.") if ".norm." not in renamed else renamed
        named[renamed] = tensor
    for name, tensor in books.items():
        number = name.rsplit(".", 1)[1]
        place = f"vq.layers.{number}._codebook" if dialect == "original" else f"layers.{number}.codebook"
        named[f"quantizer.{place}.embed"] = tensor
        named[f"quantizer.{place}.embed_avg"] = tensor
        named[f"quantizer.{place}.inited"] = torch.ones(1)
        named[f"quantizer.{place}.cluster_size"] = torch.zeros(tensor.shape[0])
    return named


def transformers_config(c: EncodecConfig) -> dict[str, Any]:
    return {
        "model_type": "encodec",
        "sampling_rate": c.sample_rate,
        "audio_channels": c.channels,
        "target_bandwidths": c.bandwidths,
        "use_causal_conv": c.causal,
        "norm_type": c.norm,
        "normalize": c.normalize,
        "chunk_length_s": c.segment,
        "overlap": c.overlap if c.segment else None,
        "num_filters": c.n_filters,
        "hidden_size": c.dimension,
        "upsampling_ratios": c.ratios,
        "num_residual_layers": c.n_residual_layers,
        "kernel_size": c.kernel_size,
        "last_kernel_size": c.last_kernel_size,
        "residual_kernel_size": c.residual_kernel_size,
        "dilation_growth_rate": c.dilation_base,
        "compress": c.compress,
        "use_conv_shortcut": c.conv_shortcut,
        "num_lstm_layers": c.lstm,
        "pad_mode": "constant" if c.pad_mode == "zeros" else c.pad_mode,
        "trim_right_ratio": c.trim_right_ratio,
        "codebook_size": c.bins,
    }


def original_config(c: EncodecConfig) -> dict[str, Any]:
    same = ("sample_rate", "channels", "causal", "norm", "normalize", "segment", "overlap", "n_filters", "dimension")
    same += ("ratios", "n_residual_layers", "kernel_size", "last_kernel_size", "residual_kernel_size", "dilation_base")
    same += ("compress", "lstm", "pad_mode", "trim_right_ratio", "n_q", "bins")
    return {name: getattr(c, name) for name in same} | {
        "target_bandwidths": c.bandwidths,
        "true_skip": not c.conv_shortcut,
    }
