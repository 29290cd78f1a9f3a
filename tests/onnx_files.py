"""ONNX files of small HiFi-GAN and VITS decoders, written by torch's two exporters, for the tests of reading them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from checkpoint_files import random_state
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.models.hifigan import HifiGanConfig

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
            self.register_buffer("mean", torch.zeros(c.num_mels))
            self.register_buffer("scale", torch.ones(c.num_mels))

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
            axes = {name: {0: "batch", x.dim() - 1: "time"} if x.dim() > 1 else {0: "batch"} for name, x in zip(names, inputs, strict=True)}
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
            shapes = tuple({x.dim() - 1: torch.export.Dim("time")} if x.dim() == 3 and x.shape[2] > 1 else None for x in inputs)
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
