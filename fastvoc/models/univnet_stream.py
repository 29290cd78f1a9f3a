"""UnivNet on mel spectrograms that arrive in chunks: kernels and the samples that they shape wait for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ShapeError
from fastvoc.models.checks import item_seeds
from fastvoc.nn.streams import LayerStreams, ModelStream
from fastvoc.ops.join import Join
from fastvoc.ops.noise import normal_noise


class NoiseStream:
    """The noise of the frames so far. `seed` is one integer, or one per stream of the batch that comes."""

    def __init__(self, channels: int, seed: int | Sequence[int] | Tensor) -> None:
        self._channels, self._seed = channels, seed
        self._state: Tensor | None = None  # [B, 2]: seed and next frame of every stream

    @property
    def counters(self) -> tuple[int, ...]:
        return (int(self._state is not None),)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._state is None else {"state": self._state}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self._state = tensors.get("state")

    def step(self, mel: Tensor, final: bool, shortest: int) -> Tensor:
        """The noise [B, channels, n] beside the mel [B, num_mels, n].

        Raises ShapeError when the signal ends with fewer frames than `shortest`.
        """
        batch, _, count = mel.shape
        state = self._state
        if state is None:
            seeds = item_seeds(self._seed, batch, mel.device)
            state = torch.stack([seeds, torch.zeros_like(seeds)], 1)
        if final and int(state[:, 1].min()) + count < shortest:
            raise ShapeError(f"chunk: the signal ends after fewer than {shortest} frames, which its reflection needs")
        noise = normal_noise(state[:, 0], self._channels, count, state[:, 1]).to(mel.dtype)
        self._state = torch.stack([state[:, 0], state[:, 1] + count], 1)
        return noise


class UnivNetStream(ModelStream):
    """A batch of streams through a UnivNet (`model`), all at the same point."""

    def __init__(
        self, model: Any, backend: str | None, seed: int | Sequence[int] | Tensor, *, exact: bool = True
    ) -> None:
        self._model = model
        self._layers = LayerStreams(model.layers(), backend, exact=exact)
        self._noise = NoiseStream(model.config.model_in_channels, seed)
        self._joins = [[Join(2) for _ in block.kernel_predictor.blocks] for block in model.blocks]
        self.parts = {"layers": self._layers, "noise": self._noise}
        self.parts |= {f"join{i}.{j}": join for i, row in enumerate(self._joins) for j, join in enumerate(row)}

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        model, run = self._model, self._layers
        run.final = final
        h = run(model.conv_pre, self._noise.step(x, final, model.config.min_frames))
        for block, joins in zip(model.blocks, self._joins, strict=True):
            h = run(block.convt_pre, h)
            predictor = block.kernel_predictor
            p = run(predictor.input_conv, x)
            for part, join in zip(predictor.blocks, joins, strict=True):
                p, y = join(p, run(part.conv2, run(part.conv1, p)))
                p = y + p
            biases = run(predictor.bias_conv, p).chunk(len(block.lvc), 1)
            for layer, piece, bias in zip(block.lvc, predictor.kernel_conv.slices, biases, strict=True):
                kernels = predictor.kernel_conv.kernels(run(piece, p))
                h = run(layer, run(layer.conv, h), kernels, bias, h)
        return run(model.conv_post, h)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        span = self._layers.reads("conv_post", first, last)
        mels = []
        for i, block in reversed(list(enumerate(self._model.blocks))):
            name = f"resblocks.{i}"
            kernels = []
            for m in reversed(range(len(block.lvc))):
                kernels.append((span[0] // block.hop, span[1] // block.hop))
                span = self._through([f"{name}.resblocks.{m}.conv", f"{name}.resblocks.{m}.lvc"], span)
            predictor = [f"{name}.kernel_predictor.input_conv"]
            for j in range(len(block.kernel_predictor.blocks)):
                predictor += [f"{name}.kernel_predictor.resblocks.{j}.conv{k}" for k in (1, 2)]
            mels.append(self._through([*predictor, f"{name}.kernel_predictor.kernel_conv.0"], _hull(kernels)))
            span = self._layers.reads(f"{name}.convt_pre", *span)
        return _hull([*mels, self._layers.reads("conv_pre", *span)])

    def _through(self, names: Sequence[str], span: tuple[int, int]) -> tuple[int, int]:
        for name in reversed(names):
            span = self._layers.reads(name, *span)
        return span


def _hull(spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return min(low for low, _ in spans), max(high for _, high in spans)
