"""Mimi: Hugging Face Transformers' `MimiModel` folders, and the safetensors files of github.com/kyutai-labs/moshi.

A file of moshi's has no configuration: sizes show in its tensors, the rest is what moshi's loader builds it with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import ceil, prod
from typing import Any

from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed, rewritten
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.mimi_config import MIMI, MimiConfig

_MOSHI = "quantizer.rvq_first."
_CONVOLUTIONS = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(?:conv\.conv\.conv|convtr\.convtr\.convtr|conv\.conv|convtr\.convtr)\.", ".conv."),
    (r"\.block\.1\.conv\.", ".conv1."),
    (r"\.block\.3\.conv\.", ".conv2."),
    (r"\.shortcut\.conv\.", ".shortcut."),
    (r"^upsample\.conv\.", "upsample."),
)
_QUANTIZERS = (
    (r"^quantizer\.(?:rvq_first|semantic_residual_vector_quantizer)\.", "quantizer.semantic."),
    (r"^quantizer\.(?:rvq_rest|acoustic_residual_vector_quantizer)\.", "quantizer.acoustic."),
    (r"^(quantizer\.\w+\.)(?:vq\.)?layers\.(\d+)\._?codebook\.", r"\1rvq.codebooks.\2."),
    (r"\.embedding_sum$", ".embed_sum"),
    (r"\._initialized$", ".initialized"),
)
_LAYERS = (
    (r"^((?:en|de)coder_transformer)\.transformer\.", r"\1."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.layer_scale_1\.", ".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", ".mlp_layer_scale."),
)
_RENAMES = (*_CONVOLUTIONS, *_QUANTIZERS, *_LAYERS)
_TO_TRANSFORMERS = (
    (r"\.conv1\.", ".block.1.conv."),
    (r"\.conv2\.", ".block.3.conv."),
    (r"\.shortcut\.", ".shortcut.conv."),
    (r"^upsample\.", "upsample.conv."),
    (r"^quantizer\.(semantic|acoustic)\.", r"quantizer.\1_residual_vector_quantizer."),
    (r"\.rvq\.codebooks\.(\d+)$", r".layers.\1.codebook.embed_sum"),
)
# A codebook is the sum of what was assigned to an entry over how often that was, at least so often.
_SUM, _USAGE, _LEAST_USAGE = ".embed_sum", ".cluster_usage", 1e-5
_MIXED = ".in_proj_weight"


def detect(source: Source) -> bool:
    return any(name.startswith((_MOSHI, "encoder_transformer.layers.")) for name in source.entries)


def load(source: Source) -> Checkpoint:
    tensors = _of_codebooks(source, renamed(source, source.entries, canonical_name))
    if any(name.startswith(_MOSHI) for name in source.entries):
        tensors, dialect = _split(source, tensors), "moshi"
        config = _of_tensors(source, tensors)
        told = Origin("format", "what moshi's loader builds every Mimi with")
        origins = dict.fromkeys(("sample_rate", "heads", "window"), told)
    else:
        fields = source.json("config.json")
        config, dialect = from_transformers(fields), "transformers"
        default = Origin("format", "the default of transformers.MimiConfig")
        origins = {} if "sampling_rate" in fields else {"sample_rate": default}
    state = canonical_state(source, config, tensors)
    return Checkpoint(config, state, dialect, {"container": source.container}, origins=origins)


def canonical_name(name: str) -> str:
    """A tensor's name in either dialect under the name that `fastvoc.models.mimi` gives its layer."""
    return rewritten(name, _RENAMES)


def canonical_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state under Transformers' names or the model's own under the latter, its codebooks computed."""
    named = {canonical_name(name): value for name, value in state.items()}
    made: dict[str, Any] = {}
    for name, value in named.items():
        if name.endswith((_USAGE, ".initialized")):
            continue
        if name.endswith(_SUM):
            stem = name.removesuffix(_SUM)
            usage = named.get(stem + _USAGE)
            made[stem] = value if usage is None else _codebook(value, usage)
        else:
            made[name] = value
    return made


def transformers_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of `fastvoc.models.mimi` under Transformers' names."""
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = rewritten(name, _TO_TRANSFORMERS)
        named[name] = tensor.detach().cpu().contiguous()
        if name.endswith(_SUM):
            book = name.removesuffix(_SUM)
            named[book + _USAGE] = named[name].new_ones(len(tensor))
            named[f"{book}.initialized"] = named[name].new_ones(1)
    return named


def _codebook(total: Tensor, usage: Tensor) -> Tensor:
    return total.float() / usage.float().clamp(min=_LEAST_USAGE)[:, None]


def _of_codebooks(source: Source, tensors: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Codebooks in the place of the sums and counts that they are made of."""
    made: dict[str, TensorEntry] = {}
    for name, entry in tensors.items():
        if name.endswith(".initialized") and ".codebooks." in name:
            continue
        if name.endswith(_SUM):
            stem = name.removesuffix(_SUM)
            usage = tensors.get(stem + _USAGE)
            if usage is None or usage.shape != entry.shape[:1]:
                raise refuse(source.path, f"tensor {entry.name!r} {list(entry.shape)} has no cluster_usage that fits")
            made[stem] = replace(entry, read=partial(_read_codebook, entry, usage))
        elif not name.endswith(_USAGE) or name.removesuffix(_USAGE) + _SUM not in tensors:
            made[name] = entry
    return made


def _read_codebook(total: TensorEntry, usage: TensorEntry) -> Tensor:
    return _codebook(total.read(), usage.read())


def _split(source: Source, tensors: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The projections of queries, keys and values apart, with halves of heads where moshi turns neighbours."""
    made: dict[str, TensorEntry] = {}
    for name, entry in tensors.items():
        if not name.endswith(_MIXED):
            made[name] = entry
            continue
        if len(entry.shape) != 2 or entry.shape[0] % (6 * MIMI.heads):
            expected = f"[3 * C, C], C of {MIMI.heads} heads of an even size"
            raise refuse(source.path, f"tensor {entry.name!r} has shape {list(entry.shape)}, expected {expected}")
        shape = (entry.shape[0] // 3, entry.shape[1])
        for i, part in enumerate(("q", "k", "v")):
            own = f"{name.removesuffix(_MIXED)}.{part}_proj.weight"
            made[own] = replace(entry, shape=shape, read=partial(_read_part, entry, i))
    return made


def _read_part(entry: TensorEntry, index: int) -> Tensor:
    part = entry.read().chunk(3)[index]
    if index == 2:
        return part.contiguous()
    halves: Tensor = part.unflatten(0, (MIMI.heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()
    return halves


def _config(path: Any, **values: Any) -> MimiConfig:
    try:
        return MimiConfig(**values)
    except ArgumentError as error:
        raise refuse(path, f"illegal configuration: {error}") from None


def from_transformers(fields: Fields) -> MimiConfig:
    """The configuration in the fields of Transformers' own, 4.45 to 5, with its defaults. Raises LoadError."""
    model_type = fields.text("model_type")
    if model_type != "mimi":
        raise refuse(fields.path, f"model_type {model_type!r}, expected mimi")
    hidden, heads = fields.integer("hidden_size", 512), fields.integer("num_attention_heads", 8)
    rate, ratios = fields.integer("sampling_rate", 24000), fields.integers("upsampling_ratios", (8, 6, 5, 4))
    if not (rate and heads and 0 < len(ratios) <= 8 and all(ratios)):
        names = "'sampling_rate', 'num_attention_heads', 'upsampling_ratios'"
        raise refuse(fields.path, f"fields {names}: expected positive numbers, and at most 8 ratios")
    narrow = fields.integer("vector_quantization_hidden_dimension", 256)
    _only(
        fields,
        {
            "audio_channels": (fields.integer("audio_channels", 1), 1),
            "use_causal_conv": (fields.flag("use_causal_conv", True), True),
            "trim_right_ratio": (fields.number("trim_right_ratio", 1.0), 1.0),
            "normalize": (fields.flag("normalize", False), False),
            "attention_bias": (fields.flag("attention_bias", False), False),
            "hidden_act": (fields.text("hidden_act", "gelu"), "gelu"),
            "upsample_groups": (fields.integer("upsample_groups", 512), hidden),
            "codebook_dim": (
                fields.integer("codebook_dim", hidden if "codebook_dim" in fields.values else 256),
                narrow,
            ),
            "frame_rate": (fields.number("frame_rate", rate / (2 * prod(ratios))), ceil(rate / prod(ratios)) / 2),
        },
    )
    pad_mode = fields.text("pad_mode", "constant")
    return _config(
        fields.path,
        sample_rate=rate,
        n_filters=fields.integer("num_filters", 64),
        dimension=hidden,
        ratios=ratios,
        n_residual_layers=fields.integer("num_residual_layers", 1),
        kernel_size=fields.integer("kernel_size", 7),
        last_kernel_size=fields.integer("last_kernel_size", 3),
        residual_kernel_size=fields.integer("residual_kernel_size", 3),
        dilation_base=fields.integer("dilation_growth_rate", 2),
        compress=fields.integer("compress", 2),
        conv_shortcut=fields.flag("use_conv_shortcut", False),
        pad_mode="zeros" if pad_mode == "constant" else pad_mode,
        layers=fields.integer("num_hidden_layers", 8),
        heads=heads,
        kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=fields.integer("head_dim", hidden // heads),
        hidden=fields.integer("intermediate_size", 2048),
        window=fields.integer("sliding_window", 250),
        theta=_theta(fields),
        norm_eps=fields.number("norm_eps", 1e-5),
        n_q=fields.integer("num_quantizers", 32),
        semantic=fields.integer("num_semantic_quantizers", 1),
        bins=fields.integer("codebook_size", 2048),
        code_dimension=narrow,
        projected=narrow != hidden,
    )


def _only(fields: Fields, values: Mapping[str, tuple[object, object]]) -> None:
    """Refuses what no published Mimi has."""
    for name, (got, expected) in values.items():
        if got != expected:
            raise refuse(fields.path, f"field {name!r}: expected {expected!r}, got {got!r}")


def _theta(fields: Fields) -> float:
    """The base of the rotation's angles, which Transformers 5 has in a mapping; other kinds of rotation are refused."""
    for name in ("rope_parameters", "rope_scaling"):
        if name in fields:
            rope = fields.sub(name)
            kind = rope.text("rope_type", rope.text("type", "default"))
            if kind != "default":
                raise refuse(fields.path, f"field {name!r}: expected the rope_type 'default', got {kind!r}")
            return rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    return fields.number("rope_theta", 10000.0)


def _of_tensors(source: Source, tensors: Mapping[str, TensorEntry]) -> MimiConfig:
    """The configuration of a file of moshi's: sizes read off its tensors."""

    def shape(name: str, dims: int) -> tuple[int, ...]:
        entry = tensors.get(name)
        if entry is None or len(entry.shape) != dims or 0 in entry.shape:
            raise refuse(source.path, f"tensor {name!r} is missing, or has not {dims} dimensions")
        return entry.shape

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in tensors)

    numbered = {
        int(match[1]): entry.shape
        for name, entry in tensors.items()
        if (match := re.fullmatch(r"decoder\.layers\.(\d{1,4})\.conv\.weight", name))
    }
    outer = [numbered[number] for number in sorted(numbered)]
    if len(outer) < 3 or any(len(s) != 3 or s[2] % 2 for s in outer[1:-1]):
        raise refuse(
            source.path, "its decoder's convolutions are not Mimi's: kernels of two strides between two others"
        )
    inner = count(r"decoder\.layers\.\d+\.conv1\.weight")
    stages = len(outer) - 2
    if not inner or inner % stages:
        raise refuse(source.path, f"{inner} residual blocks for {stages} upsampling stages in its decoder")
    first_block = min(int(n.split(".")[2]) for n in tensors if re.fullmatch(r"decoder\.layers\.\d+\.conv1\.weight", n))
    narrow, width, kernel = shape(f"decoder.layers.{first_block}.conv1.weight", 3)
    first = shape("encoder.layers.0.conv.weight", 3)
    bins, code_dimension = shape("quantizer.semantic.rvq.codebooks.0", 2)
    dimension = outer[0][1]
    semantic = count(r"quantizer\.semantic\.rvq\.codebooks\.\d+")
    return _config(
        source.path,
        n_filters=first[0],
        dimension=dimension,
        ratios=tuple(s[2] // 2 for s in outer[1:-1]),
        n_residual_layers=inner // stages,
        kernel_size=first[2],
        last_kernel_size=outer[-1][2],
        residual_kernel_size=kernel,
        compress=width // narrow,
        conv_shortcut=any(".shortcut." in name for name in tensors),
        downsample=shape("downsample.conv.weight", 3)[2] // 2,
        layers=len({m[1] for name in tensors if (m := re.match(r"(?:en|de)coder_transformer\.layers\.(\d+)\.", name))}),
        head_dim=dimension // MIMI.heads,
        hidden=shape("encoder_transformer.layers.0.mlp.fc1.weight", 2)[0],
        n_q=semantic + count(r"quantizer\.acoustic\.rvq\.codebooks\.\d+"),
        semantic=semantic,
        bins=bins,
        code_dimension=code_dimension,
        projected=any(".input_proj." in name for name in tensors),
    )
