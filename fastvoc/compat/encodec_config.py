"""The configuration of EnCodec as Hugging Face Transformers has it (5.23)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2, prod
from pathlib import Path
from typing import ClassVar

from fastvoc.checkpoints.encodec import from_transformers
from fastvoc.checkpoints.text import Fields
from fastvoc.compat.pretrained import PretrainedConfig
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.encodec_config import EncodecConfig as CodecConfig


class Chunked:
    """The lengths of chunks in samples."""

    sampling_rate: int
    chunk_length_s: float | None
    overlap: float | None

    @property
    def chunk_length(self) -> int | None:
        """Samples of a whole chunk; None when signals are not cut."""
        return None if self.chunk_length_s is None else int(self.chunk_length_s * self.sampling_rate)

    @property
    def chunk_stride(self) -> int | None:
        """Samples from the beginning of a chunk to that of the next."""
        if self.chunk_length is None or self.overlap is None:
            return None
        return max(1, int((1.0 - self.overlap) * self.chunk_length))


@dataclass
class EncodecConfig(Chunked, PretrainedConfig):
    """The fields and defaults of Transformers' `EncodecConfig`."""

    model_type: ClassVar[str] = "encodec"

    target_bandwidths: Sequence[float] = (1.5, 3.0, 6.0, 12.0, 24.0)
    sampling_rate: int = 24000
    audio_channels: int = 1
    normalize: bool = False
    chunk_length_s: float | None = None
    overlap: float | None = None
    hidden_size: int = 128
    num_filters: int = 32
    num_residual_layers: int = 1
    upsampling_ratios: Sequence[int] = (8, 5, 4, 2)
    norm_type: str = "weight_norm"
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: str = "reflect"
    compress: int = 2
    num_lstm_layers: int = 2
    trim_right_ratio: float = 1.0
    codebook_size: int = 1024
    codebook_dim: int | None = None
    use_conv_shortcut: bool = True
    return_dict: bool = True

    def __post_init__(self) -> None:
        self.codebook_dim = self.hidden_size if self.codebook_dim is None else self.codebook_dim

    @property
    def hop_length(self) -> int:
        """Samples per frame of codes."""
        return prod(self.upsampling_ratios)

    @property
    def codebook_nbits(self) -> int:
        """Bits per code."""
        return ceil(log2(self.codebook_size))

    @property
    def frame_rate(self) -> int:
        """Frames of codes per second."""
        return ceil(self.sampling_rate / self.hop_length)

    @property
    def num_quantizers(self) -> int:
        """Codebooks."""
        return int(1000 * self.target_bandwidths[-1] // (self.frame_rate * self.codebook_nbits))

    def to_codec(self) -> CodecConfig:
        """The same for `fastvoc.models.encodec`. Raises ArgumentError naming an illegal field."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in self.to_dict().items()}
        try:
            return from_transformers(Fields(values, Path("EncodecConfig")))
        except LoadError as error:
            raise ArgumentError(str(error)) from None

    @classmethod
    def of_codec(cls, config: CodecConfig) -> EncodecConfig:
        """The fields of a configuration of `fastvoc.models.encodec`."""
        return cls(
            target_bandwidths=list(config.bandwidths),
            sampling_rate=config.sample_rate,
            audio_channels=config.channels,
            normalize=config.normalize,
            chunk_length_s=config.segment,
            overlap=None if config.segment is None else config.overlap,
            hidden_size=config.dimension,
            num_filters=config.n_filters,
            num_residual_layers=config.n_residual_layers,
            upsampling_ratios=list(config.ratios),
            norm_type=config.norm,
            kernel_size=config.kernel_size,
            last_kernel_size=config.last_kernel_size,
            residual_kernel_size=config.residual_kernel_size,
            dilation_growth_rate=config.dilation_base,
            use_causal_conv=config.causal,
            pad_mode="constant" if config.pad_mode == "zeros" else config.pad_mode,
            compress=config.compress,
            num_lstm_layers=config.lstm,
            trim_right_ratio=config.trim_right_ratio,
            codebook_size=config.bins,
            use_conv_shortcut=config.conv_shortcut,
        )
