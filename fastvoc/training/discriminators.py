"""HiFi-GAN's multi-period and multi-scale discriminators (arXiv 2010.05646; github.com/jik876/hifi-gan).

`width` scales every inner channel count; at 1 the layers, names and shapes are those of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.training.normed import SpectralNormConv, WeightNormConv

PERIODS = (2, 3, 5, 7, 11)
SCALES = 3
_SLOPE = 0.1
_PERIOD_CHANNELS = (32, 128, 512, 1024, 1024)
_PERIOD_STRIDES = (3, 3, 3, 3, 1)
# channels, kernel, stride, groups
_SCALE_LAYERS = (
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)

Judged = tuple[Tensor, list[Tensor]]


class PeriodDiscriminator(nn.Module):
    """Judges the waveform folded into rows of `period` samples."""

    def __init__(self, period: int, width: float = 1.0) -> None:
        super().__init__()
        self.period = period
        channels = [1, *(scaled(c, width) for c in _PERIOD_CHANNELS)]
        self.convs = nn.ModuleList(
            WeightNormConv(a, b, (5, 1), (s, 1), (2, 0))
            for a, b, s in zip(channels[:-1], channels[1:], _PERIOD_STRIDES, strict=True)
        )
        self.conv_post = WeightNormConv(channels[-1], 1, (3, 1), (1, 1), (1, 0))

    def forward(self, wav: Tensor) -> Judged:
        """wav [B, 1, L] -> score [B, n] and feature maps [B, C, rows, period], the score's own map last."""
        batch, _, length = wav.shape
        rest = -length % self.period
        x = F.pad(wav, (0, rest), mode="reflect") if rest else wav
        return judge(x.view(batch, 1, -1, self.period), self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Judges the waveform with strided, grouped convolutions."""

    def __init__(self, width: float = 1.0, spectral: bool = False) -> None:
        super().__init__()
        conv = SpectralNormConv if spectral else WeightNormConv
        layers, before = [], 1
        for channels, kernel, stride, groups in _SCALE_LAYERS:
            groups = max(1, round(groups * width))  # a group keeps its size in channels
            after = scaled(channels, width)
            if before % groups or after % groups:
                raise ArgumentError(f"width: {width} makes {groups} groups of {before} and {after} channels")
            layers.append(conv(before, after, (kernel,), (stride,), (kernel // 2,), groups))
            before = after
        self.convs = nn.ModuleList(layers)
        self.conv_post = conv(before, 1, (3,), (1,), (1,))

    def forward(self, wav: Tensor) -> Judged:
        """wav [B, 1, L] -> score [B, n] and feature maps [B, C, n'], the score's own map last."""
        return judge(wav, self.convs, self.conv_post)


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` a period."""

    def __init__(self, width: float = 1.0, periods: Sequence[int] = PERIODS) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(p, width) for p in periods)

    def forward(self, wav: Tensor) -> list[Judged]:
        """wav [B, 1, L], L at least the longest period -> one (score, feature maps) a period."""
        check_wav(wav)
        return [d(wav) for d in self.discriminators]


class MultiScaleDiscriminator(nn.Module):
    """`ScaleDiscriminator`s on the waveform and on its averages over 4 samples every 2, again and again.

    The first one is spectrally normalised.
    """

    def __init__(self, width: float = 1.0, scales: int = SCALES) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(ScaleDiscriminator(width, spectral=i == 0) for i in range(scales))

    def forward(self, wav: Tensor) -> list[Judged]:
        """wav [B, 1, L] -> one (score, feature maps) a scale."""
        check_wav(wav)
        results = []
        for i, discriminator in enumerate(self.discriminators):
            wav = F.avg_pool1d(wav, 4, 2, padding=2) if i else wav
            results.append(discriminator(wav))
        return results


def check_wav(wav: Tensor) -> None:
    """Raises ShapeError unless wav is [B, 1, L]."""
    if wav.dim() != 3 or wav.shape[1] != 1:
        raise ShapeError(f"wav: expected [B, 1, L], got {list(wav.shape)}")


def scaled(channels: int, width: float) -> int:
    """`width` times as many channels. Raises ArgumentError where none is left."""
    count = round(channels * width)
    if count < 1:
        raise ArgumentError(f"width: {width} leaves no channel of {channels}")
    return count


def judge(x: Tensor, convs: nn.ModuleList, post: nn.Module) -> Judged:
    """The score of convolutions with leaky ReLUs behind them and of a last one, with all feature maps."""
    maps = []
    for conv in convs:
        x = F.leaky_relu(conv(x), _SLOPE)
        maps.append(x)
    score = post(x)
    return score.flatten(1), [*maps, score]
