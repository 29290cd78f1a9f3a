"""DAC, the Descript Audio Codec (Kumar et al. 2023, arXiv 2306.06546; github.com/descriptinc/descript-audio-codec)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor

from fastvoc.models.checks import positive, require, require_positive
from fastvoc.models.whole_codec import WholeCodec, WholeSignals
from fastvoc.nn.dac import DacDecoder, DacEncoder, decode_unpadded
from fastvoc.nn.factorised import FactorisedQuantizer
from fastvoc.nn.network import Trace, Value

# The published sizes are far below these; beyond them lies only a file made to exhaust memory.
_MOST_CHANNELS, _MOST_CODEBOOKS, _MOST_STRIDE = 1 << 14, 1 << 8, 1 << 10


@dataclass(frozen=True)
class DacConfig(WholeSignals):
    """The codec's shape, in the names of the original constructor; the default is the published 44.1 kHz model.

    `latent_dim` None is what the encoder ends with. `codebook_dim` has one value for each codebook, or one for all.
    """

    family: ClassVar[str] = "dac"

    sample_rate: int = 44100
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    latent_dim: int | None = None
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 4, 2)
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int | tuple[int, ...] = 8

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)
        if self.latent_dim is None:
            object.__setattr__(self, "latent_dim", self.encoder_dim << len(self.encoder_rates))

    @property
    def latent(self) -> int:
        """Channels between encoder, codebooks and decoder."""
        assert self.latent_dim is not None
        return self.latent_dim

    @property
    def hop(self) -> int:  # type: ignore[override]
        """Samples per frame of codes."""
        return prod(self.encoder_rates)

    @property
    def n_q(self) -> int:  # type: ignore[override]
        """Codebooks."""
        return self.n_codebooks

    @property
    def bins(self) -> int:  # type: ignore[override]
        """Entries of a codebook."""
        return self.codebook_size

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Dimensions of every codebook."""
        dim = self.codebook_dim
        return dim if isinstance(dim, tuple) else (dim,) * self.n_codebooks

    def samples(self, frames: int) -> int:
        """Samples that so many frames decode to: every odd rate makes a step less than it has frames."""
        for rate in self.decoder_rates:
            frames = frames * rate - rate % 2
        return frames


def _validate(c: DacConfig) -> None:
    require_positive(
        c,
        "sample_rate",
        "encoder_dim",
        "decoder_dim",
        "n_codebooks",
        "codebook_size",
        *["latent_dim"] * bool(c.latent_dim),
    )
    for name in ("encoder_rates", "decoder_rates"):
        rates = getattr(c, name)
        fits = positive(rates) and len(rates) <= 8 and max(rates) <= _MOST_STRIDE
        require(c, fits, name, f"1 to 8 integers from 1 to {_MOST_STRIDE}")
    require(c, prod(c.decoder_rates) == prod(c.encoder_rates), "decoder_rates", "as many samples as the encoder takes")
    require(c, c.latent_dim is None or c.latent_dim <= _MOST_CHANNELS, "latent_dim", f"at most {_MOST_CHANNELS}")
    most = c.encoder_dim << len(c.encoder_rates)
    require(c, most <= _MOST_CHANNELS, "encoder_dim", f"no layer of over {_MOST_CHANNELS} channels")
    require(c, c.decoder_dim <= _MOST_CHANNELS, "decoder_dim", f"at most {_MOST_CHANNELS}")
    whole = c.decoder_dim % (1 << len(c.decoder_rates)) == 0
    require(c, whole, "decoder_dim", f"a multiple of {1 << len(c.decoder_rates)}, since each stage halves it")
    require(c, c.n_codebooks <= _MOST_CODEBOOKS, "n_codebooks", f"at most {_MOST_CODEBOOKS}")
    require(c, 2 <= c.codebook_size <= 1 << 20, "codebook_size", "2 to 2^20")
    dims = c.codebook_dim if isinstance(c.codebook_dim, tuple) else (c.codebook_dim,)
    fits = positive(dims) and max(dims) <= _MOST_CHANNELS and len(dims) in (1, c.n_codebooks)
    fits = fits and (len(dims) == c.n_codebooks or not isinstance(c.codebook_dim, tuple))
    require(c, fits, "codebook_dim", "a positive integer, or one for each codebook")


DAC_44K = DacConfig()
DAC_24K = DacConfig(sample_rate=24000, encoder_rates=(2, 4, 5, 8), decoder_rates=(8, 5, 4, 2), n_codebooks=32)
DAC_16K = DacConfig(sample_rate=16000, encoder_rates=(2, 4, 5, 8), decoder_rates=(8, 5, 4, 2), n_codebooks=12)


class Dac(WholeCodec):
    """The codec: samples to codes and back.

    Parameters carry the names of Transformers' `DacModel`, weight norm folded and every Snake's alpha [C]:
    `encoder.block.{i}`, `decoder.block.{i}`, `quantizer.quantizers.{k}`.
    """

    config: DacConfig

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = DacEncoder(config.encoder_dim, config.encoder_rates, config.latent)
        self.quantizer = FactorisedQuantizer(config.codebook_size, config.dimensions, config.latent)
        self.decoder = DacDecoder(config.decoder_dim, config.decoder_rates, config.latent)

    def decode_unpadded(self, codes: Tensor, backend: str | None = None) -> Tensor:
        """Codes [B, K, T] of a chunk -> samples [B, 1, S]: see `fastvoc.nn.dac.decode_unpadded`.

        Raises ShapeError where T is too small for anything to be left.
        """
        latent = self.quantizer.decoding(codes, backend=backend).to(self.dtype)
        return decode_unpadded(self.decoder, latent, backend)

    def _encode(self, run: Trace, wav: Value, *, n_q: int) -> Value:
        return run(self.quantizer.encoding(n_q), self.encoder.network(run, wav))

    def _decode(self, run: Trace, codes: Value) -> Value:
        return self.decoder.network(run, run(self.quantizer.decoding, codes))
