"""The configuration of Mimi, and that of the published model."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from fastvoc.models.checks import positive, require, require_positive
from fastvoc.models.whole_codec import WholeSignals

# The published sizes are a hundredth of these; beyond them lies only a file made to exhaust memory.
_MOST_LAYERS, _MOST_CHANNELS, _MOST_CODEBOOKS = 256, 1 << 14, 1 << 10
_LIMITS = {
    "sample_rate": 1 << 20,
    "n_filters": _MOST_CHANNELS,
    "dimension": _MOST_CHANNELS,
    "n_residual_layers": 16,
    "kernel_size": 1 << 10,
    "last_kernel_size": 1 << 10,
    "residual_kernel_size": 1 << 10,
    "dilation_base": 16,
    "compress": _MOST_CHANNELS,
    "downsample": 64,
    "layers": _MOST_LAYERS,
    "heads": 1 << 10,
    "kv_heads": 1 << 10,
    "head_dim": 1 << 12,
    "hidden": 1 << 16,
    "window": 1 << 16,
    "n_q": _MOST_CODEBOOKS,
    "semantic": _MOST_CODEBOOKS,
    "bins": 1 << 20,
    "code_dimension": _MOST_CHANNELS,
}


@dataclass(frozen=True)
class MimiConfig(WholeSignals):
    """The codec's shape; what EnCodec has, too, in the names of `EncodecConfig`.

    `ratios` are those of the decoder, first to last; between the convolutions and the codes are a transformer on either
    side, `layers` of `heads` heads (of keys and values `kv_heads`) of `head_dim` channels and `hidden` channels between
    the linear layers, whose steps see `window` steps, themselves included; and a convolution that makes one frame of
    `downsample` steps. The first `semantic` of the `n_q` codebooks [bins, code_dimension] quantise a projection of the
    frame, the others what remains of another one. `projected`: whether there are projections; without, code_dimension
    is `dimension`.
    """

    family: ClassVar[str] = "mimi"

    sample_rate: int = 24000
    n_filters: int = 64
    dimension: int = 512
    ratios: tuple[int, ...] = (8, 6, 5, 4)
    n_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    conv_shortcut: bool = False
    pad_mode: str = "zeros"
    downsample: int = 2
    layers: int = 8
    heads: int = 8
    kv_heads: int = 8
    head_dim: int = 64
    hidden: int = 2048
    window: int = 250
    theta: float = 10000.0
    norm_eps: float = 1e-5
    n_q: int = 32
    semantic: int = 1
    bins: int = 2048
    code_dimension: int = 256
    projected: bool = True

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)

    @property
    def name(self) -> str:
        """What the model is called."""
        return "mimi"

    @property
    def hop(self) -> int:  # type: ignore[override]
        """Samples per frame of codes."""
        return prod(self.ratios) * self.downsample


def _validate(c: MimiConfig) -> None:
    require_positive(c, *_LIMITS)
    for field, most in _LIMITS.items():
        require(c, getattr(c, field) <= most, field, f"at most {most}")
    for field in ("conv_shortcut", "projected"):
        require(c, isinstance(getattr(c, field), bool), field, "true or false")
    require(c, c.pad_mode in ("zeros", "replicate"), "pad_mode", "zeros or replicate")
    ratios = positive(c.ratios) and len(c.ratios) <= 8 and max(c.ratios) <= 1 << 10
    require(c, ratios, "ratios", "1 to 8 integers from 1 to 1024")
    require(
        c, c.n_filters << len(c.ratios) <= _MOST_CHANNELS, "n_filters", f"no layer of over {_MOST_CHANNELS} channels"
    )
    require(c, c.compress <= c.n_filters, "compress", f"at most the {c.n_filters} filters")
    dilated = c.dilation_base ** (c.n_residual_layers - 1) * (c.residual_kernel_size - 1)
    require(c, dilated <= 1 << 16, "dilation_base", "a block that spans at most 65536 steps")
    require(c, c.heads % c.kv_heads == 0, "kv_heads", f"a divisor of the {c.heads} heads")
    require(c, c.head_dim % 2 == 0, "head_dim", "an even number")
    for field in ("theta", "norm_eps"):
        require(c, isinstance(getattr(c, field), float | int) and getattr(c, field) > 0, field, "a positive number")
    require(c, c.semantic < c.n_q, "semantic", f"fewer than the {c.n_q} codebooks")
    require(c, c.bins > 1, "bins", "at least 2")
    same = c.projected or c.code_dimension == c.dimension
    require(c, same, "code_dimension", f"the dimension, {c.dimension}, without projections")


MIMI = MimiConfig()
