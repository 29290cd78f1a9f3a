"""UnivNet generator (Jang et al. 2021, arXiv 2106.07889), the variant of Transformers' `UnivNetModel`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import ClassVar

from torch import Tensor, nn

from fastvoc.errors import DeviceError, DtypeError, ShapeError
from fastvoc.models.checks import (
    Tensors,
    check_like,
    conv_tensors,
    item_seeds,
    positive,
    require,
    require_positive,
    stream_seeds,
)
from fastvoc.models.families import Config
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.lvc import KernelPredictor, LvcLayer
from fastvoc.nn.model import Given, Model, Written
from fastvoc.nn.network import Network, Trace, Value
from fastvoc.nn.noise import NormalNoise
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.streams import NetworkStream
from fastvoc.nn.upsample import Upsample
from fastvoc.ops.activation import TANH, leaky_relu
from fastvoc.runtime.lengths import shortest
from fastvoc.sound.mel import BIGVGAN_24K_100, MelConfig

_ENDS_KERNEL = 7
_INPUT_KERNEL = 5


@dataclass(frozen=True)
class UnivNetConfig(Config):
    """The generator's shape, in the names of the published `config.json` (`num_mels` is its `num_mel_bins`).

    Each block upsamples by its stride. `mel` is the front end that the checkpoint was trained with, None when it is not
    known.
    """

    family: ClassVar[str] = "univnet"

    sample_rate: int = 24000
    num_mels: int = 100
    model_in_channels: int = 64
    model_hidden_channels: int = 32
    resblock_kernel_sizes: tuple[int, ...] = (3, 3, 3)
    resblock_stride_sizes: tuple[int, ...] = (8, 8, 4)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 9, 27), (1, 3, 9, 27), (1, 3, 9, 27))
    kernel_predictor_num_blocks: int = 3
    kernel_predictor_hidden_channels: int = 64
    kernel_predictor_conv_size: int = 3
    leaky_relu_slope: float = 0.2
    mel: MelConfig | None = None

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return prod(self.resblock_stride_sizes)

    @property
    def min_frames(self) -> int:
        """Fewest mel frames of a signal: its reflection reads so many."""
        return _ENDS_KERNEL // 2 + 1

    def samples(self, frames: int) -> int:
        """Length of the waveform made from a number of mel frames."""
        return frames * self.hop

    def tensors(self) -> Tensors:
        """Name and shape of every tensor of the model's state, in its order, without building it."""
        channels, hidden = self.model_hidden_channels, self.kernel_predictor_hidden_channels
        size = self.kernel_predictor_conv_size
        yield from conv_tensors("conv_pre", (channels, self.model_in_channels, _ENDS_KERNEL), channels)
        rows = zip(self.resblock_kernel_sizes, self.resblock_stride_sizes, self.resblock_dilation_sizes, strict=True)
        for i, (taps, stride, dilations) in enumerate(rows):
            block, layers = f"resblocks.{i}", len(dilations)
            yield from conv_tensors(f"{block}.convt_pre", (channels, channels, 2 * stride), channels)
            predictor = f"{block}.kernel_predictor"
            yield from conv_tensors(f"{predictor}.input_conv", (hidden, self.num_mels, _INPUT_KERNEL), hidden)
            for j in range(self.kernel_predictor_num_blocks):
                for conv in ("conv1", "conv2"):
                    yield from conv_tensors(f"{predictor}.resblocks.{j}.{conv}", (hidden, hidden, size), hidden)
            kernels, biases = layers * channels * 2 * channels * taps, layers * 2 * channels
            yield from conv_tensors(f"{predictor}.kernel_conv", (kernels, hidden, size), kernels)
            yield from conv_tensors(f"{predictor}.bias_conv", (biases, hidden, size), biases)
            for m in range(layers):
                yield from conv_tensors(f"{block}.resblocks.{m}.conv", (channels, channels, taps), channels)
        yield from conv_tensors("conv_post", (1, channels, _ENDS_KERNEL), 1)


def _validate(c: UnivNetConfig) -> None:
    require_positive(
        c,
        "sample_rate",
        "num_mels",
        "model_in_channels",
        "model_hidden_channels",
        "kernel_predictor_hidden_channels",
        "kernel_predictor_conv_size",
    )
    for name in ("resblock_kernel_sizes", "resblock_stride_sizes"):
        require(c, positive(getattr(c, name)), name, "positive integers")
    blocks = len(c.resblock_stride_sizes)
    require(c, all(k % 2 for k in c.resblock_kernel_sizes), "resblock_kernel_sizes", "odd numbers")
    require(c, len(c.resblock_kernel_sizes) == blocks, "resblock_kernel_sizes", f"{blocks} values, one per stride")
    dilations = c.resblock_dilation_sizes
    fits = len(dilations) == blocks and all(positive(row) for row in dilations)
    require(c, fits, "resblock_dilation_sizes", f"{blocks} lists of positive integers, one per stride")
    require(c, c.kernel_predictor_conv_size % 2 == 1, "kernel_predictor_conv_size", "an odd number")
    require(c, positive((c.kernel_predictor_num_blocks + 1,)), "kernel_predictor_num_blocks", "0 or a positive integer")
    require(
        c,
        c.kernel_predictor_hidden_channels == c.model_in_channels or not c.kernel_predictor_num_blocks,
        "kernel_predictor_hidden_channels",
        f"model_in_channels, {c.model_in_channels}, which upstream's residual blocks use for both",
    )
    require(c, c.mel is None or c.mel.n_mels == c.num_mels, "num_mels", f"the mel front end's {c.mel and c.mel.n_mels}")


UNIVNET_24K_100 = UnivNetConfig(mel=BIGVGAN_24K_100)


class LvcBlock(nn.Module):
    """Upsamples, then applies a location-variable convolution per dilation, with kernels predicted from the mel."""

    def __init__(self, config: UnivNetConfig, index: int, hop: int) -> None:
        super().__init__()
        channels, slope = config.model_hidden_channels, config.leaky_relu_slope
        taps, stride = config.resblock_kernel_sizes[index], config.resblock_stride_sizes[index]
        dilations = config.resblock_dilation_sizes[index]
        padding, extra = stride // 2 + stride % 2, stride % 2
        self.convt_pre = Upsample(channels, channels, 2 * stride, stride, padding, extra, pre=leaky_relu(slope))
        self.kernel_predictor = KernelPredictor(
            config.num_mels,
            config.kernel_predictor_hidden_channels,
            blocks=config.kernel_predictor_num_blocks,
            kernel_size=config.kernel_predictor_conv_size,
            slope=slope,
            layers=len(dilations),
            channels=channels,
            taps=taps,
        )
        self.lvc = [LvcLayer(channels, taps, d, slope, hop) for d in dilations]
        self.resblocks = nn.ModuleList(self.lvc)
        self.hop = hop

    def network(self, run: Trace, x: Value, mel: Value) -> Value:
        """[B, C, L * hop / stride], [B, num_mels, L] -> [B, C, L * hop]."""
        x = run(self.convt_pre, x)
        hidden, biases = self.kernel_predictor.network(run, mel)
        for m, layer in enumerate(self.lvc):
            kernels = self.kernel_predictor.kernel_conv.network(run, hidden, m)
            bias = run.map(partial(_chunk, count=len(self.lvc), index=m), biases)
            x = run(layer, run(layer.conv, x), kernels, bias, x)
        return x


def _chunk(x: Tensor, *, count: int, index: int) -> Tensor:
    return x.chunk(count, 1)[index]


class UnivNet(Model):
    """The generator: log-mel and noise in, waveform out. Parameters carry the names of Transformers' `UnivNetModel`."""

    inputs = ("noise", "seed")
    stream_options = ("seed",)

    def __init__(self, config: UnivNetConfig) -> None:
        super().__init__()
        self.config = config
        self.min_frames = config.min_frames
        channels, slope = config.model_hidden_channels, config.leaky_relu_slope
        self.conv_pre = Conv1d(config.model_in_channels, channels, _ENDS_KERNEL, pad_mode="reflect")
        hops = [prod(config.resblock_stride_sizes[: i + 1]) for i in range(len(config.resblock_stride_sizes))]
        self.blocks = [LvcBlock(config, i, hop) for i, hop in enumerate(hops)]
        self.resblocks = nn.ModuleList(self.blocks)
        self.conv_post = Conv1d(channels, 1, _ENDS_KERNEL, pad_mode="reflect", pre=leaky_relu(slope), post=TANH)

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        noise: Tensor | None = None,
        seed: int | Sequence[int] | Tensor = 0,
    ) -> Tensor:
        """Log-mel to waveform.

        Args:
            mel: [B, num_mels, T >= 4] log-mel of the checkpoint's own front end.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            backend: implementation to force for every op.
            noise: [B, model_in_channels, T] standard normal, any floating-point type; made from `seed` when None.
            seed: an int, or one per item: equal seeds give an item the same noise in any batch.

        Returns:
            [B, 1, T * hop] samples in (-1, 1).

        Raises:
            ShapeError, DtypeError, DeviceError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        bands, least = self.config.num_mels, self.config.min_frames
        steps = mel.shape[-1]
        fewest = steps if lengths is None or not lengths.numel() else shortest(lengths, steps)
        if mel.dim() != 3 or mel.shape[1] != bands or fewest < least:
            got = list(mel.shape) if fewest == steps else f"{list(mel.shape)} with lengths from {fewest}"
            raise ShapeError(f"mel: expected [B, {bands}, T >= {least}], which its reflection needs, got {got}")
        check_like("mel", mel, self.conv_pre.weight)
        if noise is None:
            seeds = item_seeds(seed, len(mel), mel.device)
            return self._seeded_network(mel, seeds, lengths=lengths, backend=backend)
        return self.reading(per_frame=(1, 1))(mel, self._given(mel, noise), lengths=lengths, backend=backend)

    def network(self, run: Trace, mel: Value, noise: Value) -> Value:
        """The steps from a log-mel and noise to the waveform."""
        x = run(self.conv_pre, noise)
        for block in self.blocks:
            x = block.network(run, x, mel)
        return run(self.conv_post, x)

    def _seeded(self, run: Trace, mel: Value, seed: Value | None) -> Value:
        return self.network(run, mel, run(NormalNoise(self.config.model_in_channels), mel, seed))

    @property
    def _seeded_network(self) -> Network:
        return self.reading("_seeded", (1, 0))

    def input_shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that `forward` takes besides a mel of so many frames, without the batch axis."""
        return {"noise": (self.config.model_in_channels, frames)}

    def _given(self, mel: Tensor, noise: Tensor) -> Tensor:
        expected = [mel.shape[0], self.config.model_in_channels, mel.shape[2]]
        if list(noise.shape) != expected:
            raise ShapeError(f"noise: expected {expected}, got {list(noise.shape)}")
        if not noise.is_floating_point():
            raise DtypeError(f"noise: expected floating-point values, got {noise.dtype}")
        if noise.device != mel.device:
            raise DeviceError(f"noise: expected a tensor on {mel.device} like the mel, got {noise.device}")
        return noise.to(mel.dtype)

    def written(self, chosen: Collection[str] = ()) -> Written:
        self._choose(chosen, "noise")
        mel = {"mel": Given(("batch", self.config.num_mels, "frames"))}
        if "noise" in chosen:
            noise = Given(("batch", self.config.model_in_channels, "frames"))
            return Written({**mel, "noise": noise}, self.network)
        return Written(mel, lambda run, mel: self._seeded(run, mel, None))

    def stream(
        self, backend: str | None = None, *, seed: int | Sequence[int] | Tensor = 0, exact: bool = True
    ) -> NetworkStream:
        """The generator's state for mel spectrograms that arrive in chunks.

        `seed` as in a call, `exact` as in `Vocoder.stream`.
        """
        seeds = stream_seeds(seed, self.conv_pre.weight.device)
        least = self.config.min_frames
        return NetworkStream(self._seeded_network, backend, exact=exact, items={"seed": seeds}, least=least)

    def layers(self) -> dict[str, Prepared]:
        return self._seeded_network.layers
