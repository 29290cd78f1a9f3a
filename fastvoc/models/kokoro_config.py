"""Configuration of Kokoro's decoder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod
from typing import ClassVar

from fastvoc.models.checks import positive, require
from fastvoc.models.families import Config

_TUPLES = ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes")
_MOST_LAYERS, _WIDEST, _LONGEST_HOP = 16, 1 << 16, 1 << 16


@dataclass(frozen=True)
class KokoroConfig(Config):
    """The decoder's shape, in the names of the published `config.json` where it has them; the defaults are Kokoro's.

    `num_mels` channels of aligned text features come in, with F0 and energy at twice their rate; a style has
    `style_dim` values. `channels` of the blocks before the last, of which `asr_channels` are added to each; the last
    doubles the rate and has `upsample_initial_channel`. `n_fft` and `istft_hop` (samples) are those of the source's
    STFT and of the inverse STFT that ends the model, so a frame is 2 * prod(upsample_rates) * istft_hop samples.
    `harmonics` overtones of the source. `mel` is None always: no front end makes the features.
    """

    family: ClassVar[str] = "kokoro"

    sample_rate: int = 24000
    num_mels: int = 512
    style_dim: int = 128
    channels: int = 1024
    asr_channels: int = 64
    upsample_initial_channel: int = 512
    upsample_rates: tuple[int, ...] = (10, 6)
    upsample_kernel_sizes: tuple[int, ...] = (20, 12)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    n_fft: int = 20
    istft_hop: int = 5
    harmonics: int = 8
    mel: None = None

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)

    @property
    def latent(self) -> bool:
        """Whether the input is no mel: always."""
        return True

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return 2 * prod(self.upsample_rates) * self.istft_hop

    def stage_channels(self, stage: int) -> int:
        """Channels after upsampling stage `stage` (-1: before the first)."""
        return self.upsample_initial_channel >> (stage + 1)

    def source_stride(self, stage: int) -> int:
        """STFT frames of the source per step of a stage."""
        return prod(self.upsample_rates[stage + 1 :])

    def samples(self, frames: int) -> int:
        """Length of the waveform made from a number of frames."""
        return frames * self.hop


def _validate(c: KokoroConfig) -> None:
    for field in fields(c):
        value = getattr(c, field.name)
        if field.name in _TUPLES:
            ok = positive(value) and len(value) <= _MOST_LAYERS and max(value) < _WIDEST
            require(c, ok, field.name, f"1 to {_MOST_LAYERS} positive integers")
        elif field.type == "int" and field.name != "harmonics":
            require(c, positive((value,)) and value < 1 << 20, field.name, "a positive integer")
    require(c, c.harmonics == 0 or (positive((c.harmonics,)) and c.harmonics < 64), "harmonics", "an integer, 0 to 63")
    require(c, c.mel is None, "mel", "None, since no front end makes the features")
    stages, rows = len(c.upsample_rates), c.resblock_dilation_sizes
    require(c, len(c.upsample_kernel_sizes) == stages, "upsample_kernel_sizes", f"{stages} values, one per rate")
    ok = len(rows) == len(c.resblock_kernel_sizes) and all(
        positive(row) and len(row) <= _MOST_LAYERS and max(row) < _WIDEST for row in rows
    )
    require(c, ok, "resblock_dilation_sizes", f"{len(c.resblock_kernel_sizes)} lists of positive integers")
    odd = all(k % 2 for k in c.resblock_kernel_sizes)
    require(c, odd, "resblock_kernel_sizes", "odd kernels, whose padding keeps the length")
    for k, u in zip(c.upsample_kernel_sizes, c.upsample_rates, strict=True):
        require(c, k >= u and (k - u) % 2 == 0, "upsample_kernel_sizes", "kernels of rate + 0, 2, 4, ...")
    halved = c.upsample_initial_channel >> stages
    require(c, halved > 0, "upsample_initial_channel", f"at least {1 << stages}, since each stage halves it")
    require(c, prod(c.upsample_rates) > 1, "upsample_rates", "rates of a product above 1")
    require(c, c.hop <= _LONGEST_HOP, "upsample_rates", f"a hop of at most {_LONGEST_HOP} samples")
    require(c, c.n_fft % 2 == 0 and c.istft_hop <= c.n_fft // 2, "n_fft", "an even number, at least twice istft_hop")


KOKORO = KokoroConfig()
