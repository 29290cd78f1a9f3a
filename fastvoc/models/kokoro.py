"""Kokoro's decoder: blocks with adaptive instance norms, then an iSTFTNet with a harmonic source.

Li et al. 2023 (StyleTTS 2, arXiv 2306.07691) and Kaneko et al. 2022 (iSTFTNet, arXiv 2203.02395), as
github.com/hexgrad/kokoro has them. The norms run over a whole utterance, which therefore cannot be cut.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ExportError, ShapeError
from fastvoc.models.checks import check_floats, check_like, filled
from fastvoc.models.hift_parts import ReflectOne
from fastvoc.models.kokoro_config import KokoroConfig
from fastvoc.models.sources import make_source, one_row
from fastvoc.nn.adain import AdaIn, Styles
from fastvoc.nn.conv import Conv1d, WideConv1d
from fastvoc.nn.layer import Plain, Steps
from fastvoc.nn.model import Given, Model, Written
from fastvoc.nn.network import Trace, Value, mean, stacked
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.source import NsfSource
from fastvoc.nn.spectral import IstftHead, Stft
from fastvoc.nn.square_conv import SquareConv
from fastvoc.nn.upsample import Upsample
from fastvoc.ops.activation import leaky_relu

Style = Tensor | np.ndarray[Any, Any] | Sequence[float]

_HALF_POWER = math.sqrt(0.5)
_BLOCKS = 4  # of the decoder, the last of which doubles the rate
_SOURCE_KERNEL, _LAST_SOURCE_KERNEL, _SOURCE_DILATIONS = 7, 11, (1, 3, 5)


class Doubled(Plain):
    """x [B, C, T] with each step twice, [B, C, 2 * T]."""

    def __init__(self, channels: int) -> None:
        self._channels = channels

    def width(self) -> int:
        return self._channels

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * 2

    def compute(self, x: Tensor, *more: object) -> Tensor:
        return x.transpose(1, 2).repeat_interleave(2, 1).transpose(1, 2)


class Pool(Plain, nn.Module):
    """Each channel of x [B, C, T] at twice the rate, by a transposed convolution of its own.

    weight [C, 1, 3], bias [C]; stride 2, padding 1 and output padding 1; x is 0 beyond the valid steps of an item.
    """

    def __init__(self, channels: int) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.empty(channels, 1, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(3**-0.5), 3**-0.5)

    def width(self) -> int:
        return len(self.bias)

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * 2

    def compute(self, x: Tensor, *more: object) -> Tensor:
        rows = x.transpose(1, 2)  # in its own memory layout
        after = nn.functional.pad(rows[:, 1:], (0, 0, 0, 1))
        before, here, behind = self.weight[:, 0].to(x.dtype).unbind(1)
        bias = self.bias.to(x.dtype)
        pair = torch.stack([rows * here + bias, rows * behind + after * before + bias], 2)
        return pair.flatten(1, 2).transpose(1, 2)


class _OneMore(Plain):
    """x as it is, of which an item has one more valid step than was said."""

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths + 1

    def compute(self, x: Tensor, *more: object) -> Tensor:
        return x


class DecoderBlock(nn.Module):
    """Two convolutions, each behind a norm, and a shortcut; `double`: at twice the rate of its input."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, double: bool = False) -> None:
        super().__init__()
        act = leaky_relu(0.2)
        self.conv1, self.conv2 = Conv1d(inputs, outputs, 3), Conv1d(outputs, outputs, 3)
        self.norm1, self.norm2 = AdaIn(inputs, style_dim, act), AdaIn(outputs, style_dim, act)
        self.conv1x1 = None if inputs == outputs else Conv1d(inputs, outputs, 1, bias=False)
        self.pool = Pool(inputs) if double else None
        self._doubled = Doubled(outputs)

    def network(self, run: Trace, x: Value, styles: Value) -> Value:
        """The steps from x to the output."""
        y = run(self.norm1, x, styles)
        if self.pool is not None:
            y = run(self.pool, y)
        y = run(self.conv2, run(self.norm2, run(self.conv1, y), styles))
        # Doubling comes last, since it and a convolution of kernel 1 may change places.
        x = x if self.conv1x1 is None else run(self.conv1x1, x)
        x = x if self.pool is None else run(self._doubled, x)
        return run.join(_together, y, x)


def _together(x: Tensor, y: Tensor) -> Tensor:
    return (x + y) * _HALF_POWER


class StyledBlock(nn.Module):
    """A residual block whose convolutions come behind norms with Snakes."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], style_dim: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList([SquareConv(channels, kernel, dilation) for dilation in dilations])
        self.convs2 = nn.ModuleList([SquareConv(channels, kernel) for _ in dilations])
        self.adain1 = nn.ModuleList([AdaIn(channels, style_dim) for _ in dilations])
        self.adain2 = nn.ModuleList([AdaIn(channels, style_dim) for _ in dilations])

    def network(self, run: Trace, x: Value, styles: Value) -> Value:
        """The steps from x to the output."""
        for parts in zip(self.adain1, self.convs1, self.adain2, self.convs2, strict=True):
            norm1, conv1, norm2, conv2 = parts
            assert isinstance(norm1, AdaIn)
            assert isinstance(norm2, AdaIn)
            assert isinstance(conv1, SquareConv)
            assert isinstance(conv2, SquareConv)
            y = run(conv1, run(norm1, x, styles))
            x = run(conv2, run(norm2, y, styles), x)
        return x


class Kokoro(Model):
    """The decoder: aligned text features, F0, energy and a style in, waveform out.

    Parameters carry the published names without `generator.`, weight norm folded: `encode`, `decode.{i}`, `F0_conv`,
    `N_conv`, `asr_res.0`, `m_source`, `ups.{i}`, `noise_convs.{i}`, `noise_res.{i}`, `resblocks.{n}`, `conv_post`; a
    Snake's `alpha1.{m}` is `adain1.{m}.snake.alpha`. In bfloat16 and float16 what reads F0, energy and style, and the
    source, stay in float32.
    """

    inputs = ("f0", "n", "style", "har", "source", "seed", "noise")
    stream_options = ()

    def __init__(self, config: KokoroConfig) -> None:
        super().__init__()
        self.config = config
        wide, style = config.channels, config.style_dim
        self.encode = DecoderBlock(config.num_mels + 2, wide, style)
        inside = wide + 2 + config.asr_channels
        widths = (*(wide,) * (_BLOCKS - 1), config.upsample_initial_channel)
        blocks = [DecoderBlock(inside, w, style, double=i + 1 == _BLOCKS) for i, w in enumerate(widths)]
        self.decode = nn.ModuleList(blocks)
        self.F0_conv = WideConv1d(1, 1, 3, stride=2)
        self.N_conv = WideConv1d(1, 1, 3, stride=2)
        self.asr_res = nn.ModuleList([Conv1d(config.num_mels, config.asr_channels, 1)])
        stages, count = range(len(config.upsample_rates)), len(config.resblock_kernel_sizes)
        self.m_source = NsfSource(config.harmonics, config.sample_rate, config.hop // 2, kind="frame_linear")
        act = leaky_relu(0.1)
        ups, noise_convs, noise_res, resblocks = [], [], [], []
        for i, (k, u) in enumerate(zip(config.upsample_kernel_sizes, config.upsample_rates, strict=True)):
            channels = config.stage_channels(i)
            ups.append(Upsample(config.stage_channels(i - 1), channels, k, u, (k - u) // 2, pre=act))
            noise_convs.append(_source_conv(config, i))
            kernel = _LAST_SOURCE_KERNEL if i == stages[-1] else _SOURCE_KERNEL
            noise_res.append(StyledBlock(channels, kernel, _SOURCE_DILATIONS, style))
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                resblocks.append(StyledBlock(channels, kernel, dilations, style))
        self.ups, self.noise_convs = nn.ModuleList(ups), nn.ModuleList(noise_convs)
        self.noise_res, self.resblocks = nn.ModuleList(noise_res), nn.ModuleList(resblocks)
        self.conv_post = Conv1d(config.stage_channels(stages[-1]), config.n_fft + 2, 7, pre=leaky_relu(0.01))
        self.stft = Stft(config.n_fft, config.istft_hop, self.conv_post, features="polar")
        self.istft = IstftHead(config.n_fft, config.istft_hop, self.conv_post, phase="sin")
        self._styles = Styles([module for module in self.modules() if isinstance(module, AdaIn)])
        self._blocks = blocks
        self._stages = [(ups[i], noise_convs[i], noise_res[i], resblocks[i * count : (i + 1) * count]) for i in stages]
        self.warmup_inputs = {"f0": 0.0, "n": 0.0, "style": (0.0,) * style}

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        f0: Tensor | float | None = None,
        n: Tensor | float | None = None,
        style: Style | None = None,
        har: Tensor | None = None,
        source: Tensor | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Aligned text features to waveform.

        Args:
            mel: [B, num_mels, T] text features, one for each frame of two steps of F0.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            backend: implementation to force for every op.
            f0: [B, 2 * T] in Hz, or a number for all steps; at most 10 is unvoiced.
            n: [B, 2 * T] energy, or a number for all steps.
            style: [B, style_dim], or [style_dim] for all items.
            har: [B, n_fft + 2, T * hop / istft_hop + 1] magnitudes and then angles that take the place of those of the
                source.
            source: [B, 1, T * hop] that takes the place of the one generated from F0.
            seed, noise: of the source, as `make_source` has them.

        Returns:
            [B, 1, T * hop] samples.

        Raises:
            ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        config = self.config
        if not isinstance(mel, Tensor) or mel.dim() != 3 or mel.shape[1] != config.num_mels or 0 in mel.shape:
            got = list(mel.shape) if isinstance(mel, Tensor) else type(mel).__name__
            raise ShapeError(f"mel: expected [B > 0, {config.num_mels}, T > 0], got {got}")
        check_like("mel", mel, self.encode.conv1.weight)
        batch, _, frames = mel.shape
        pitch = filled("f0", f0, (batch, 2 * frames), self.F0_conv.weight)
        energy = filled("n", n, (batch, 2 * frames), self.N_conv.weight)
        for name, value, form in (("f0", pitch, "[B, 2 * T] in Hz"), ("n", energy, "[B, 2 * T]")):
            if value is None:
                raise ArgumentError(f"{name}: expected {form}, or a number for all steps")
        assert pitch is not None
        assert energy is not None
        styles = self._styles_of(style, batch, backend)
        shapes = {"har": (batch, *self._har_shape(frames)), "source": (batch, 1, frames * config.hop)}
        for name, given in (("har", har), ("source", source)):
            if given is not None:
                check_floats(name, given, shapes[name], mel.device)
        if har is not None:
            network = self.reading("network_given_har", (1, 2, 2, config.hop // config.istft_hop, 0))
            given = har
        else:
            network = self.reading(per_frame=(1, 2, 2, config.hop, 0))
            given = source
            if given is None:
                steps = None if lengths is None else 2 * lengths
                given = self.make_source(pitch, steps, seed=seed, noise=noise, backend=backend)
        return self.run(network, mel, pitch[:, None], energy[:, None], given, styles, lengths=lengths, backend=backend)

    def make_source(
        self,
        f0: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Sequence[int] | Tensor | None = None,
        noise: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """The source signal [B, 1, S * hop / 2] of an F0 [B, S] in Hz, of two steps a frame.

        Args:
            f0: as in `forward`.
            lengths: [B] int64 on the CPU, valid steps of each item.
            seed: of the noise, an integer or [B] integers; 0 when None.
            noise: [B, harmonics + 1, S * hop / 2] that takes the place of the drawn noise, to be scaled as that is.
            backend: implementation to force.

        Raises:
            As `forward`.
        """
        return make_source(self, f0, lengths, seed=seed, noise=noise, backend=backend)

    def _styles_of(self, style: Style | None, batch: int, backend: str | None) -> Tensor:
        """What all norms take of the items' styles, [B, rows, 1]."""
        size, like = self.config.style_dim, self.encode.norm1.fc.weight
        if style is None:
            raise ArgumentError(f"style: expected [B, {size}], or [{size}] for all items")
        try:
            value = style if isinstance(style, Tensor) else torch.as_tensor(style, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise DtypeError(f"style: expected floating-point values ({error})") from None
        if not value.is_floating_point():
            raise DtypeError(f"style: expected floating-point values, got {value.dtype}")
        if value is style and value.device != like.device:
            raise DeviceError(f"style: expected a tensor on {like.device} like the model, got {value.device}")
        rows = value[None] if value.dim() == 1 else value
        if rows.dim() != 2 or rows.shape[1] != size or len(rows) not in (1, batch):
            raise ShapeError(f"style: expected {[batch, size]}, or [{size}] for all items, got {list(value.shape)}")
        rows = rows.to(like.device, like.dtype).expand(batch, -1).contiguous()
        if rows.is_cpu and not bool(rows.isfinite().all()):
            raise ArgumentError("style: holds NaN or infinity")
        return self.reading("_styled")(rows[:, :, None], backend=backend)

    def _har_shape(self, frames: int) -> tuple[int, int]:
        return self.config.n_fft + 2, frames * self.config.hop // self.config.istft_hop + 1

    def input_shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that `forward` takes besides features of so many frames, without the batch axis."""
        samples, rows = frames * self.config.hop, self.config.harmonics + 1
        shapes: dict[str, tuple[int, ...]] = {"f0": (2 * frames,), "n": (2 * frames,), "har": self._har_shape(frames)}
        return {**shapes, "source": (1, samples), "noise": (rows, samples), "style": (self.config.style_dim,)}

    def network(self, run: Trace, asr: Value, f0: Value, n: Value, source: Value, styles: Value) -> Value:
        """The steps from text features, F0, energy, a source and the styles of all norms to the waveform."""
        return run(self.istft, self.spectrum(run, asr, f0, n, run(self.stft, source), styles))

    def network_given_har(self, run: Trace, asr: Value, f0: Value, n: Value, har: Value, styles: Value) -> Value:
        """The same from magnitudes and angles of the source."""
        return run(self.istft, self.spectrum(run, asr, f0, n, run(_OneMore(), har), styles))

    def spectrum(self, run: Trace, asr: Value, f0: Value, n: Value, har: Value, styles: Value) -> Value:
        """The steps to log-magnitudes and the angles whose sines are the phases."""
        aside = [run(self.F0_conv, f0), run(self.N_conv, n)]
        x = self.encode.network(run, run.join(stacked, asr, *aside), styles)
        (asr_res,) = self.asr_res
        assert isinstance(asr_res, Conv1d)
        aside = [run(asr_res, asr), *aside]
        for block in self._blocks:
            x = block.network(run, run.join(stacked, x, *aside), styles)
        for i, (up, noise_conv, source_block, blocks) in enumerate(self._stages):
            sound = source_block.network(run, run(noise_conv, har), styles)
            x = run(up, x)
            if i + 1 == len(self._stages):
                x = run(ReflectOne(), x)
            x = run.add(x, sound)
            x = run.join(mean, *[block.network(run, x, styles) for block in blocks])
        return run(self.conv_post, x)

    def _source(self, run: Trace, f0: Value, phase: Value, seed: Value, noise: Value) -> Value:
        return run(self.m_source, f0, None, phase, seed, noise)

    def _styled(self, run: Trace, style: Value) -> Value:
        return run(self._styles, style)

    def written(self, chosen: Collection[str] = ()) -> Written:
        """Without choice from text features, F0, energy and a style; besides the source, its noise or its spectrum."""
        config = self.config
        axes: dict[str, tuple[int | str, ...]] = {
            "asr": ("batch", config.num_mels, "frames"),
            "f0": ("batch", "steps"),
            "n": ("batch", "steps"),
            "style": ("batch", config.style_dim),
        }
        more: dict[str, tuple[int | str, ...]] = {
            "har": ("batch", config.n_fft + 2, "spectra"),
            "noise": ("batch", config.harmonics + 1, "samples"),
            "source": ("batch", 1, "samples"),
        }
        self._choose(chosen, *more)
        if len(set(chosen)) > 1:
            raise ExportError("inputs: har, source and noise come in place of each other, expected one of them")
        axes |= {name: more[name] for name in chosen}

        def network(run: Trace, asr: Value, f0: Value, n: Value, style: Value, *given: Value) -> Value:
            pitch, energy = run.map(one_row, f0), run.map(one_row, n)
            styles = self._styled(run, run.map(_one_step, style))
            (further,) = given or (None,)
            if "har" in chosen and further is not None:
                return self.network_given_har(run, asr, pitch, energy, further, styles)
            noise = further if "noise" in chosen else None
            source = further if "source" in chosen else run(self.m_source, pitch, None, None, None, noise)
            assert source is not None
            return self.network(run, asr, pitch, energy, source, styles)

        return Written({name: Given(axis) for name, axis in axes.items()}, network)

    def layers(self) -> dict[str, Prepared]:
        network = self.reading(per_frame=(1, 2, 2, self.config.hop, 0))
        return {**self.reading("_styled").layers, **self.reading("_source", (1, 0, 0, 0)).layers, **network.layers}

    def stream(self, backend: str | None = None, *, exact: bool = True) -> NoReturn:
        """There is none: raises ArgumentError."""
        raise ArgumentError(
            "stream: Kokoro's norms take their mean and variance over a whole utterance, so that no sample of it is"
            " known before its end; decode sentence by sentence instead"
        )


def _one_step(style: Tensor) -> Tensor:
    return style[:, :, None]


def _source_conv(config: KokoroConfig, stage: int) -> Conv1d:
    stride, inputs, outputs = config.source_stride(stage), config.n_fft + 2, config.stage_channels(stage)
    if stride == 1:
        return Conv1d(inputs, outputs, 1)
    half = (stride + 1) // 2
    return Conv1d(inputs, outputs, 2 * stride, stride=stride, padding=(half, half))
