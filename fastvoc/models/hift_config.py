"""Configuration of the HiFTNet family: values tell the published variants apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Literal

from fastvoc.errors import ArgumentError
from fastvoc.models.families import Config
from fastvoc.sound.mel import COSYVOICE2_24K, COSYVOICE3_24K, HIFIGAN_22K, MelConfig

_ROWS = ("resblock_dilation_sizes", "source_resblock_dilation_sizes")
_TUPLES = ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes", "source_resblock_kernel_sizes")
_CHOICES: dict[str, tuple[str, ...]] = {
    "source": ("sample", "frame_linear", "frame_nearest"),
    "source_noise": ("normal", "uniform"),
    "features": ("complex", "polar"),
    "source_padding": ("floor", "ceil"),
    "f0_network": ("conv", "causal_conv", "jdc"),
    "f0_dtype": ("float32", "float64"),
}
_MOST_LAYERS, _WIDEST, _LONGEST_HOP = 16, 1 << 16, 1 << 16
JDC_MELS = 80  # the pitch network pools 80 bands down to 2


@dataclass(frozen=True)
class HiftConfig(Config):
    """The generator's shape, in the names of CosyVoice's YAML where it has them; the defaults are Chatterbox's.

    sample_rate in Hz. `n_fft` and `istft_hop` (samples) are those of the source's STFT and of the inverse STFT that
    ends the model, so a mel frame is prod(upsample_rates) * istft_hop samples.

    source: how the phase of the harmonics grows: summed per "sample", or per frame and interpolated between the frames'
    centres ("frame_linear") or held ("frame_nearest"). `harmonics` overtones of amplitude `source_amp`, with noise
    (`source_noise`: "normal", or "uniform" in [0, 1)) of size `noise_std` where F0 exceeds `voiced_threshold` Hz and
    source_amp / 3 elsewhere.
    features: what the network sees of the source: "complex" (real parts, then imaginary parts) or "polar" (magnitudes,
    then angles).
    source_padding: half the stride of a source convolution, rounded down ("floor") or up ("ceil").
    snake_eps: added to alpha below the fraction bar of Snake. magnitude_clip, clamp: limits of the spectrum's magnitude
    and of the waveform, None for no limit.
    causal: convolutions see the past only, but for the first, which sees `lookahead` frames ahead; upsampling repeats
    samples before a convolution.
    f0_network: "conv" (5 convolutions), "causal_conv" (the first sees 3 frames ahead) or "jdc"; it computes in
    `f0_dtype`, with `f0_channels` channels where it has a width. A causal generator needs causal_conv, and a source
    that does not look ahead.
    `mel` is the front end that the checkpoint was trained with, None when it is not known.
    """

    family: ClassVar[str] = "hiftnet"

    sample_rate: int = 24000
    num_mels: int = 80
    base_channels: int = 512
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernel_sizes: tuple[int, ...] = (16, 11, 7)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    n_fft: int = 16
    istft_hop: int = 4
    leaky_relu_slope: float = 0.1
    final_leaky_relu_slope: float = 0.01
    harmonics: int = 8
    source: Literal["sample", "frame_linear", "frame_nearest"] = "sample"
    source_amp: float = 0.1
    noise_std: float = 0.003
    voiced_threshold: float = 10.0
    source_noise: Literal["normal", "uniform"] = "normal"
    features: Literal["complex", "polar"] = "complex"
    source_padding: str = "floor"
    snake_eps: float = 1e-9
    magnitude_clip: float | None = 100.0
    clamp: float | None = 0.99
    causal: bool = False
    lookahead: int = 4
    f0_network: str = "conv"
    f0_channels: int = 512
    f0_dtype: str = "float32"
    mel: MelConfig | None = None

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return prod(self.upsample_rates) * self.istft_hop

    def channels(self, stage: int) -> int:
        """Channels after upsampling stage `stage` (-1: before the first)."""
        return self.base_channels >> (stage + 1)

    def source_stride(self, stage: int) -> int:
        """STFT frames of the source per step of a stage."""
        return prod(self.upsample_rates[stage + 1 :])

    def samples(self, frames: int) -> int:
        """Length of the waveform made from a number of mel frames."""
        return frames * self.hop


def _validate(c: HiftConfig) -> None:
    def require(ok: bool, field: str, expected: str) -> None:
        if not ok:
            raise ArgumentError(f"HiftConfig.{field}: got {getattr(c, field)!r}, expected {expected}")

    def positive(values: tuple[Any, ...], limit: int = 1 << 31) -> bool:
        return all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < limit for v in values)

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30

    stages = len(c.upsample_rates)
    for name in ("sample_rate", "num_mels", "base_channels", "n_fft", "istft_hop", "f0_channels"):
        require(positive((getattr(c, name),), 1 << 20), name, "a positive integer")
    for name in _TUPLES:
        value = getattr(c, name)
        ok = 0 < len(value) <= _MOST_LAYERS and positive(value, _WIDEST)
        require(ok, name, f"1 to {_MOST_LAYERS} positive integers")
    for name in ("upsample_kernel_sizes", "source_resblock_kernel_sizes"):
        require(len(getattr(c, name)) == stages, name, f"{stages} values, one per rate")
    for name, kernels in zip(_ROWS, (c.resblock_kernel_sizes, c.source_resblock_kernel_sizes), strict=True):
        rows = getattr(c, name)
        ok = len(rows) == len(kernels) and all(0 < len(r) <= _MOST_LAYERS and positive(r, _WIDEST) for r in rows)
        require(ok, name, f"{len(kernels)} lists of positive integers, one per kernel")
    for name in ("resblock_kernel_sizes", "source_resblock_kernel_sizes"):
        require(all(k % 2 for k in getattr(c, name)), name, "odd kernels, whose padding keeps the length")
    ok = prod(c.upsample_rates) > 1 and c.hop <= _LONGEST_HOP
    require(ok, "upsample_rates", f"rates of a product above 1, and a hop of at most {_LONGEST_HOP} samples")
    for k, u in zip(c.upsample_kernel_sizes, c.upsample_rates, strict=True):
        require(c.causal or (k >= u and (k - u) % 2 == 0), "upsample_kernel_sizes", "kernels of rate + 0, 2, 4, ...")
    halved = c.base_channels >> stages
    require(halved > 0, "base_channels", f"at least {1 << stages}, since each of {stages} stages halves it")
    require(c.n_fft % 2 == 0 and c.istft_hop <= c.n_fft // 2, "n_fft", "an even number, at least twice istft_hop")
    for name, choices in _CHOICES.items():
        require(getattr(c, name) in choices, name, f"one of {', '.join(choices)}")
    for name in ("harmonics", "lookahead"):
        value = getattr(c, name)
        require(value == 0 or positive((value,), 1 << 10), name, "an integer from 0 to 1023")
    require(isinstance(c.causal, bool), "causal", "True or False")
    if c.causal:
        require(c.f0_network == "causal_conv", "f0_network", "causal_conv, since the generator is causal")
        require(c.source != "frame_linear", "source", "sample or frame_nearest, since the generator is causal")
    for name in ("leaky_relu_slope", "final_leaky_relu_slope", "source_amp", "voiced_threshold"):
        require(number(getattr(c, name)), name, "a number")
    for name in ("noise_std", "snake_eps"):
        require(number(getattr(c, name)) and getattr(c, name) >= 0, name, "0 or a positive number")
    for name in ("magnitude_clip", "clamp"):
        limit = getattr(c, name)
        require(limit is None or (number(limit) and limit > 0), name, "a positive number or None")
    require(c.f0_network != "jdc" or c.num_mels == JDC_MELS, "num_mels", f"{JDC_MELS}, the pitch network's")
    require(c.mel is None or c.mel.n_mels == c.num_mels, "num_mels", f"the mel front end's {c.mel and c.mel.n_mels}")


CHATTERBOX = HiftConfig(mel=COSYVOICE2_24K)
COSYVOICE2 = replace(CHATTERBOX, source="frame_linear")
COSYVOICE3 = replace(
    COSYVOICE2,
    source="frame_nearest",
    source_noise="uniform",
    causal=True,
    f0_network="causal_conv",
    f0_dtype="float64",
    mel=COSYVOICE3_24K,
)
COSYVOICE1 = replace(
    CHATTERBOX,
    sample_rate=22050,
    upsample_rates=(8, 8),
    upsample_kernel_sizes=(16, 16),
    source_resblock_kernel_sizes=(7, 11),
    source_resblock_dilation_sizes=((1, 3, 5), (1, 3, 5)),
    mel=HIFIGAN_22K,
)
HIFTNET = replace(
    COSYVOICE1,
    source="frame_linear",
    features="polar",
    source_padding="ceil",
    snake_eps=0.0,
    magnitude_clip=None,
    clamp=None,
    f0_network="jdc",
)
