"""The configuration of EnCodec, and those of the two published models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, log2, prod
from typing import ClassVar

from fastvoc.errors import ArgumentError
from fastvoc.models.families import Config
from fastvoc.models.segments import frames_of

_NORMS = ("weight_norm", "time_group_norm")
# The published sizes are a hundredth of these; beyond them lies only a file made to exhaust memory.
_MOST_LAYERS, _MOST_CHANNELS, _MOST_CODEBOOKS = 16, 1 << 14, 1 << 10


@dataclass(frozen=True)
class EncodecConfig(Config):
    """The codec's shape, in the names of the original constructors.

    `ratios` are those of the decoder, first to last. `segment` is the length in seconds of the pieces that a signal is
    cut into, None for whole signals; `overlap` is the part of a piece that the next one repeats. `normalize` divides
    every piece by its volume. `bandwidths` are in kbit/s. `conv_shortcut`: a block's shortcut is a convolution.
    """

    family: ClassVar[str] = "encodec"

    sample_rate: int = 24000
    channels: int = 1
    bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    causal: bool = True
    norm: str = "weight_norm"
    normalize: bool = False
    segment: float | None = None
    overlap: float = 0.01
    n_filters: int = 32
    dimension: int = 128
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    n_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    conv_shortcut: bool = True
    lstm: int = 2
    pad_mode: str = "reflect"
    trim_right_ratio: float = 1.0
    n_q: int = 32
    bins: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", tuple(self.ratios))
        object.__setattr__(self, "bandwidths", tuple(float(b) for b in self.bandwidths))
        _validate(self)

    @property
    def name(self) -> str:
        """What .ecdc files call the model, `encodec_24khz` for example."""
        return f"encodec_{self.sample_rate // 1000}khz"

    @property
    def hop(self) -> int:
        """Samples per frame of codes."""
        return prod(self.ratios)

    @property
    def frame_rate(self) -> int:
        """Frames of codes per second."""
        return ceil(self.sample_rate / self.hop)

    @property
    def segment_length(self) -> int | None:
        """Samples of a whole segment; None when signals are not cut."""
        return None if self.segment is None else int(self.segment * self.sample_rate)

    @property
    def segment_stride(self) -> int | None:
        """Samples from the beginning of a segment to that of the next."""
        return None if self.segment_length is None else max(1, int((1 - self.overlap) * self.segment_length))

    @property
    def rates(self) -> tuple[int, ...]:
        """Codes of every codebook in a frame."""
        return (1,) * self.n_q

    def samples(self, frames: int) -> int:
        """Samples that a whole signal of so many frames decodes to."""
        return frames * self.hop

    def frames(self, samples: int) -> list[int]:
        """Frames of codes in each segment of a signal."""
        if self.segment_length is None or self.segment_stride is None:
            return [-(-samples // self.hop)]
        return frames_of(samples, self.segment_length, self.segment_stride, self.hop)

    def codebooks(self, bandwidth: float) -> int:
        """Codebooks that a bandwidth in kbit/s pays for, at least 1."""
        return max(1, floor(bandwidth * 1000 / (log2(self.bins) * self.frame_rate)))

    def fitted(self, sample_rate: int, n_q: int) -> EncodecConfig:
        """At a rate in Hz with so many codebooks, and those of the bandwidths that they reach, or else what all take.

        Raises ArgumentError for an illegal one.
        """
        wide = replace(self, sample_rate=sample_rate, n_q=_MOST_CODEBOOKS)
        held = tuple(b for b in self.bandwidths if wide.codebooks(b) <= n_q)
        whole = (n_q * log2(self.bins) * wide.frame_rate / 1000,)
        return replace(wide, n_q=n_q, bandwidths=held or whole)


def _validate(c: EncodecConfig) -> None:
    def require(ok: bool, field: str, expected: str) -> None:
        if not ok:
            raise ArgumentError(f"EncodecConfig.{field}: got {getattr(c, field)!r}, expected {expected}")

    def integer(field: str, most: int) -> None:
        value = getattr(c, field)
        ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
        require(ok, field, f"an integer from 1 to {most}")

    integer("sample_rate", 1 << 20)
    integer("channels", 2)
    for field in ("n_filters", "dimension", "compress"):
        integer(field, _MOST_CHANNELS)
    for field in ("n_residual_layers", "lstm"):
        integer(field, _MOST_LAYERS)
    for field in ("kernel_size", "last_kernel_size", "residual_kernel_size"):
        integer(field, 1 << 10)
    integer("dilation_base", 16)
    integer("n_q", _MOST_CODEBOOKS)
    integer("bins", 1 << 20)
    require(c.bins > 1, "bins", "at least 2")
    for field in ("causal", "normalize", "conv_shortcut"):
        require(isinstance(getattr(c, field), bool), field, "true or false")
    require(c.norm in _NORMS, "norm", f"one of {', '.join(_NORMS)}")
    require(c.pad_mode in ("reflect", "replicate", "zeros"), "pad_mode", "reflect, replicate or zeros")
    ratios = all(isinstance(r, int) and 1 <= r <= 1 << 10 for r in c.ratios)
    require(ratios and 1 <= len(c.ratios) <= 8, "ratios", "1 to 8 integers from 1 to 1024")
    require(c.n_filters << len(c.ratios) <= _MOST_CHANNELS, "n_filters", f"no layer of over {_MOST_CHANNELS} channels")
    require(c.compress <= c.n_filters, "compress", f"at most the {c.n_filters} filters")
    require(0.0 <= c.trim_right_ratio <= 1.0, "trim_right_ratio", "a number from 0 to 1")
    require(c.causal or c.trim_right_ratio == 1.0, "trim_right_ratio", "1 for a network that is not causal")
    dilated = c.dilation_base ** (c.n_residual_layers - 1) * (c.residual_kernel_size - 1)
    require(dilated <= 1 << 16, "dilation_base", "a block that spans at most 65536 steps")
    require(c.segment is None or 0 < c.segment <= 3600, "segment", "seconds up to 3600, or None")
    require(c.segment_length is None or c.segment_length > 0, "segment", "at least one sample")
    require(0.0 <= c.overlap < 1.0, "overlap", "a number from 0, below 1")
    rates = all(0 < b < 1e6 for b in c.bandwidths) and list(c.bandwidths) == sorted(set(c.bandwidths))
    require(rates and bool(c.bandwidths), "bandwidths", "positive numbers, the smallest first")
    most = c.codebooks(c.bandwidths[-1])
    require(most <= c.n_q, "n_q", f"at least the {most} that {c.bandwidths[-1]} kbit/s takes")


ENCODEC_24K = EncodecConfig()
ENCODEC_48K = EncodecConfig(
    sample_rate=48000,
    channels=2,
    bandwidths=(3.0, 6.0, 12.0, 24.0),
    causal=False,
    norm="time_group_norm",
    normalize=True,
    segment=1.0,
    n_q=16,
)
