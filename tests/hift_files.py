"""Writes files of the HiFTNet family the way upstream does, for the tests of reading them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fastvoc.models.hift_config import CHATTERBOX, COSYVOICE1, COSYVOICE2, COSYVOICE3, HiftConfig
from fastvoc.models.hiftnet import HiftNet

SMALL = {
    "chatterbox": replace(CHATTERBOX, base_channels=8, f0_channels=6),
    "cosyvoice1": replace(COSYVOICE1, base_channels=8, f0_channels=6),
    "cosyvoice2": replace(COSYVOICE2, base_channels=8, f0_channels=6),
    "cosyvoice3": replace(COSYVOICE3, base_channels=8, f0_channels=6),
}


def state_of(config: HiftConfig) -> dict[str, Tensor]:
    """A random state under the names of the upstream generators, weights folded."""
    torch.manual_seed(3)
    state = {name: torch.randn_like(tensor) * 0.1 for name, tensor in HiftNet(config).state_dict().items()}
    state["m_source.l_linear.weight"] = state.pop("m_source.weight")[None]
    state["m_source.l_linear.bias"] = state.pop("m_source.bias")
    return state


def normed(state: dict[str, Tensor], names: tuple[str, str]) -> dict[str, Tensor]:
    """The same weights as weight norm, where upstream has it; names of g and v."""
    result = {}
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.dim() == 3 and "source_downs" not in name:
            module = name.removesuffix("weight")
            result[module + names[0]] = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            result[module + names[1]] = tensor * 3
        else:
            result[name] = tensor
    return result


def yaml_of(config: HiftConfig, **changes: Any) -> str:
    """The published YAML of a configuration, with tags and references as there."""
    lists = ["upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes", "resblock_dilation_sizes"]
    lists += ["source_resblock_kernel_sizes", "source_resblock_dilation_sizes"]
    fields: dict[str, Any] = {name: json.dumps(getattr(config, name)) for name in lists}
    fields |= {"in_channels": config.num_mels, "base_channels": config.base_channels, "nb_harmonics": config.harmonics}
    fields |= {"sampling_rate": "!ref <sample_rate>", "nsf_alpha": config.source_amp, "nsf_sigma": config.noise_std}
    fields |= {"nsf_voiced_threshold": config.voiced_threshold, "lrelu_slope": config.leaky_relu_slope}
    fields |= {"audio_limit": config.clamp, **changes}
    kind = "CausalHiFTGenerator" if config.causal else "HiFTGenerator"
    lines = ["__set_seed1: !apply:random.seed [1986]", f"sample_rate: {config.sample_rate}"]
    lines += [f"hift: !new:cosyvoice.hifigan.generator.{kind}", *(f"    {k}: {v}" for k, v in fields.items())]
    lines += ["    istft_params:", f"        n_fft: {config.n_fft}", f"        hop_len: {config.istft_hop}"]
    lines += ["    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor"]
    lines += [f"        cond_channels: {config.f0_channels}"]
    return "\n".join([*lines, ""])


def write_cosyvoice(folder: Path, config: HiftConfig = SMALL["cosyvoice2"]) -> None:
    """`hift.pt` with its YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(normed(state_of(config), ("weight_g", "weight_v")), folder / "hift.pt")
    (folder / "cosyvoice2.yaml").write_text(yaml_of(config))


def write_hiftnet_model(folder: Path, config: HiftConfig = SMALL["cosyvoice1"]) -> None:
    """A folder of the first draft for transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"hiftnet.{key}": tensor for key, tensor in state_of(config).items()}, folder / "model.safetensors")
    fields = {"model_type": "hiftnet", "base_channels": config.base_channels, "nb_harmonics": config.harmonics}
    lists = {"upsample_rates": config.upsample_rates, "resblock_dilation_sizes": config.resblock_dilation_sizes}
    (folder / "config.json").write_text(
        json.dumps({**fields, **lists, "f0_predictor_cond_channels": config.f0_channels})
    )


DRAFT = {
    "nsf": {
        "source_generator": "source_generator.linear.",
        "conv_pre": "input_conv.",
        "conv_post": "output_conv.",
        "down": "nsf_conv",
        "block": "nsf_res",
        "blocks": "multi_receptive_field_fusion",
        "alpha": "snake_activation_{}.alpha",
    },
    "noise": {
        "source_generator": "m_source.l_linear.",
        "conv_pre": "conv_pre.",
        "conv_post": "conv_post.",
        "down": "noise_conv",
        "block": "noise_res",
        "blocks": "resblocks",
        "alpha": "alpha{}",
    },
}


def draft_name(name: str, words: dict[str, str]) -> str:
    """An upstream name in the words of a draft, by rules of its own."""
    head, _, rest = name.partition(".")
    if head == "f0_predictor":
        return f"fundamental_frequency_predictor.{rest.replace('classifier', 'linear')}"
    if head == "m_source":
        return "model." + words["source_generator"] + name.rpartition(".")[2]
    if head in ("conv_pre", "conv_post"):
        return "model." + words[head] + rest
    number, _, rest = rest.partition(".")
    if head == "ups":
        return f"model.layers.{number}.up.{rest}"
    if head == "source_downs":
        return f"model.layers.{number}.{words['down']}.{rest}"
    kind, layer, last = rest.split(".", 2)
    part = words["alpha"].format(kind[-1]) if kind.startswith("activations") else f"conv{kind[-1]}.{last}"
    if head == "source_resblocks":
        return f"model.layers.{number}.{words['block']}.layers.{layer}.{part}"
    return f"model.layers.{int(number) // 3}.{words['blocks']}.{int(number) % 3}.layers.{layer}.{part}"
