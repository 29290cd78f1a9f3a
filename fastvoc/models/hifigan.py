"""HiFi-GAN generator (Kong et al. 2020, arXiv 2010.05646; github.com/jik876/hifi-gan)."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.models.checks import (
    Tensors,
    check_like,
    check_stages,
    conv_tensors,
    positive,
    require,
    require_positive,
    require_rounds,
)
from fastvoc.models.families import Config
from fastvoc.models.speakers import Shift, Speaker, WideEmbedding, speaker_vectors
from fastvoc.nn import toom_cook
from fastvoc.nn.conv import Conv1d, WideConv1d
from fastvoc.nn.mel_rounds import MelRounds
from fastvoc.nn.model import Given, Model, Written
from fastvoc.nn.mrf import MrfStage, ResidualBlock, WideResidualBlock
from fastvoc.nn.network import Network, Trace, Value, stacked
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import Stage
from fastvoc.nn.streams import NetworkStream
from fastvoc.nn.upsample import Upsample, WideUpsample
from fastvoc.nn.widening import widen
from fastvoc.ops.activation import TANH, leaky_relu
from fastvoc.runtime.registry import use_exact
from fastvoc.sound.mel import HIFIGAN_22K, MelConfig
from fastvoc.sound.probe import probe

_LEAST_INT8_CHANNELS = 16  # of a stage; the kernels compute 16 at a time
_PROBE_FRAMES = 32


@dataclass(frozen=True)
class HifiGanConfig(Config):
    """The generator's shape, in the names of the published `config.json` where it has them.

    `upsample_paddings` and `upsample_output_paddings` are those of the transposed convolutions, floor((k - u) / 2) and
    0 when None. `mel` is the front end that the checkpoint was trained with, None when it is not known. `latent`: the
    input is no mel but a latent of `num_mels` channels, as for the decoder of VITS. `gin_channels`: length of the
    vector that a speaker is told by, 0 for a model without; `num_speakers`: vectors that the checkpoint has itself;
    `conds`: whether the speaker is told to every stage, too, as in XTTS. `mel_rounds`, ours: so many rounds bring the
    magnitudes of what the generator makes near its mel (`fastvoc.nn.mel_rounds`).
    """

    family: ClassVar[str] = "hifigan"

    sample_rate: int = 22050
    num_mels: int = 80
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock: str = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    upsample_paddings: tuple[int, ...] | None = None
    upsample_output_paddings: tuple[int, ...] | None = None
    leaky_relu_slope: float = 0.1
    final_leaky_relu_slope: float = 0.01
    pre_kernel_size: int = 7
    post_kernel_size: int = 7
    post_bias: bool = True
    pad_mode: str = "zeros"
    normalize_before: bool = False
    mel: MelConfig | None = None
    latent: bool = False
    gin_channels: int = 0
    num_speakers: int = 0
    conds: bool = False
    mel_rounds: int = 0

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return prod(self.upsample_rates)

    def channels(self, stage: int) -> int:
        """Channels after upsampling stage `stage` (-1: before the first)."""
        return self.upsample_initial_channel >> (stage + 1)

    def padding(self, stage: int) -> tuple[int, int]:
        """(padding, output_padding) of the transposed convolution of a stage."""
        k, u = self.upsample_kernel_sizes[stage], self.upsample_rates[stage]
        padding = (k - u) // 2 if self.upsample_paddings is None else self.upsample_paddings[stage]
        extra = 0 if self.upsample_output_paddings is None else self.upsample_output_paddings[stage]
        return padding, extra

    def samples(self, frames: int) -> int:
        """Length of the waveform made from a number of mel frames."""
        for i, (k, u) in enumerate(zip(self.upsample_kernel_sizes, self.upsample_rates, strict=True)):
            padding, extra = self.padding(i)
            frames = (frames - 1) * u - 2 * padding + k + extra
        return frames

    def tensors(self) -> Tensors:
        """Name and shape of every tensor of the model's state, in its order, without building it."""
        if self.normalize_before:
            yield "mean", (self.num_mels,)
            yield "scale", (self.num_mels,)
        yield from conv_tensors("conv_pre", (self.channels(-1), self.num_mels, self.pre_kernel_size), self.channels(-1))
        for i, kernel in enumerate(self.upsample_kernel_sizes):
            yield from conv_tensors(f"ups.{i}", (self.channels(i - 1), self.channels(i), kernel), self.channels(i))
        lists = ("convs1", "convs2") if self.resblock == "1" else ("convs",)
        count = len(self.resblock_kernel_sizes)
        for i in range(len(self.upsample_rates)):
            channels = self.channels(i)
            for j, kernel in enumerate(self.resblock_kernel_sizes):
                for convs in lists:
                    for m in range(len(self.resblock_dilation_sizes[j])):
                        name = f"resblocks.{i * count + j}.{convs}.{m}"
                        yield from conv_tensors(name, (channels, channels, kernel), channels)
        last = self.channels(len(self.upsample_rates) - 1)
        yield from conv_tensors("conv_post", (1, last, self.post_kernel_size), int(self.post_bias))
        if self.gin_channels:
            yield from conv_tensors("cond", (self.channels(-1), self.gin_channels, 1), self.channels(-1))
        for i in range(len(self.upsample_rates) if self.conds else 0):
            yield from conv_tensors(f"conds.{i}", (self.channels(i), self.gin_channels, 1), self.channels(i))
        if self.num_speakers:
            yield "emb_g.weight", (self.num_speakers, self.gin_channels)


def _validate(c: HifiGanConfig) -> None:
    require_positive(c, "sample_rate", "num_mels", "upsample_initial_channel", "pre_kernel_size", "post_kernel_size")
    check_stages(c)
    require(c, c.pad_mode in ("zeros", "reflect"), "pad_mode", '"zeros" or "reflect"')
    require(c, c.pre_kernel_size % 2 == 1, "pre_kernel_size", "an odd number")
    require(c, c.post_kernel_size % 2 == 1, "post_kernel_size", "an odd number")
    stages = len(c.upsample_rates)
    for name in ("upsample_paddings", "upsample_output_paddings"):
        values = getattr(c, name)
        require(c, values is None or len(values) == stages, name, f"{stages} values, one per rate, or None")
    for i, (k, u) in enumerate(zip(c.upsample_kernel_sizes, c.upsample_rates, strict=True)):
        padding, extra = c.padding(i)
        fits = k >= u and 0 <= 2 * padding < k + u and 0 <= extra < u
        require(c, fits, "upsample_kernel_sizes", "kernel >= rate at every stage")
    require(c, c.mel is None or not c.latent, "mel", "None, since the input is a latent")
    require(c, c.mel is None or c.mel.n_mels == c.num_mels, "num_mels", f"the mel front end's {c.mel and c.mel.n_mels}")
    for name in ("gin_channels", "num_speakers"):
        require(c, getattr(c, name) == 0 or positive((getattr(c, name),)), name, "0 or a positive integer")
    require(c, not c.num_speakers or c.gin_channels > 0, "gin_channels", "a positive integer, since there are speakers")
    require(c, isinstance(c.conds, bool), "conds", "True or False")
    _validate_rounds(c)
    require(
        c, not c.conds or c.gin_channels > 0, "gin_channels", "a positive integer, since stages are told the speaker"
    )


def _validate_rounds(c: HifiGanConfig) -> None:
    require_rounds(c, "mel_rounds")
    if c.mel_rounds:
        mel = c.mel
        require(c, mel is not None, "mel", "a front end, since there are mel_rounds")
        assert mel is not None
        framed = mel.pad == "reflect_hop" and mel.win_length == mel.n_fft and (mel.n_fft - mel.hop_length) % 2 == 0
        framed = framed and mel.n_fft >= 2 * mel.hop_length
        fits = mel.hop_length == c.hop and c.samples(1) == c.hop
        shape = "padding reflect_hop, a window of n_fft, two hops at least, and an even n_fft - hop"
        require(c, framed, "mel", f"{shape}, since there are mel_rounds")
        require(
            c, fits, "mel", f"the model's hop, {c.hop}, and {c.hop} samples of every frame, since there are mel_rounds"
        )


HIFIGAN_V1 = HifiGanConfig(mel=HIFIGAN_22K)
HIFIGAN_V2 = replace(HIFIGAN_V1, upsample_initial_channel=128)
HIFIGAN_V3 = replace(
    HIFIGAN_V1,
    upsample_rates=(8, 8, 4),
    upsample_kernel_sizes=(16, 16, 8),
    upsample_initial_channel=256,
    resblock="2",
    resblock_kernel_sizes=(3, 5, 7),
    resblock_dilation_sizes=((1, 2), (2, 6), (3, 12)),
)


class HifiGan(Model):
    """The generator: log-mel in, or a latent, and waveform out.

    Parameters carry the upstream names with weight norm folded: `conv_pre`, `ups.{i}`, `resblocks.{n}.convs1.{m}` and
    `.convs2.{m}` (or `.convs.{m}` for residual block type 2), `conv_post`; buffers `mean` and `scale` [num_mels] when
    the configuration normalises its input. With `gin_channels` there is `cond`, whose value for a speaker's vector is
    added to each step that `conv_pre` makes, with `conds` also `conds.{i}`, for the steps that `ups.{i}` makes; with
    `num_speakers` the table `emb_g` of such vectors.

    When the model is cast to bfloat16 or float16, `conv_pre` and the first of `ups` stay in float32, on the CPU also
    the first stage's residual blocks if one has more than 7 taps: what is rounded there weighs most, as a log-mel of
    -10, off by up to 3 %, and a block of 11 taps hands on nearly all of it.
    """

    probe_inputs: Mapping[str, float] = MappingProxyType({})  # what `settle` gives beside the signal
    mean: Tensor
    scale: Tensor

    def __init__(self, config: HifiGanConfig) -> None:
        super().__init__()
        self.config = config
        act = leaky_relu(config.leaky_relu_slope)
        count, longest = len(config.resblock_kernel_sizes), max(config.resblock_kernel_sizes)
        self.conv_pre = WideConv1d(
            config.num_mels, config.channels(-1), config.pre_kernel_size, pad_mode=config.pad_mode
        )
        ups: list[Upsample] = []
        blocks: list[ResidualBlock] = []
        for i, (k, u) in enumerate(zip(config.upsample_kernel_sizes, config.upsample_rates, strict=True)):
            padding, extra = config.padding(i)
            kind = Upsample if i else WideUpsample
            ups.append(kind(config.channels(i - 1), config.channels(i), k, u, padding, extra, pre=act))
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                block = WideResidualBlock if i == 0 and longest > 7 else ResidualBlock
                blocks.append(block(config.channels(i), kernel, dilations, pairs=config.resblock == "1"))
        self.ups = nn.ModuleList(ups)
        self.resblocks = nn.ModuleList(blocks)
        self._stages = [
            (up, MrfStage(f"mrf.{i}", blocks[i * count : (i + 1) * count], act, config.pad_mode))
            for i, up in enumerate(ups)
        ]
        self.conv_post = Conv1d(
            config.channels(len(ups) - 1),
            1,
            config.post_kernel_size,
            bias=config.post_bias,
            pad_mode=config.pad_mode,
            pre=leaky_relu(config.final_leaky_relu_slope),
            post=TANH,
        )
        if config.mel is not None and config.mel_rounds:
            self.rounds = MelRounds(config.mel, config.mel_rounds, self.conv_post)
        if config.normalize_before:
            self.register_buffer("mean", torch.zeros(config.num_mels))
            self.register_buffer("scale", torch.ones(config.num_mels))
        if config.gin_channels:
            self.inputs = self.stream_options = ("speaker",)
            self.cond = WideConv1d(config.gin_channels, config.channels(-1), 1)
            widths = [config.channels(i) for i in range(-1, len(ups) if config.conds else 0)]
            firsts = itertools.accumulate(widths[:-1], initial=0) if config.conds else [None]
            self._shift, *self._shifts = (Shift(width, first) for width, first in zip(widths, firsts, strict=True))
        if config.conds:
            self.conds = nn.ModuleList([WideConv1d(config.gin_channels, width, 1) for width in widths[1:]])
        if config.num_speakers:
            self.emb_g = WideEmbedding(config.num_speakers, config.gin_channels)

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        speaker: Speaker = None,
    ) -> Tensor:
        """Log-mel or latent to waveform.

        Args:
            mel: [B, num_mels, T] log-mel of the checkpoint's own front end, or latent.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            backend: implementation to force for every op.
            speaker: for a model with `gin_channels`, and only there: a number in the checkpoint's own table, or a
                vector [gin_channels] as `cond` takes it; or [B] or [B, gin_channels] of them. None adds nothing.

        Returns:
            [B, 1, S] samples in (-1, 1), or [-1, 1] with `mel_rounds`; S = T * hop for the published configurations.

        Raises:
            ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        self._check(mel)
        items = self._items(speaker, mel.shape[0], backend).values()
        return self.run(self._network, mel, *items, lengths=lengths, backend=backend)

    def settle(self, meant: Callable[[], Model], backend: str | None = None) -> tuple[str, ...]:
        stages = [stage for _, stage in self._stages]
        if not any(stage.runs_on(backend) == "cpp" for stage in stages):
            return ()
        x = probe(self.config.mel, self.config.num_mels, _PROBE_FRAMES)
        steps = itertools.accumulate(self.config.upsample_rates, operator.mul)
        run = partial(self, x.to(self.conv_pre.weight.dtype), backend=backend, **self.probe_inputs)
        whole = meant()
        sound = whole(x, backend=backend, **self.probe_inputs)
        toom_cook.settle(stages, list(steps), run, sound, backend)
        kept = widen(self, self._parts_in_stages(self._network), whole, run, sound, backend)
        self._network.cut = {}  # pieces begin at tiles
        return kept

    def int8_stages(self) -> dict[str, Stage]:
        return self._parts_in_stages(self._network, _LEAST_INT8_CHANNELS)

    def _check(self, mel: Tensor) -> None:
        if mel.dim() != 3 or mel.shape[1] != self.config.num_mels or mel.numel() == 0:
            raise ShapeError(f"mel: expected [B > 0, {self.config.num_mels}, T > 0], got {list(mel.shape)}")
        check_like("mel", mel, self.conv_pre.weight, self.conv_post.weight)

    @property
    def _network(self) -> Network:
        return self.reading(per_frame=(1, 0) if self.config.gin_channels else (1,))

    def network(self, run: Trace, mel: Value, *further: Value) -> Value:
        """The steps from a log-mel or latent to the waveform; `further` is what `_items` gives."""
        x = self._begun(run, mel, *further)
        for i, (up, stage) in enumerate(self._stages):
            x = run(up, x)
            if self.config.conds:
                x = run(self._shifts[i], x, *further)
            x = run(stage, x)
        return self._ended(run, x, mel)

    def _ended(self, run: Trace, x: Value, mel: Value) -> Value:
        """What comes of what the last stage gives."""
        x = run(self.conv_post, x)
        return self.rounds.network(run, x, mel) if self.config.mel_rounds else x

    def _begun(self, run: Trace, mel: Value, shift: Value | None = None) -> Value:
        """What the first stage takes; `shift` is what `_items` gives of the speakers."""
        x = run.map(self._normalised, mel) if self.config.normalize_before else mel
        x = run(self.conv_pre, x)
        return x if shift is None else run(self._shift, x, shift)

    def _normalised(self, mel: Tensor) -> Tensor:
        return (mel - self.mean[:, None]) / self.scale[:, None]

    def written(self, chosen: Collection[str] = ()) -> Written:
        first, speaker = self._written_inputs()
        self._choose(chosen, *speaker)

        def network(run: Trace, mel: Value, *told: Value) -> Value:
            return self.network(run, mel, *self._told(run, *told))

        return Written({**first, **speaker}, network)

    def _written_inputs(self) -> tuple[dict[str, Given], dict[str, Given]]:
        """What a file takes of the signal, and of the speaker where there are speakers."""
        config = self.config
        first = {"latent" if config.latent else "mel": Given(("batch", config.num_mels, "frames"))}
        if not config.gin_channels:
            return first, {}
        told = Given(("batch",), whole=True) if config.num_speakers else Given(("batch", config.gin_channels))
        return first, {"speaker": told}

    def _told(self, run: Trace, *speaker: Value) -> list[Value]:
        """What `_items` gives, of a file's speaker."""
        found = [run.map(self._rows, value) if self.config.num_speakers else value for value in speaker]
        return [self._conditioning(run, run.map(lambda vectors: vectors[:, :, None], value)) for value in found]

    def _rows(self, numbers: Tensor) -> Tensor:
        return F.embedding(numbers, self.emb_g.weight)

    def _conditioning(self, run: Trace, vectors: Value) -> Value:
        """What is added of the speakers: to what `conv_pre` makes, and after one another to the stages."""
        if not self.config.conds:
            return run(self.cond, vectors)
        return run.join(stacked, *[run(told, vectors) for told in (self.cond, *self._told_stages())])

    def _told_stages(self) -> Iterator[WideConv1d]:
        for told in self.conds:
            assert isinstance(told, WideConv1d)
            yield told

    def _items(self, speaker: Speaker, batch: int | None, backend: str | None) -> dict[str, Tensor]:
        """What the network takes of the speakers, by the input's name: [B, C, 1], 0 without a speaker."""
        if not self.config.gin_channels:
            if speaker is not None:
                raise ArgumentError("speaker: this model knows no speakers, expected None")
            return {}
        if speaker is None:
            last = self._shifts[-1] if self.config.conds else self._shift
            return {"speaker": self.cond.weight.new_zeros((batch or 1, last.end, 1))}
        vectors = self.speaker_vectors(speaker, batch)
        return {"speaker": self.reading("_conditioning")(vectors[:, :, None], backend=backend)}

    def speaker_vectors(self, speaker: Speaker, batch: int | None = None) -> Tensor:
        """The vectors [B, gin_channels] of speakers, for `batch` items; for as many as are given when None.

        `speaker` and errors as in a call.
        """
        weight, table = self.cond.weight, self.emb_g.weight if self.config.num_speakers else None
        found = speaker_vectors(speaker, self.config.gin_channels, table, weight)
        if batch is None or len(found) == batch:
            return found
        if len(found) != 1:
            raise ShapeError(f"speaker: expected one or {batch}, one per item, got {len(found)}")
        return found.expand(batch, -1).contiguous()

    def layers(self) -> dict[str, Prepared]:
        cond = self.reading("_conditioning").layers if self.config.gin_channels else {}
        return {**cond, **self._network.layers}

    @torch.no_grad()
    def stream(self, backend: str | None = None, *, speaker: Speaker = None, exact: bool = True) -> NetworkStream:
        """The generator's state for a mel or latent that arrives in chunks.

        `speaker` as in a call, `exact` as in `Vocoder.stream`.
        """
        with use_exact(exact):
            items = self._items(speaker, None, backend)
        return NetworkStream(self._network, backend, exact=exact, items=items)
