"""NSF-HiFi-GAN, the generator of RVC: a HiFi-GAN to whose every stage a source of sines and noise is added.

github.com/RVC-Project/Retrieval-based-Voice-Conversion-WebUI; the source is that of Wang, Takaki and Yamagishi 2019
(arXiv 1904.12088).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, ExportError
from fastvoc.models.checks import (
    Tensors,
    check_floats,
    chunk_f0,
    conv_tensors,
    filled,
    is_number,
    item_seeds,
    positive,
    require,
)
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.models.sources import make_source, one_row
from fastvoc.models.speakers import Speaker
from fastvoc.nn.conv import Conv1d, WideConv1d
from fastvoc.nn.layer import Plain
from fastvoc.nn.model import Given, Written
from fastvoc.nn.network import Network, Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import Stage
from fastvoc.nn.source import NsfSource
from fastvoc.nn.streams import NetworkStream
from fastvoc.ops.stream import PointStream
from fastvoc.runtime.registry import use_exact

_MOST_HARMONICS = 63  # of the op on the CPU


def _kernel(stride: int) -> int:
    return 2 * stride if stride > 1 else 1


@dataclass(frozen=True)
class NsfHifiGanConfig(HifiGanConfig):
    """HiFi-GAN's fields and those of the source; RVC's generator has `latent`, `gin_channels` and no `post_bias`.

    The source sums F0 sample by sample to the phase of its sines, the fundamental and `harmonics` overtones. Where F0
    exceeds `voiced_threshold` Hz they have amplitude `source_amp` and normal noise of `noise_std`; elsewhere there is
    noise of source_amp / 3 alone. It enters a stage by a convolution of twice the stride that brings it to the stage's
    rate, of kernel 1 in the last; products of the rates that follow a stage are even or 1, so that lengths fit.
    """

    family: ClassVar[str] = "nsf_hifigan"

    harmonics: int = 0
    source_amp: float = 0.1
    noise_std: float = 0.003
    voiced_threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, not self.conds, "conds", "False, since a source enters the stages")
        whole = self.harmonics == 0 or (positive((self.harmonics,)) and self.harmonics <= _MOST_HARMONICS)
        require(self, whole, "harmonics", f"an integer from 0 to {_MOST_HARMONICS}")
        for name in ("source_amp", "noise_std", "voiced_threshold"):
            value = getattr(self, name)
            require(
                self, isinstance(value, int | float) and is_number(value) and value >= 0, name, "0 or a positive number"
            )
        strides = [self.source_stride(stage) for stage in range(len(self.upsample_rates))]
        require(self, all(s == 1 or s % 2 == 0 for s in strides), "upsample_rates", "rates of even products to the end")
        for stage, (k, u) in enumerate(zip(self.upsample_kernel_sizes, self.upsample_rates, strict=True)):
            padding, extra = self.padding(stage)
            fits = k - u - 2 * padding + extra == 0
            require(self, fits, "upsample_kernel_sizes", "kernels of rate + 0, 2, 4, ..., which keep to the source")

    def source_stride(self, stage: int) -> int:
        """Samples of the source per step of a stage."""
        return prod(self.upsample_rates[stage + 1 :])

    def tensors(self) -> Tensors:
        """Name and shape of every tensor of the model's state, in its order, without building it."""
        yield from super().tensors()
        yield "m_source.weight", (self.harmonics + 1,)
        yield "m_source.bias", (1,)
        for stage in range(len(self.upsample_rates)):
            channels, stride = self.channels(stage), self.source_stride(stage)
            yield from conv_tensors(f"noise_convs.{stage}", (channels, 1, _kernel(stride)), channels)


# RVC, version 2, at 40 kHz.
RVC_40K = NsfHifiGanConfig(
    sample_rate=40000,
    num_mels=192,
    upsample_rates=(10, 10, 2, 2),
    upsample_kernel_sizes=(16, 16, 4, 4),
    post_bias=False,
    latent=True,
    gin_channels=256,
    num_speakers=109,
)


class Level(Plain):
    """x [B, C, T] and a level [B, 1, 1] -> the level at each step, [B, 1, T]."""

    MORE = 1

    def compute(self, x: Tensor, level: Tensor, lengths: Tensor | None = None) -> Tensor:
        return level.expand(-1, -1, x.shape[2])

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> PointStream:
        return PointStream(self.compute, 1)


class NsfHifiGan(HifiGan):
    """The generator: latent (or log-mel) and F0 in, waveform out.

    Parameters are HiFi-GAN's, and `m_source` (the weights that merge the sines) and `noise_convs.{i}` (the convolution
    that brings the source to a stage). In bfloat16 and float16 the source and the first stage's stay in float32.
    """

    probe_inputs: Mapping[str, float] = MappingProxyType({"f0": 160.0})
    warmup_inputs: Mapping[str, Any] = MappingProxyType({"f0": 0.0})
    config: NsfHifiGanConfig

    def __init__(self, config: NsfHifiGanConfig) -> None:
        super().__init__(config)
        self.m_source = NsfSource(
            config.harmonics,
            config.sample_rate,
            config.hop,
            kind="sample",
            amp=config.source_amp,
            noise_std=config.noise_std,
            threshold=config.voiced_threshold,
        )
        convs: list[Conv1d] = []
        for stage in range(len(config.upsample_rates)):
            stride = config.source_stride(stage)
            kind = Conv1d if stage else WideConv1d
            half = stride // 2
            padding = (half, half) if stride > 1 else (0, 0)
            convs.append(kind(1, config.channels(stage), _kernel(stride), stride=stride, padding=padding))
        self.noise_convs = nn.ModuleList(convs)
        self.inputs = ("f0", "source", "seed", "noise", *self.inputs)
        self.stream_options = ("f0", "seed", *self.stream_options)

    def int8_stages(self) -> dict[str, Stage]:
        return {}

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        speaker: Speaker = None,
        f0: Tensor | float | None = None,
        source: Tensor | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Latent or log-mel to waveform.

        Args:
            mel: [B, num_mels, T] latent, or log-mel of the checkpoint's own front end.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            backend: implementation to force for every op.
            speaker: as `HifiGan.forward` has it.
            f0: [B, T] in Hz, or a number for all frames; at most `config.voiced_threshold` is unvoiced.
            source: [B, 1, T * hop] that takes the place of the one generated from F0, which is then not needed.
            seed, noise: of the source, as `make_source` has them.

        Returns:
            [B, 1, T * hop] samples in (-1, 1).

        Raises:
            ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        self._check(mel)
        batch, _, frames = mel.shape
        f0 = filled("f0", f0, (batch, frames), self.m_source.weight)
        if source is None:
            if f0 is None:
                raise ArgumentError("f0: expected [B, T] in Hz, 0 where unvoiced, or a number, as there is no source")
            source = self.make_source(f0, lengths, seed=seed, noise=noise, backend=backend)
        else:
            check_floats("source", source, (batch, 1, frames * self.config.hop), mel.device)
        items = self._items(speaker, batch, backend).values()
        return self.run(self._network, mel, source, *items, lengths=lengths, backend=backend)

    def make_source(
        self,
        f0: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Sequence[int] | Tensor | None = None,
        noise: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """The source signal [B, 1, T * hop] of an F0 [B, T] in Hz.

        Args:
            f0: as in `forward`.
            lengths: [B] int64 on the CPU, valid frames of each item.
            seed: of the noise and of the overtones' start phases, an integer or [B] integers; 0 when None.
            noise: [B, harmonics + 1, T * hop] that takes the place of the drawn noise, to be scaled as that is.
            backend: implementation to force.

        Raises:
            As `forward`.
        """
        return make_source(self, f0, lengths, seed=seed, noise=noise, backend=backend)

    def input_shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that `forward` takes besides a latent of so many frames, without the batch axis."""
        samples = frames * self.config.hop
        return {"f0": (frames,), "source": (1, samples), "noise": (self.config.harmonics + 1, samples)}

    @property
    def _network(self) -> Network:
        return self.reading(per_frame=(1, self.config.hop, *self._unlike_signals))

    @property
    def _unlike_signals(self) -> tuple[int, ...]:
        return (0,) if self.config.gin_channels else ()

    def network(self, run: Trace, mel: Value, *further: Value) -> Value:
        """The steps from a latent and a source to the waveform; what follows the source is what `_items` gives."""
        source, *items = further
        x = self._begun(run, mel, *items)
        for (up, stage), conv in zip(self._stages, self.noise_convs, strict=True):
            assert isinstance(conv, Conv1d)
            x = run(stage, run.add(run(up, x), run(conv, source)))
        return self._ended(run, x, mel)

    def written(self, chosen: Collection[str] = ()) -> Written:
        """Without choice from a latent and F0; `source` in place of F0 and noise."""
        first, speaker = self._written_inputs()
        self._choose(chosen, "noise", "source", *speaker)
        if {"noise", "source"} <= set(chosen):
            raise ExportError("inputs: source comes in place of f0 and noise, expected it without noise")
        axes: dict[str, tuple[int | str, ...]] = {
            "f0": ("batch", "frames"),
            "noise": ("batch", self.config.harmonics + 1, "samples"),
            "source": ("batch", 1, "samples"),
        }
        names = [name for name in axes if name in chosen or (name == "f0" and "source" not in chosen)]

        def network(run: Trace, mel: Value, *values: Value) -> Value:
            given = dict(zip(names, values, strict=False))
            source = given.get("source")
            if source is None:
                source = run(self.m_source, run.map(one_row, given["f0"]), None, None, None, given.get("noise"))
            return self.network(run, mel, source, *self._told(run, *values[len(names) :]))

        return Written({**first, **{name: Given(axes[name]) for name in names}, **speaker}, network)

    def _source(self, run: Trace, f0: Value, phase: Value, seed: Value, noise: Value) -> Value:
        return run(self.m_source, f0, None, phase, seed, noise)

    def _live(self, run: Trace, mel: Value, f0: Value, seed: Value, *items: Value) -> Value:
        return self.network(run, mel, run(self.m_source, f0, None, None, seed), *items)

    def _live_at(self, run: Trace, mel: Value, level: Value, seed: Value, *items: Value) -> Value:
        return self._live(run, mel, run(Level(), mel, level), seed, *items)

    def layers(self) -> dict[str, Prepared]:
        return {**self.reading("_source", (1, 0, 0, 0)).layers, **super().layers()}

    @torch.no_grad()
    def stream(
        self,
        backend: str | None = None,
        *,
        speaker: Speaker = None,
        exact: bool = True,
        f0: float | bool = True,
        seed: int | None = None,
    ) -> NetworkStream:
        """The generator's state for a latent that arrives in chunks.

        f0: True when F0 [B, n] in Hz comes with every chunk; or a number for all frames. seed: of the source's noise, 0
        when None. `speaker` as in a call, `exact` as in `Vocoder.stream`. Raises ArgumentError for another f0.
        """
        with use_exact(exact):
            items = self._items(speaker, None, backend)
        device = self.conv_post.weight.device
        seeds = item_seeds(0 if seed is None else seed, 1, device)
        if f0 is True:
            network = self.reading("_live", (1, 1, 0, *self._unlike_signals))
            given: dict[str, Tensor | None] = {"seed": seeds, **items}
            return NetworkStream(network, backend, exact=exact, signals=("f0",), items=given)
        if not is_number(f0):
            raise ArgumentError(f"f0: expected True, as it comes with every chunk, or a number in Hz, got {f0!r}")
        level = torch.full((1, 1, 1), float(f0), dtype=self.m_source.weight.dtype, device=device)
        network = self.reading("_live_at", (1, 0, 0, *self._unlike_signals))
        return NetworkStream(network, backend, exact=exact, items={"f0": level, "seed": seeds, **items})

    def stream_inputs(self, x: Tensor, inputs: Mapping[str, object]) -> dict[str, Tensor]:
        """What comes with a chunk [B, C, n]: F0 as [n] or [B, n]."""
        return chunk_f0(x, inputs)
