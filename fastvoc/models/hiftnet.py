"""HiFTNet (Li et al. 2023, arXiv 2309.09493; github.com/yl4579/HiFTNet) and the HiFT generators after it.

CosyVoice 1, 2 and 3 (github.com/FunAudioLLM/CosyVoice) and Chatterbox (github.com/resemble-ai/chatterbox) differ from
the original by values of the configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, ExportError, ShapeError
from fastvoc.models.checks import check_floats, check_like, chunk_f0, item_seeds
from fastvoc.models.f0 import CAUSAL_LOOKAHEAD, ConvF0
from fastvoc.models.hift_config import HiftConfig
from fastvoc.models.hift_parts import ReflectOne, Shortened, shortened
from fastvoc.models.jdc import Jdc
from fastvoc.models.sources import make_source, one_row
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.model import Given, Model, Written
from fastvoc.nn.mrf import MrfStage, ResidualBlock
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.snake import Snake
from fastvoc.nn.source import NsfSource
from fastvoc.nn.spectral import IstftHead, Stft
from fastvoc.nn.streams import NetworkStream
from fastvoc.nn.upsample import NearestUpsample, Upsample
from fastvoc.ops.activation import leaky_relu
from fastvoc.runtime.lengths import shortest

_KERNEL = 7  # of the first convolution and the last
_F0_DTYPES = {"float32": None, "float64": torch.float64}


class HiftNet(Model):
    """The generator: log-mel in, waveform out, by way of F0 and a source signal.

    Parameters carry CosyVoice's names with weight norm folded: `conv_pre`, `ups.{i}`, `source_downs.{i}`,
    `source_resblocks.{i}` and `resblocks.{n}` with `convs1`, `convs2`, `activations1` and `activations2`, `conv_post`,
    `m_source`, `f0_predictor`.
    """

    inputs = ("f0", "source", "seed", "phase", "noise")
    stream_options = ("seed", "f0")
    predicts_f0 = True

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
        self.stages = [
            (
                ups[i],
                downs[i],
                MrfStage(f"source_mrf.{i}", [source_blocks[i]], pad_mode=pad_mode),
                MrfStage(f"mrf.{i}", blocks[i * count : (i + 1) * count], pad_mode=pad_mode),
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
        check_like("mel", mel, self.conv_pre.weight)
        if f0 is not None:
            held = 0 if final else self.f0_held_frames
            check_floats("f0", f0, (mel.shape[0], mel.shape[2] - held), self.conv_pre.weight.device)
        elif source is None:
            f0 = self.predict_f0(mel, lengths, final=final, backend=backend)
        if not final:
            held = self.f0_held_frames
            mel, lengths = shortened(mel, lengths, held), None if lengths is None else lengths - held
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
        check_like("mel", mel, self.f0_predictor.classifier.weight, self.conv_pre.weight)  # the predictor may be wider
        f0: Tensor = self.f0_predictor(mel, lengths=lengths, backend=backend)
        return f0 if final else shortened(f0, lengths, self.f0_held_frames)

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
        return make_source(self, f0, lengths, seed=seed, phase=phase, noise=noise, backend=backend)

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
        check_like("mel", mel, self.conv_pre.weight)
        check_floats("source", source, (mel.shape[0], 1, mel.shape[2] * config.hop), mel.device)
        network = self.reading("_wave", (1, config.hop), final=final)
        if not final:
            return network(mel, source, lengths=lengths, backend=backend)
        return self.run(network, mel, source, lengths=lengths, backend=backend)

    def _source(self, run: Trace, f0: Value, phase: Value, seed: Value, noise: Value) -> Value:
        return run(self.m_source, f0, None, phase, seed, noise)

    def _wave(self, run: Trace, mel: Value, source: Value, *, final: bool = True) -> Value:
        config = self.config
        x, spectrum = run(self.conv_pre, mel), run(self.stft, source)
        if not final:
            x = run(Shortened(config.lookahead), x)
            spectrum = run(Shortened(config.lookahead * (config.hop // config.istft_hop)), spectrum)
        for i, (up, down, source_stage, stage) in enumerate(self.stages):
            x = run(up, x)
            if i + 1 == len(self.stages):
                x = run(ReflectOne(), x)
            x = run(stage, run.add(x, run(source_stage, run(down, spectrum))))
        wav = run(self.istft, run(self.conv_post, x))
        return wav if final else run(Shortened(config.hop), wav)

    def written(self, chosen: Collection[str] = ()) -> Written:
        """Without choice all from a log-mel; `source` in place of F0, start phases and noise."""
        self._choose(chosen, "f0", "phase", "noise", "source")
        if "source" in chosen and len(chosen) > 1:
            raise ExportError("inputs: source comes in place of f0, phase and noise, expected it alone")
        axes: dict[str, tuple[int | str, ...]] = {
            "f0": ("batch", "frames"),
            "phase": ("batch", self.config.harmonics + 1),
            "noise": ("batch", self.config.harmonics + 1, "samples"),
            "source": ("batch", 1, "samples"),
        }
        names = [name for name in axes if name in chosen]

        def network(run: Trace, mel: Value, *values: Value) -> Value:
            given = dict(zip(names, values, strict=True))
            source = given.get("source") or self._made_source(run, mel, given)
            return self._wave(run, mel, source)

        first = Given(("batch", self.config.num_mels, "frames"))
        return Written({"mel": first, **{name: Given(axes[name]) for name in names}}, network)

    def _made_source(self, run: Trace, mel: Value, given: Mapping[str, Value]) -> Value:
        f0 = run.map(one_row, given["f0"]) if "f0" in given else self.f0_predictor.network(run, mel)
        return run(self.m_source, f0, None, given.get("phase"), None, given.get("noise"))

    def _live(self, run: Trace, mel: Value, seed: Value) -> Value:
        return self._live_given(run, mel, self.f0_predictor.network(run, mel), seed)

    def _live_given(self, run: Trace, mel: Value, f0: Value, seed: Value) -> Value:
        return self._wave(run, mel, run(self.m_source, f0, None, None, seed))

    def stream(
        self, backend: str | None = None, *, seed: int | None = None, f0: bool = False, exact: bool = True
    ) -> NetworkStream:
        """The model's state for a log-mel that arrives in chunks.

        seed: of the noise and the start phases, 0 when None. f0: True when F0 [B, n] in Hz comes with every chunk.
        exact: as in `Vocoder.stream`.
        Raises ArgumentError when F0 neither comes nor can be predicted frame by frame.
        """
        if not f0 and isinstance(self.f0_predictor, Jdc):
            raise ArgumentError("f0: expected True, since this model's pitch network reads all frames at once")
        seeds = item_seeds(0 if seed is None else seed, 1, self.conv_pre.weight.device)
        network = self.reading("_live_given", (1, 1, 0)) if f0 else self.reading("_live", (1, 0))
        signals = ("f0",) if f0 else ()
        return NetworkStream(network, backend, exact=exact, signals=signals, items={"seed": seeds})

    def stream_inputs(self, x: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """What comes with a chunk [B, num_mels, n]: F0 as [n] or [B, n]."""
        return chunk_f0(x, inputs)

    def layers(self) -> dict[str, Prepared]:
        f0 = {f"f0_predictor.{name}": layer for name, layer in self.f0_predictor.layers().items()}
        source = self.reading("_source", (1, 0, 0, 0)).layers
        return {**f0, **source, **self.reading("_wave", (1, self.config.hop), final=True).layers}

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
        fewest = shortest(lengths, mel.shape[2])
        if fewest <= held:
            raise ShapeError(f"mel: expected more than {held} frames for final=False, got {fewest}")


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
