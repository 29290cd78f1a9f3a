"""Mimi's states as the published files have them: Transformers' folders and moshi's single files."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from fastvoc.models.mimi_config import MimiConfig

_TRANSFORMERS = (
    (r"\.conv1\.", ".block.1.conv."),
    (r"\.conv2\.", ".block.3.conv."),
    (r"\.shortcut\.", ".shortcut.conv."),
    (r"^upsample\.", "upsample.conv."),
    (r"^quantizer\.(semantic|acoustic)\.", r"quantizer.\1_residual_vector_quantizer."),
    (r"\.rvq\.codebooks\.(\d+)$", r".layers.\1.codebook"),
)
_MOSHI = (
    (r"^(encoder|decoder)\.layers\.(\d+)\.conv\.", r"\1.model.\2.conv.conv."),
    (r"^(encoder|decoder)\.layers\.(\d+)\.block\.(\d)\.conv\.", r"\1.model.\2.block.\3.conv.conv."),
    (r"^(encoder|decoder)\.layers\.(\d+)\.shortcut\.conv\.", r"\1.model.\2.shortcut.conv.conv."),
    (r"^downsample\.conv\.", "downsample.conv.conv.conv."),
    (r"^upsample\.conv\.", "upsample.convtr.convtr.convtr."),
    (r"^((?:en|de)coder_transformer)\.layers\.", r"\1.transformer.layers."),
    (r"\.mlp\.fc([12])\.", r".linear\1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
    (r"\.self_attn_layer_scale\.", ".layer_scale_1."),
    (r"\.mlp_layer_scale\.", ".layer_scale_2."),
    (r"semantic_residual_vector_quantizer\.", "rvq_first."),
    (r"acoustic_residual_vector_quantizer\.", "rvq_rest."),
    (r"(rvq_\w+)\.layers\.(\d+)\.codebook", r"\1.vq.layers.\2._codebook"),
)


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def transformers_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under Transformers' names; entries that were used more and less often, one of them never."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        target = renamed(name, _TRANSFORMERS)
        if target.endswith(".codebook"):
            usage = torch.linspace(0.5, 3.0, len(value))
            usage[3] = 0.0
            tensors[f"{target}.cluster_usage"] = usage
            tensors[f"{target}.embed_sum"] = value * usage.clamp(min=1e-5)[:, None]
            tensors[f"{target}.initialized"] = torch.ones(1)
        else:
            tensors[target] = value.clone()
    return tensors


def transformers_config(config: MimiConfig) -> dict[str, Any]:
    """`config.json` of a configuration."""
    return {
        "model_type": "mimi",
        "architectures": ["MimiModel"],
        "sampling_rate": config.sample_rate,
        "hidden_size": config.dimension,
        "num_filters": config.n_filters,
        "num_residual_layers": config.n_residual_layers,
        "upsampling_ratios": list(config.ratios),
        "kernel_size": config.kernel_size,
        "last_kernel_size": config.last_kernel_size,
        "residual_kernel_size": config.residual_kernel_size,
        "dilation_growth_rate": config.dilation_base,
        "compress": config.compress,
        "use_conv_shortcut": config.conv_shortcut,
        "pad_mode": "constant" if config.pad_mode == "zeros" else config.pad_mode,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.hidden,
        "sliding_window": config.window,
        "rope_theta": config.theta,
        "norm_eps": config.norm_eps,
        "num_quantizers": config.n_q,
        "num_semantic_quantizers": config.semantic,
        "codebook_size": config.bins,
        "codebook_dim": config.code_dimension,
        "vector_quantization_hidden_dimension": config.code_dimension,
        "upsample_groups": config.dimension,
    }


def moshi_tensors(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Under moshi's names: one projection for queries, keys and values, whose channels turn in neighbouring pairs."""
    tensors: dict[str, Tensor] = {}
    for name, value in transformers_tensors(state).items():
        if re.search(r"\.[kv]_proj\.", name):
            continue
        target = renamed(name, _MOSHI).replace(".embed_sum", ".embedding_sum").replace(".initialized", "._initialized")
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            paired = [part.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2) for part in parts[:2]]
            tensors[target.replace("q_proj.weight", "in_proj_weight")] = torch.cat([*paired, parts[2]])
        else:
            tensors[target] = value
    return tensors
