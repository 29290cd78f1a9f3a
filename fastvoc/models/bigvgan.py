"""BigVGAN generator (Lee et al. 2022, arXiv 2206.04658; github.com/NVIDIA/BigVGAN), version 1 and 2."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from torch import Tensor, nn

from fastvoc.errors import ShapeError
from fastvoc.models.checks import (
    Tensors,
    check_like,
    check_stages,
    conv_tensors,
    require,
    require_positive,
)
from fastvoc.models.families import Config
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.model import Given, Model, Written
from fastvoc.nn.network import Trace, Value, mean
from fastvoc.nn.snake_aa import AmpBlock, SnakeAa
from fastvoc.nn.streams import NetworkStream
from fastvoc.nn.upsample import Upsample
from fastvoc.ops.activation import IDENTITY, TANH
from fastvoc.sound.mel import BIGVGAN_24K_100, MelConfig

_ENDS_KERNEL = 7


@dataclass(frozen=True)
class BigVganConfig(Config):
    """The generator's shape, in the names of the published `config.json` where it has them; the default is version 2's
    24 kHz model with 100 bands.

    `mel` is the front end that the checkpoint was trained with, None when it is not known.
    """

    family: ClassVar[str] = "bigvgan"

    sample_rate: int = 24000
    num_mels: int = 100
    upsample_rates: tuple[int, ...] = (4, 4, 2, 2, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (8, 8, 4, 4, 4, 4)
    upsample_initial_channel: int = 1536
    resblock: str = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    activation: str = "snakebeta"
    snake_logscale: bool = True
    use_tanh_at_final: bool = False
    use_bias_at_final: bool = False
    mel: MelConfig | None = None

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

    def samples(self, frames: int) -> int:
        """Length of the waveform made from a number of mel frames."""
        for k, u in zip(self.upsample_kernel_sizes, self.upsample_rates, strict=True):
            frames = (frames - 1) * u - 2 * ((k - u) // 2) + k
        return frames

    def tensors(self) -> Tensors:
        """Name and shape of every tensor of the model's state, in its order, without building it."""
        yield from conv_tensors("conv_pre", (self.channels(-1), self.num_mels, _ENDS_KERNEL), self.channels(-1))
        for i, kernel in enumerate(self.upsample_kernel_sizes):
            yield from conv_tensors(f"ups.{i}", (self.channels(i - 1), self.channels(i), kernel), self.channels(i))
        lists = ("convs1", "convs2") if self.resblock == "1" else ("convs",)
        count = len(self.resblock_kernel_sizes)
        for i in range(len(self.upsample_rates)):
            channels = self.channels(i)
            for j, kernel in enumerate(self.resblock_kernel_sizes):
                depth = len(self.resblock_dilation_sizes[j])
                for convs in lists:
                    for m in range(depth):
                        name = f"resblocks.{i * count + j}.{convs}.{m}"
                        yield from conv_tensors(name, (channels, channels, kernel), channels)
                for k in range(len(lists) * depth):
                    yield from self._snake(f"resblocks.{i * count + j}.activations.{k}", channels)
        last = self.channels(len(self.upsample_rates) - 1)
        yield from self._snake("activation_post", last)
        yield from conv_tensors("conv_post", (1, last, _ENDS_KERNEL), int(self.use_bias_at_final))

    def _snake(self, name: str, channels: int) -> Tensors:
        yield f"{name}.alpha", (channels,)
        if self.activation == "snakebeta":
            yield f"{name}.beta", (channels,)


def _validate(c: BigVganConfig) -> None:
    require_positive(c, "sample_rate", "num_mels", "upsample_initial_channel")
    check_stages(c)
    require(c, c.activation in ("snake", "snakebeta"), "activation", '"snake" or "snakebeta"')
    for name in ("snake_logscale", "use_tanh_at_final", "use_bias_at_final"):
        require(c, isinstance(getattr(c, name), bool), name, "true or false")
    fits = all(k >= u for k, u in zip(c.upsample_kernel_sizes, c.upsample_rates, strict=True))
    require(c, fits, "upsample_kernel_sizes", "kernel >= rate at every stage")
    require(c, c.mel is None or c.mel.n_mels == c.num_mels, "num_mels", f"the mel front end's {c.mel and c.mel.n_mels}")


BIGVGAN_V2_24K_100 = BigVganConfig(mel=BIGVGAN_24K_100)
BIGVGAN_BASE_24K_100 = replace(
    BIGVGAN_V2_24K_100,
    upsample_rates=(8, 8, 2, 2),
    upsample_kernel_sizes=(16, 16, 4, 4),
    upsample_initial_channel=512,
    use_tanh_at_final=True,
    use_bias_at_final=True,
)


class BigVgan(Model):
    """The generator: log-mel in, waveform out.

    Parameters carry the upstream names with weight norm folded: `conv_pre`, `ups.{i}` (upstream `ups.{i}.0`),
    `resblocks.{n}.convs1.{m}` and `.convs2.{m}` (or `.convs.{m}` for residual block type 2),
    `resblocks.{n}.activations.{k}.alpha` and `.beta`, `activation_post`, `conv_post`.
    """

    def __init__(self, config: BigVganConfig) -> None:
        super().__init__()
        self.config = config
        count = len(config.resblock_kernel_sizes)
        snake = {"beta": config.activation == "snakebeta", "logscale": config.snake_logscale}
        self.conv_pre = Conv1d(config.num_mels, config.channels(-1), _ENDS_KERNEL)
        ups: list[Upsample] = []
        blocks: list[AmpBlock] = []
        for i, (k, u) in enumerate(zip(config.upsample_kernel_sizes, config.upsample_rates, strict=True)):
            ups.append(Upsample(config.channels(i - 1), config.channels(i), k, u, (k - u) // 2))
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                blocks.append(AmpBlock(config.channels(i), kernel, dilations, pairs=config.resblock == "1", **snake))
        self.ups = nn.ModuleList(ups)
        self.resblocks = nn.ModuleList(blocks)
        self._stages = [(up, blocks[i * count : (i + 1) * count]) for i, up in enumerate(ups)]
        last = config.channels(len(ups) - 1)
        self.activation_post = SnakeAa(last, **snake)
        post = TANH if config.use_tanh_at_final else IDENTITY
        self.conv_post = Conv1d(last, 1, _ENDS_KERNEL, bias=config.use_bias_at_final, post=post)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """Log-mel to waveform.

        Args:
            mel: [B, num_mels, T] log-mel of the checkpoint's own front end.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            backend: implementation to force for every op.

        Returns:
            [B, 1, S] samples in -1..1; S = T * hop for the published configurations.

        Raises:
            ShapeError, DtypeError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        if mel.dim() != 3 or mel.shape[1] != self.config.num_mels or mel.shape[2] == 0:
            raise ShapeError(f"mel: expected [B, {self.config.num_mels}, T > 0], got {list(mel.shape)}")
        check_like("mel", mel, self.conv_pre.weight)
        return self.run(self.reading(), mel, lengths=lengths, backend=backend)

    def network(self, run: Trace, mel: Value) -> Value:
        """The steps from a log-mel to the waveform."""
        x = run(self.conv_pre, mel)
        for up, blocks in self._stages:
            x = run(up, x)
            x = run.join(mean, *(block.network(run, x) for block in blocks))
        x = run(self.conv_post, run(self.activation_post, x))
        return x if self.config.use_tanh_at_final else run.map(_bounded, x)

    def written(self, chosen: Collection[str] = ()) -> Written:
        self._choose(chosen)
        return Written({"mel": Given(("batch", self.config.num_mels, "frames"))}, self.network)

    def stream(self, backend: str | None = None, *, exact: bool = True) -> NetworkStream:
        """The generator's state for mel spectrograms that arrive in chunks; `exact` as in `Vocoder.stream`."""
        return NetworkStream(self.reading(), backend, exact=exact)


def _bounded(wav: Tensor) -> Tensor:
    return wav.clamp(-1.0, 1.0)
