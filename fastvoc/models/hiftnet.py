"""HiFTNet (Li et al. 2023, arXiv 2309.09493; github.com/yl4579/HiFTNet) and the HiFT generators after it.

CosyVoice 1, 2 and 3 (github.com/FunAudioLLM/CosyVoice) and Chatterbox (github.com/resemble-ai/chatterbox) differ from
the original by values of the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.lengths import on_device
from fastvoc.models.checks import item_seeds
from fastvoc.models.f0 import CAUSAL_LOOKAHEAD, ConvF0
from fastvoc.models.hift_config import HiftConfig
from fastvoc.models.hiftnet_stream import HiftStream
from fastvoc.models.jdc import Jdc
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.mrf import MrfStage, ResidualBlock
from fastvoc.nn.pieces import Pieces, cuttable
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.snake import Snake
from fastvoc.nn.source import NsfSource
from fastvoc.nn.spectral import IstftHead, Stft
from fastvoc.nn.upsample import NearestUpsample, Upsample
from fastvoc.ops.activation import leaky_relu

_KERNEL = 7  # of the first convolution and the last
_F0_DTYPES = {"float32": None, "float64": torch.float64}


class HiftNet(nn.Module):
    """The generator: log-mel in, waveform out, by way of F0 and a source signal.

    Parameters carry CosyVoice's names with weight norm folded: `conv_pre`, `ups.{i}`, `source_downs.{i}`,
    `source_resblocks.{i}` and `resblocks.{n}` with `convs1`, `convs2`, `activations1` and `activations2`, `conv_post`,
    `m_source`, `f0_predictor`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("f0", "source", "seed", "phase", "noise")
    STREAM_OPTIONS: ClassVar[tuple[str, ...]] = ("seed", "f0")

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        stages, count = range(len(config.upsample_rates)), len(config.resblock_kernel_sizes)
        past = (_KERNEL - 1, 0) if config.causal else None
        pre = (1 + config.lookahead, (0, config.lookahead)) if config.causal else (_KERNEL, None)
        last, spectrum = config.channels(stages[-1]), config.n_fft + 2
        # First, since a model's first parameter tells the dtype of the network, and the source's may be a wider one.
        self.conv_pre = Conv1d(config.num_mels, config.base_channels, pre[0], padding=pre[1])
        self.m_source = NsfSource(
            config.harmonics,
            config.sample_rate,
            config.hop,
            kind=config.source,
            amp=config.source_amp,
            noise_std=config.noise_std,
            threshold=config.voiced_threshold,
            noise=config.source_noise,
        )
        self.f0_predictor = _f0_predictor(config)
        ups = [_upsample(config, i) for i in stages]
        downs = [_source_conv(config, i) for i in stages]
        source_blocks = [
            _block(config, i, config.source_resblock_kernel_sizes[i], config.source_resblock_dilation_sizes[i])
            for i in stages
        ]
        blocks = [
            _block(config, i, kernel, dilations)
            for i in stages
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        ]
        self.ups, self.source_downs = nn.ModuleList(ups), nn.ModuleList(downs)
        self.source_resblocks, self.resblocks = nn.ModuleList(source_blocks), nn.ModuleList(blocks)
        final = leaky_relu(config.final_leaky_relu_slope)
        self.conv_post = Conv1d(last, spectrum, _KERNEL, padding=past, pre=final)
        self.stft = Stft(config.n_fft, config.istft_hop, self.conv_post, features=config.features)
        self.istft = IstftHead(
            config.n_fft,
            config.istft_hop,
            self.conv_post,
            clip=config.magnitude_clip,
            phase="sin",
            clamp=config.clamp,
        )
        pad_mode = "causal" if config.causal else "zeros"
        self._parts = [
            (
                ups[i],
                downs[i],
                MrfStage([source_blocks[i]], pad_mode=pad_mode),
                MrfStage(blocks[i * count : (i + 1) * count], pad_mode=pad_mode),
            )
            for i in stages
        ]

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        *,
        f0: Tensor | None = None,
        source: Tensor | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
        phase: Tensor | None = None,
        noise: Tensor | None = None,
        final: bool = True,
        backend: str | None = None,
    ) -> Tensor:
        """Log-mel to waveform.

        Args:
            mel: [B, num_mels, T] log-mel of the checkpoint's own front end.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            f0: [B, T] Hz that take the place of the predicted ones; at most `config.voiced_threshold` is unvoiced.
            source: [B, 1, T * hop] that takes the place of the generated one.
            seed, phase, noise: of the source, as `make_source` has them.
            final: False makes the part that more frames would not change, for a causal configuration: the first
                T - `held_frames` frames of the whole; then f0 and source are `f0_held_frames` shorter.
            backend: implementation to force for every op.

        Returns:
            [B, 1, S] samples, S = T * hop.

        Raises:
            ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        self._check_mel(mel, lengths, final)
        if f0 is not None:
            self._check_input("f0", f0, (mel.shape[0], mel.shape[2] - (0 if final else self.f0_held_frames)))
        elif source is None:
            f0 = self.predict_f0(mel, lengths, final=final, backend=backend)
        if not final:
            mel, lengths = _shortened(mel, lengths, self.f0_held_frames), _less(lengths, self.f0_held_frames)
        if source is None:
            assert f0 is not None
            source = self.make_source(f0, lengths, seed=seed, phase=phase, noise=noise, backend=backend)
        return self.decode(mel, source, lengths, final=final, backend=backend)

    def input_shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that `forward` takes besides a mel of so many frames, without the batch axis."""
        rows, samples = self.config.harmonics + 1, frames * self.config.hop
        return {"f0": (frames,), "source": (1, samples), "phase": (rows,), "noise": (rows, samples)}

    @property
    def f0_held_frames(self) -> int:
        """Frames of F0 that `final=False` holds back: the predictor's look-ahead."""
        return CAUSAL_LOOKAHEAD if self.config.f0_network == "causal_conv" else 0

    @property
    def held_frames(self) -> int:
        """Frames of the waveform that `final=False` holds back: all look-ahead, and one for the overlap at the end."""
        return self.f0_held_frames + self.config.lookahead + 1

    def predict_f0(
        self, mel: Tensor, lengths: Tensor | None = None, *, final: bool = True, backend: str | None = None
    ) -> Tensor:
        """F0 [B, T] in Hz of a log-mel [B, num_mels, T], 0 beyond the lengths; `final` as in `forward`."""
        self._check_mel(mel, lengths, final)
        f0: Tensor = self.f0_predictor(mel, lengths=lengths, backend=backend)
        return f0 if final else _shortened(f0, lengths, self.f0_held_frames)

    def make_source(
        self,
        f0: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Sequence[int] | Tensor | None = None,
        phase: Tensor | None = None,
        noise: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """The source signal [B, 1, T * hop] of an F0 [B, T] in Hz.

        Args:
            f0: as `predict_f0` gives it.
            lengths: [B] int64 on the CPU, valid frames of each item.
            seed: of the noise and of the start phases, an integer or [B] integers; 0 when None.
            phase: [B, harmonics + 1] start phases in radians; drawn from the seed, 0 for the fundamental, when None.
            noise: [B, harmonics + 1, T * hop] that takes the place of the drawn noise, to be scaled as that is.
            backend: implementation to force.

        Raises:
            As `forward`.
        """
        self._check_input("f0", f0, None)
        batch, frames = f0.shape
        harmonics = self.config.harmonics + 1
        for name, value, shape in (
            ("phase", phase, (batch, harmonics)),
            ("noise", noise, (batch, harmonics, frames * self.config.hop)),
        ):
            if value is not None:
                self._check_input(name, value, shape)
        dtype = self.m_source.weight.dtype
        phase, noise = (None if t is None else t.to(dtype) for t in (phase, noise))
        seeds = None if seed is None else item_seeds(seed, len(f0), f0.device)
        x = f0[:, None].to(dtype)
        source: Tensor = self.m_source(x, seeds, phase, noise, lengths=lengths, backend=backend)
        return source

    def decode(
        self,
        mel: Tensor,
        source: Tensor,
        lengths: Tensor | None = None,
        *,
        final: bool = True,
        backend: str | None = None,
    ) -> Tensor:
        """The waveform [B, 1, T * hop] of a log-mel [B, num_mels, T] and a source [B, 1, T * hop].

        With `final=False` the waveform of the first T - `lookahead` - 1 frames; see `forward`.
        """
        config = self.config
        self._check_mel(mel, lengths, final, config.lookahead + 1)
        self._check_input("source", source, (mel.shape[0], 1, mel.shape[2] * config.hop))
        if not final or self._pieces.fit(mel.shape[0], mel.shape[2]) or not cuttable(mel, backend):
            return self._decode(mel, source, lengths, final, backend)

        def run(rows: slice | Tensor, low: int, high: int, valid: Tensor | None) -> Tensor:
            part = source[rows, :, low * config.hop : high * config.hop]
            return self._decode(mel[rows, :, low:high], part, valid, True, backend)

        return self._pieces.run(mel.shape[0], mel.shape[2], lengths, config.samples, run)

    @cached_property
    def _pieces(self) -> Pieces:
        config = self.config
        rates = [prod(config.upsample_rates[: i + 1]) for i in range(len(self._parts))]
        widest = max(config.channels(i) * rate for i, rate in enumerate(rates))
        stages = [(stage, rate) for part, rate in zip(self._parts, rates, strict=True) for stage in part[2:]]
        return Pieces.of(self.stream("torch", f0=True).reads, stages, config.hop, widest)

    def _decode(self, mel: Tensor, source: Tensor, lengths: Tensor | None, final: bool, backend: str | None) -> Tensor:
        config, x_lengths = self.config, lengths
        s_lengths = None if x_lengths is None else x_lengths * config.hop
        spectrum = self.stft(source, s_lengths, backend=backend).to(mel.dtype)
        s_lengths = self.stft.output_lengths(s_lengths)
        x = self.conv_pre(mel, x_lengths, backend=backend)
        if not final:
            ahead = config.lookahead
            x, x_lengths = _shortened(x, x_lengths, ahead), _less(x_lengths, ahead)
            ahead *= config.hop // config.istft_hop
            spectrum, s_lengths = _shortened(spectrum, s_lengths, ahead), _less(s_lengths, ahead)
        for i, (up, down, source_stage, stage) in enumerate(self._parts):
            x = up(x, x_lengths, backend=backend)
            x_lengths = None if x_lengths is None else x_lengths * config.upsample_rates[i]
            if i + 1 == len(self._parts):
                x = _reflect_one(x)
                x_lengths = _less(x_lengths, -1)
            s = down(spectrum, s_lengths, backend=backend)
            x = x + source_stage(s, x_lengths, backend=backend)
            x = stage(x, x_lengths, backend=backend)
        x = self.conv_post(x, x_lengths, backend=backend)
        wav: Tensor = self.istft(x, x_lengths, backend=backend)
        return wav if final else _shortened(wav, self.istft.output_lengths(x_lengths), config.hop)

    def stages(self) -> list[tuple[Upsample | NearestUpsample, Conv1d, MrfStage, MrfStage]]:
        """Upsampling, source convolution, source block and residual blocks of every stage."""
        return self._parts

    def stream(
        self, backend: str | None = None, *, seed: int | None = None, f0: bool = False, exact: bool = True
    ) -> HiftStream:
        """The model's state for a log-mel that arrives in chunks.

        seed: of the noise and the start phases, 0 when None. f0: True when F0 [B, n] in Hz comes with every chunk.
        exact: as in `Vocoder.stream`.
        Raises ArgumentError when F0 neither comes nor can be predicted frame by frame.
        """
        if not f0 and isinstance(self.f0_predictor, Jdc):
            raise ArgumentError("f0: expected True, since this model's pitch network reads all frames at once")
        seeds = None if seed is None else item_seeds(seed, 1, self.conv_pre.weight.device)
        return HiftStream(self, backend, seeds, f0, exact=exact)

    def stream_inputs(self, x: Tensor, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """What comes with a chunk [B, num_mels, n]: F0 as [n] or [B, n]."""
        if unknown := sorted(set(inputs) - {"f0"}):
            raise ArgumentError(f"{unknown[0]}: no such input of a stream; it takes f0")
        f0 = torch.as_tensor(inputs["f0"])
        f0 = f0[None] if f0.dim() == 1 else f0
        if not f0.is_floating_point():
            raise DtypeError(f"f0: expected floating-point values in Hz, got {f0.dtype}")
        if f0.shape != (x.shape[0], x.shape[2]):
            raise ShapeError(f"f0: expected {[x.shape[0], x.shape[2]]}, one value per frame, got {list(f0.shape)}")
        return {"f0": f0.to(x.device)}

    def layers(self) -> dict[str, Prepared]:
        """The layers by name, in order of use."""
        named = {f"f0_predictor.{name}": layer for name, layer in self.f0_predictor.layers().items()}
        named |= {"m_source": self.m_source.prepared, "stft": self.stft.prepared, "conv_pre": self.conv_pre.prepared}
        for i, (up, down, source_stage, stage) in enumerate(self._parts):
            named |= {f"ups.{i}": up.prepared, f"source_downs.{i}": down.prepared}
            named |= {f"source_mrf.{i}": source_stage.prepared, f"mrf.{i}": stage.prepared}
        return {**named, "conv_post": self.conv_post.prepared, "istft": self.istft.prepared}

    def prepare(self, backend: str | None = None) -> None:
        """Chooses every layer's implementation and packs its weights, so that the first call is as fast as the rest."""
        for layer in self.layers().values():
            weight = layer.weight()
            layer.prepare(weight.device, weight.dtype, backend)

    def _check_mel(self, mel: Tensor, lengths: Tensor | None, final: bool, held: int | None = None) -> None:
        bands = self.config.num_mels
        if not isinstance(mel, Tensor) or mel.dim() != 3 or mel.shape[1] != bands or 0 in mel.shape:
            got = list(mel.shape) if isinstance(mel, Tensor) else type(mel).__name__
            raise ShapeError(f"mel: expected [B > 0, {bands}, T > 0], got {got}")
        if final:
            return
        if not self.config.causal:
            raise ArgumentError("final: False needs a causal configuration, whose past does not change")
        held = self.held_frames if held is None else held
        fewest = mel.shape[2] if lengths is None else int(lengths.min())
        if fewest <= held:
            raise ShapeError(f"mel: expected more than {held} frames for final=False, got {fewest}")

    def _check_input(self, name: str, value: Tensor, shape: tuple[int, ...] | None) -> None:
        """A floating-point tensor of this shape; [B, T] when None."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise DtypeError(f"{name}: expected a floating-point tensor, got {got}")
        device = self.conv_pre.weight.device
        if value.device != device:
            raise DeviceError(f"{name}: expected a tensor on {device} like the model, got {value.device}")
        if (value.dim() != 2 or 0 in value.shape) if shape is None else value.shape != shape:
            expected = "[B > 0, T > 0]" if shape is None else list(shape)
            raise ShapeError(f"{name}: expected {expected}, got {list(value.shape)}")


def _f0_predictor(config: HiftConfig) -> ConvF0 | Jdc:
    if config.f0_network == "jdc":
        return Jdc()
    causal = config.f0_network == "causal_conv"
    return ConvF0(config.num_mels, config.f0_channels, causal=causal, dtype=_F0_DTYPES[config.f0_dtype])


def _upsample(config: HiftConfig, stage: int) -> Upsample | NearestUpsample:
    k, u = config.upsample_kernel_sizes[stage], config.upsample_rates[stage]
    act = leaky_relu(config.leaky_relu_slope)
    if config.causal:
        return NearestUpsample(config.channels(stage - 1), config.channels(stage), k, u, pre=act)
    return Upsample(config.channels(stage - 1), config.channels(stage), k, u, (k - u) // 2, pre=act)


def _source_conv(config: HiftConfig, stage: int) -> Conv1d:
    stride = config.source_stride(stage)
    inputs, outputs = config.n_fft + 2, config.channels(stage)
    if stride == 1:
        return Conv1d(inputs, outputs, 1)
    half = stride // 2 if config.source_padding == "floor" else (stride + 1) // 2
    padding = (stride - 1, 0) if config.causal else (half, half)
    return Conv1d(inputs, outputs, 2 * stride, stride=stride, padding=padding)


def _block(config: HiftConfig, stage: int, kernel: int, dilations: tuple[int, ...]) -> ResidualBlock:
    channels = config.channels(stage)
    return ResidualBlock(channels, kernel, dilations, pairs=True, snake=lambda: Snake(channels, eps=config.snake_eps))


def _less(lengths: Tensor | None, count: int) -> Tensor | None:
    return None if lengths is None else lengths - count


def _shortened(x: Tensor, lengths: Tensor | None, count: int) -> Tensor:
    """x [..., T] without the last `count` steps of each item; what then lies beyond the lengths is 0."""
    if count == 0:
        return x
    x = x[..., : x.shape[-1] - count]
    if lengths is None:
        return x
    beyond = torch.arange(x.shape[-1], device=x.device) >= on_device(lengths - count, x)[:, None]
    return x.masked_fill(beyond if x.dim() == 2 else beyond[:, None], 0)


def _reflect_one(x: Tensor) -> Tensor:
    """x [B, C, T > 1] with one reflected step before the first, in its own memory layout."""
    rows = x.transpose(1, 2)
    return torch.cat([rows[:, 1:2], rows], 1).transpose(1, 2)
