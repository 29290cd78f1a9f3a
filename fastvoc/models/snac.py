"""SNAC, codes at several rates (Siuzdak et al. 2024, arXiv 2410.14411; github.com/hubertsiuzdak/snac)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import lcm, prod
from typing import ClassVar

from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.models.checks import item_seeds, positive, require, require_positive, stream_seeds
from fastvoc.models.whole_codec import WholeCodec, WholeSignals
from fastvoc.nn.grouped import GroupedQuantizer
from fastvoc.nn.local_attention import HEAD
from fastvoc.nn.model import Given, Written
from fastvoc.nn.network import Network, Trace, Value
from fastvoc.nn.noise import NoiseSignal
from fastvoc.nn.snac import SnacDecoder, SnacEncoder
from fastvoc.nn.streams import ModelStream, NetworkStream
from fastvoc.ops.noise import noise_signal

# The published sizes are far below these; beyond them lies only a file made to exhaust memory.
_MOST_CHANNELS, _MOST_CODEBOOKS, _MOST_STRIDE = 1 << 14, 1 << 5, 1 << 10


@dataclass(frozen=True)
class SnacConfig(WholeSignals):
    """The codec's shape, in the names of the published `config.json` (`sample_rate` is its `sampling_rate`).

    Codebook k makes a code of `vq_strides[k]` steps of the latent. `latent_dim` None is what the encoder ends with, the
    only value there is. `attn_window_size` None: no attention.
    """

    family: ClassVar[str] = "snac"

    sample_rate: int = 44100
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (3, 3, 7, 7)
    latent_dim: int | None = None
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (7, 7, 3, 3)
    attn_window_size: int | None = 32
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: tuple[int, ...] = (8, 4, 2, 1)
    noise: bool = True
    depthwise: bool = True

    def __post_init__(self) -> None:
        self.freeze()
        _validate(self)
        object.__setattr__(self, "latent_dim", self.latent)

    @property
    def latent(self) -> int:
        """Channels between encoder, codebooks and decoder."""
        return self.encoder_dim << len(self.encoder_rates)

    @property
    def steps(self) -> int:
        """Steps of the latent in a frame: the fewest that codebooks and attention have whole."""
        return lcm(self.vq_strides[0], self.attn_window_size or 1)

    @property
    def hop(self) -> int:  # type: ignore[override]
        """Samples per frame."""
        return self.steps * prod(self.encoder_rates)

    @property
    def n_q(self) -> int:  # type: ignore[override]
        """Codebooks."""
        return len(self.vq_strides)

    @property
    def bins(self) -> int:  # type: ignore[override]
        """Entries of a codebook."""
        return self.codebook_size

    @property
    def rates(self) -> tuple[int, ...]:
        """Codes of every codebook in a frame, coarse first."""
        return tuple(self.steps // stride for stride in self.vq_strides)

    @property
    def noise_steps(self) -> tuple[int, ...]:
        """Steps of every stage's noise in a frame; none where the model has no noise."""
        rates = self.decoder_rates if self.noise else ()
        return tuple(self.steps * prod(rates[: i + 1]) for i in range(len(rates)))


def _validate(c: SnacConfig) -> None:
    require_positive(c, "sample_rate", "encoder_dim", "decoder_dim", "codebook_size", "codebook_dim")
    for name in ("encoder_rates", "decoder_rates"):
        rates = getattr(c, name)
        fits = positive(rates) and len(rates) <= 8 and max(rates) <= _MOST_STRIDE
        require(c, fits, name, f"1 to 8 integers from 1 to {_MOST_STRIDE}")
    require(c, prod(c.decoder_rates) == prod(c.encoder_rates), "decoder_rates", "as many samples as the encoder takes")
    require(c, c.latent <= _MOST_CHANNELS, "encoder_dim", f"no layer of over {_MOST_CHANNELS} channels")
    require(c, c.latent_dim in (None, c.latent), "latent_dim", f"{c.latent}, which the encoder ends with, or None")
    require(c, c.decoder_dim <= _MOST_CHANNELS, "decoder_dim", f"at most {_MOST_CHANNELS}")
    whole = c.decoder_dim % (1 << len(c.decoder_rates)) == 0
    require(c, whole, "decoder_dim", f"a multiple of {1 << len(c.decoder_rates)}, since each stage halves it")
    require(c, 2 <= c.codebook_size <= 1 << 20, "codebook_size", "2 to 2^20")
    require(c, c.codebook_dim <= _MOST_CHANNELS, "codebook_dim", f"at most {_MOST_CHANNELS}")
    strides = c.vq_strides
    fits = positive(strides) and len(strides) <= _MOST_CODEBOOKS and max(strides) <= _MOST_STRIDE
    require(c, fits, "vq_strides", f"1 to {_MOST_CODEBOOKS} integers from 1 to {_MOST_STRIDE}")
    window = c.attn_window_size
    require(c, window is None or (positive((window,)) and window <= 1 << 12), "attn_window_size", "1 to 4096, or None")
    require(c, all(c.steps % s == 0 for s in strides), "vq_strides", f"divisors of the {c.steps} steps of a frame")
    for name in ("noise", "depthwise"):
        require(c, isinstance(getattr(c, name), bool), name, "true or false")
    heads = window is None or (c.latent % HEAD == 0 and c.decoder_dim % HEAD == 0)
    require(c, heads, "decoder_dim", f"a multiple of {HEAD}, as the encoder's {c.latent}, for heads of that size")


SNAC_44K = SnacConfig()
SNAC_32K = SnacConfig(sample_rate=32000, encoder_rates=(2, 3, 8, 8), decoder_rates=(8, 8, 3, 2))
SNAC_24K = SnacConfig(
    sample_rate=24000,
    encoder_dim=48,
    encoder_rates=(2, 4, 8, 8),
    decoder_dim=1024,
    decoder_rates=(8, 8, 4, 2),
    attn_window_size=None,
    vq_strides=(4, 2, 1),
)


class Snac(WholeCodec):
    """The codec: samples to codes and back. Codes [B, rows, frames] are those of `fastvoc.models.levels`.

    A frame is what the coarse codebook and the attention's windows have whole. Parameters, weight norm folded and every
    Snake's alpha [C]: `encoder.block.{i}`, `decoder.block.{i}`, `quantizer.quantizers.{k}`.
    """

    decode_inputs = ("seed", "noise")
    config: SnacConfig

    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        self.config = config
        c, window, depthwise = config, config.attn_window_size, config.depthwise
        self.encoder = SnacEncoder(c.encoder_dim, c.encoder_rates, window=window, depthwise=depthwise)
        self.quantizer = GroupedQuantizer(c.codebook_size, c.codebook_dim, c.latent, c.vq_strides, c.steps)
        self.decoder = SnacDecoder(
            c.decoder_dim, c.decoder_rates, c.latent, window=window, depthwise=depthwise, noise=c.noise
        )

    def _encode(self, run: Trace, wav: Value, *, n_q: int) -> Value:
        return run(self.quantizer.encoding(n_q), self.encoder.network(run, wav))

    def _silent(self, run: Trace, codes: Value) -> Value:
        return self.decoder.network(run, run(self.quantizer.decoding, codes), lambda _, x: None)

    def _given(self, run: Trace, codes: Value, *noise: Value) -> Value:
        return self.decoder.given(run, run(self.quantizer.decoding, codes), *noise)

    def _seeded(self, run: Trace, codes: Value, seed: Value | None) -> Value:
        latent = run(self.quantizer.decoding, codes)
        return self.decoder.network(run, latent, lambda i, x: run(NoiseSignal(i), x, seed))

    def written(self, chosen: Collection[str] = ()) -> Written:
        """The decoder; "noise" stands for that of every stage, `noise_0` and so on."""
        self._choose(chosen, *["noise"] * self.config.noise)
        codes = {"codes": Given(("batch", sum(self.config.rates), "frames"), whole=True)}
        if "noise" in chosen:
            stages = range(len(self.config.noise_steps))
            return Written({**codes, **{f"noise_{i}": Given(("batch", 1, f"steps_{i}")) for i in stages}}, self._given)
        return Written(codes, self._drawn if self.config.noise else self._silent)

    def _drawn(self, run: Trace, codes: Value) -> Value:
        return self._seeded(run, codes, None)

    @property
    def decoding(self) -> Network:
        """The network from codes, and the seeds [B] of the noise where there is any, to samples."""
        return self.reading("_seeded", (1, 0)) if self.config.noise else self.reading("_silent")

    def decode_segment(
        self,
        codes: Tensor,
        volume: Tensor | None = None,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        seed: int | Sequence[int] | Tensor = 0,
        noise: Sequence[Tensor] | int | None = None,
    ) -> Tensor:
        """Codes to samples.

        Args:
            codes: [B, rows, T] int64.
            volume: None.
            lengths: [B] int64 on the CPU, valid frames of each item.
            backend: implementation to force for every op.
            seed: of the noise: an int, or one per item. Equal seeds give an item the same noise in any batch.
            noise: [B, 1, T_i] standard normal, any floating-point type, for every stage of the decoder; 0 for none;
                made from `seed` when None.

        Returns:
            [B, 1, T * hop] samples.

        Raises:
            ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        steps = self.config.noise_steps
        if noise is not None and not isinstance(noise, int | list | tuple):
            got = type(noise).__name__
            raise DtypeError(
                f"noise: expected 0, or a sequence of tensors, one for each of {len(steps)} stages, got {got}"
            )
        if isinstance(noise, int) and noise != 0:
            raise ArgumentError(f"noise: expected 0, or the noise of {len(steps)} stages, got {noise}")
        if not steps or isinstance(noise, int):
            return self.run(self.reading("_silent"), codes, lengths=lengths, backend=backend)
        if noise is None:
            seeds = item_seeds(seed, len(codes), codes.device)
            drawn = [noise_signal(seeds, n * codes.shape[2], 0, i) for i, n in enumerate(steps)]
        else:
            drawn = self._checked(noise, codes)
        values = [value.to(self.dtype) for value in drawn]
        return self.run(self.reading("_given", (1, *steps)), codes, *values, lengths=lengths, backend=backend)

    def _checked(self, noise: Sequence[Tensor], codes: Tensor) -> list[Tensor]:
        wanted = [[len(codes), 1, n * codes.shape[2]] for n in self.config.noise_steps]
        for value in noise:
            if not isinstance(value, Tensor):
                raise DtypeError(f"noise: expected tensors, got {type(value).__name__}")
        shapes = [list(value.shape) for value in noise]
        if shapes != wanted:
            raise ShapeError(f"noise: expected {wanted}, got {shapes}")
        for value in noise:
            if not value.is_floating_point():
                raise DtypeError(f"noise: expected floating-point values, got {value.dtype}")
            if value.device != codes.device:
                raise DeviceError(f"noise: expected tensors on {codes.device} like the codes, got {value.device}")
        return list(noise)

    def decode_stream(  # type: ignore[override]  # what `decode_inputs` says
        self,
        backend: str | None = None,
        *,
        seed: int | Sequence[int] | Tensor = 0,
        noise: int | None = None,
    ) -> ModelStream:
        """The decoder's state for codes [B, rows, n] that arrive in chunks; `noise` is None or 0."""
        if noise is not None and (not isinstance(noise, int) or noise != 0):
            raise ArgumentError("noise: a stream takes no given noise; expected 0 or None")
        if noise == 0 or not self.config.noise:
            return NetworkStream(self.reading("_silent"), backend)
        seeds = stream_seeds(seed, next(self.parameters()).device)
        return NetworkStream(self.decoding, backend, items={"seed": seeds})
