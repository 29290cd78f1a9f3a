"""ONNX files of small HiFi-GAN and VITS decoders, written by torch's two exporters, for the tests of reading them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from checkpoint_files import SMALL, random_state
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.models.hifigan import HifiGanConfig

ODD = replace(
    SMALL,
    upsample_rates=(3, 2),
    upsample_kernel_sizes=(6, 5),
    upsample_paddings=(2, 2),
    upsample_output_paddings=(1, 1),
    leaky_relu_slope=0.2,
    pre_kernel_size=5,
    post_kernel_size=3,
)
NORMAL = replace(SMALL, normalize_before=True)

Exporter = Literal["torchscript", "dynamo"]
Norm = Literal["none", "old", "parametrized"]


def need_onnx(*packages: str) -> None:
    """Skips the test where a package for it is not installed; onnx always is one."""
    for package in ("onnx", *packages):
        pytest.importorskip(package, reason=f"the package {package} is not installed")


class Block(nn.Module):
    """A residual block of plain torch layers, with upstream's names."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], slope: float, *, pairs: bool) -> None:
        super().__init__()
        self.slope = slope

        def convs(values: Sequence[int]) -> nn.ModuleList:
            made = (nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel // 2)) for d in values)
            return nn.ModuleList(made)

        if pairs:
            self.convs1, self.convs2 = convs(dilations), convs([1] * len(dilations))
        else:
            self.convs = convs(dilations)
        self.pairs = pairs

    def forward(self, x: Tensor) -> Tensor:
        for i, first in enumerate(self.convs1 if self.pairs else self.convs):
            y = first(F.leaky_relu(x, self.slope))
            x = (self.convs2[i](F.leaky_relu(y, self.slope)) if self.pairs else y) + x
        return x


class Generator(nn.Module):
    """HiFi-GAN of plain torch layers; `g` [B, gin, 1] is what a speaker is told by."""

    def __init__(self, config: HifiGanConfig) -> None:
        super().__init__()
        c = self.config = config
        self.conv_pre = nn.Conv1d(c.num_mels, c.channels(-1), c.pre_kernel_size, padding=c.pre_kernel_size // 2)
        ups, blocks = [], []
        for i, (k, u) in enumerate(zip(c.upsample_kernel_sizes, c.upsample_rates, strict=True)):
            padding, extra = c.padding(i)
            ups.append(nn.ConvTranspose1d(c.channels(i - 1), c.channels(i), k, u, padding, extra))
            for kernel, dilations in zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True):
                pairs = c.resblock == "1"
                blocks.append(Block(c.channels(i), kernel, dilations, c.leaky_relu_slope, pairs=pairs))
        self.ups, self.resblocks = nn.ModuleList(ups), nn.ModuleList(blocks)
        last, k = c.channels(len(ups) - 1), c.post_kernel_size
        self.conv_post = nn.Conv1d(last, 1, k, padding=k // 2, bias=c.post_bias)
        if c.gin_channels:
            self.cond = nn.Conv1d(c.gin_channels, c.channels(-1), 1)
        if c.normalize_before:
            self.mean, self.scale = nn.Buffer(torch.zeros(c.num_mels)), nn.Buffer(torch.ones(c.num_mels))

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        c = self.config
        if c.normalize_before:
            x = (x - self.mean[:, None]) / self.scale[:, None]
        x = self.conv_pre(x)
        if g is not None:
            x = x + self.cond(g)
        count = len(c.resblock_kernel_sizes)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, c.leaky_relu_slope))
            total: Any = 0
            for j in range(count):
                made = self.resblocks[i * count + j](x)
                total = made if j == 0 else total + made
            x = total / count
        return torch.tanh(self.conv_post(F.leaky_relu(x, c.final_leaky_relu_slope)))


def generator(config: HifiGanConfig, norm: Norm = "none", seed: int = 0) -> Generator:
    """A generator with the weights of `random_state`, which weight norm then says in two parts."""
    model = Generator(config).eval().requires_grad_(False)
    state = {name: t for name, t in random_state(config, seed).items() if name != "emb_g.weight"}
    model.load_state_dict(state)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module is not getattr(model, "cond", None):
            if norm == "old":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    nn.utils.weight_norm(module)
            elif norm == "parametrized":
                nn.utils.parametrizations.weight_norm(module)
    return model


def export(
    path: Path,
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    exporter: Exporter = "torchscript",
    *,
    folding: bool = True,
    opset: int | None = None,
) -> Path:
    """Writes a model whose inputs' last axes, and their first ones, may have any length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        if exporter == "torchscript":
            axes = {
                name: {0: "batch", x.dim() - 1: "time"} for name, x in zip(names, inputs, strict=True) if x.dim() > 1
            }
            torch.onnx.export(
                model,
                inputs,
                str(path),
                dynamo=False,
                opset_version=opset or 15,
                input_names=list(names),
                output_names=["output"],
                dynamic_axes={**axes, "output": {0: "batch", 2: "time"}},
                do_constant_folding=folding,
            )
        else:
            time = torch.export.Dim("time")
            shapes = tuple({2: time} if x.dim() == 3 and x.shape[2] > 1 else None for x in inputs)
            torch.onnx.export(
                model,
                inputs,
                str(path),
                dynamo=True,
                opset_version=opset,
                input_names=list(names),
                output_names=["output"],
                dynamic_shapes=shapes,
                verbose=False,
                external_data=False,
                optimize=folding,
            )
    return path


class VoiceModel(nn.Module):
    """A voice in Piper's form around a generator: every phoneme lasts two frames, noise of two kinds is added.

    flow: what follows on the sum with the noise.
    """

    def __init__(self, config: HifiGanConfig, phonemes: int = 12, flow: nn.Module | None = None) -> None:
        super().__init__()
        self.flow = nn.Identity() if flow is None else flow
        self.dec = generator(config, seed=1)
        self.emb = nn.Embedding(phonemes, 2 * config.num_mels)
        if config.num_speakers:
            self.emb_g = nn.Embedding(config.num_speakers, config.gin_channels)

    def forward(self, ids: Tensor, lengths: Tensor, scales: Tensor, sid: Tensor | None = None) -> Any:
        wide = self.emb(ids).transpose(1, 2)
        wide = torch.stack([wide, wide], 3).flatten(2)
        mean, spread = wide.chunk(2, dim=1)
        z = mean * scales[1] + torch.randn_like(mean) * spread.exp() * scales[0]
        z = z + torch.randn_like(spread) * scales[2]
        mask = torch.arange(mean.shape[2]) < 2 * lengths[:, None]
        g = None if sid is None else self.emb_g(sid)[:, :, None]
        return self.dec(self.flow(z) * mask[:, None].to(z.dtype), g)


VOICE_INPUTS = ("input", "input_lengths", "scales", "sid")


def voice_json(config: HifiGanConfig, phonemes: int = 12, **changes: Any) -> dict[str, Any]:
    """What Piper has beside such a voice."""
    speakers = {"speaker_id_map": {f"s{i}": i for i in range(config.num_speakers)}} if config.num_speakers else {}
    return {
        "audio": {"sample_rate": config.sample_rate, "quality": "medium"},
        "inference": {"noise_scale": 0.5, "length_scale": 1.25, "noise_w": 0.25},
        "phoneme_type": "espeak",
        "espeak": {"voice": "en-us"},
        "phoneme_id_map": {name: [i] for i, name in enumerate("_^$ abcdefgh"[:phonemes])},
        "num_symbols": phonemes,
        "num_speakers": max(config.num_speakers, 1),
        **speakers,
        **changes,
    }


def write_voice(
    folder: Path, config: HifiGanConfig, name: str = "voice.onnx", flow: nn.Module | None = None, **changes: Any
) -> Path:
    """A voice with its JSON, by the TorchScript exporter; returns the ONNX file."""
    torch.manual_seed(7)
    model = VoiceModel(config, flow=flow).eval().requires_grad_(False)
    inputs = [torch.arange(5)[None], torch.tensor([5]), torch.tensor([0.5, 1.0, 0.5])]
    inputs += [torch.tensor([1])] if config.num_speakers else []
    folder.mkdir(parents=True, exist_ok=True)
    path = export(folder / name, model, tuple(inputs), VOICE_INPUTS[: len(inputs)])
    (folder / f"{name}.json").write_text(json.dumps(voice_json(config, **changes)))
    return path


def run_onnx(file: Path | bytes, **inputs: Any) -> Tensor:
    """What onnxruntime makes of a file, the first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    given = file if isinstance(file, bytes) else str(file)
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    fed = {name: value.numpy() if isinstance(value, Tensor) else np.asarray(value) for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, fed)[0])


def onnx_model(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def edit(path: Path, change: Callable[[Any], None]) -> Path:
    """The file with its message changed."""
    model = onnx_model(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def nodes(model: Any, op: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == op]


def attribute(node: Any, name: str, value: Any) -> None:
    from onnx import helper

    rest = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend([*rest, helper.make_attribute(name, value)])
