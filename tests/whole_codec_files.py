"""Writes DAC and SNAC checkpoints the way upstream does, for the tests of reading them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from whole_codecs import CONFIGS

from fastvoc.models.dac import DacConfig
from fastvoc.models.snac import SnacConfig
from fastvoc.nn.local_attention import frequencies

DAC = DacConfig(44100, 4, (2, 4), None, 16, (4, 2), 4, 32, 6)
_UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}


def random_state(config: DacConfig | SnacConfig) -> dict[str, Tensor]:
    """A folded state of the model's own names."""
    return {name: torch.randn(shape) * 0.1 for name, shape in config.tensors()}


def _upstream(name: str, encoder: dict[str, str], decoder: dict[str, str], first_unit: int, offset: int) -> str:
    """A name under upstream's numbers; `encoder` and `decoder` give those of what lies outside of the stages."""
    part, _, rest = name.partition(".")
    if part == "quantizer":
        return name
    prefix = "encoder.block" if part == "encoder" else "decoder.model"
    match = re.fullmatch(r"block\.(\d+)\.(?:res_unit(\d)\.)?(\w+)\.(.*)", rest)
    if match is None:
        module, _, last = rest.partition(".")
        return f"{prefix}.{(encoder if part == 'encoder' else decoder)[module]}.{last}"
    stage = int(match[1]) + (1 if part == "encoder" else offset)
    if match[2]:
        unit = int(match[2]) - 1 + (0 if part == "encoder" else first_unit)
        return f"{prefix}.{stage}.block.{unit}.block.{_UNIT[match[3]]}.{match[4]}"
    inner = {"snake1": 3, "conv1": 4} if part == "encoder" else {"snake1": 0, "conv_t1": 1, "noise": "2.linear"}
    return f"{prefix}.{stage}.block.{inner[match[3]]}.{match[4]}"


def _as_upstream(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(".alpha"):
        return tensor.reshape(1, -1, 1)
    return tensor[:, :, 0].clone() if name.endswith((".to_qkv.weight", ".to_out.weight")) else tensor


def write_dac(folder: Path, config: DacConfig = DAC, *, stated: bool = True, name: str = "weights.pth") -> None:
    """A `.pth` as the package saves it; without the constructor's values unless `stated`."""
    ends, down = len(config.encoder_rates), len(config.decoder_rates)
    encoder = {"conv1": "0", "snake1": str(ends + 1), "conv2": str(ends + 2)}
    decoder = {"conv1": "0", "snake1": str(down + 1), "conv2": str(down + 2)}
    state = {_upstream(n, encoder, decoder, 2, 1): _as_upstream(n, t) for n, t in random_state(config).items()}
    values = {**config.to_dict(), "quantizer_dropout": False}
    metadata = {"metadata": {"kwargs": values}} if stated else {}
    torch.save({"state_dict": state, **metadata}, folder / name)


def write_dac_transformers(folder: Path, config: DacConfig = DAC) -> None:
    """A folder of Transformers."""
    state = {name: _as_upstream(name, tensor).clone() for name, tensor in random_state(config).items()}
    save_file(state, folder / "model.safetensors")
    fields = {
        "model_type": "dac",
        "sampling_rate": config.sample_rate,
        "encoder_hidden_size": config.encoder_dim,
        "downsampling_ratios": config.encoder_rates,
        "decoder_hidden_size": config.decoder_dim,
        "n_codebooks": config.n_codebooks,
        "codebook_size": config.codebook_size,
        "codebook_dim": config.codebook_dim,
    }
    (folder / "config.json").write_text(json.dumps(fields))


def write_snac(folder: Path, name: str = "snac-attention") -> None:
    """A folder of the package."""
    config = CONFIGS[name]
    assert isinstance(config, SnacConfig)
    windows = config.attn_window_size is not None
    stages, last = len(config.encoder_rates), len(config.decoder_rates)
    encoder = {"conv1": "0", "attention": str(stages + 1), "conv2": str(stages + 1 + windows)}
    first = 1 + config.depthwise
    decoder = {"conv0": "0", "conv1": str(first - 1), "attention": str(first)}
    first += windows
    decoder |= {"snake1": str(first + last), "conv2": str(first + last + 1)}
    state = {
        _upstream(n, encoder, decoder, 2 + config.noise, first): _as_upstream(n, t)
        for n, t in random_state(config).items()
    }
    if windows:
        for place in (f"encoder.block.{encoder['attention']}", f"decoder.model.{decoder['attention']}"):
            state[f"{place}.rel_pos.inv_freq"] = frequencies()
    torch.save(state, folder / "pytorch_model.bin")
    values = config.to_dict()
    (folder / "config.json").write_text(json.dumps({"sampling_rate": values.pop("sample_rate"), **values}))
