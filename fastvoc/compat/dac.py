"""The `dac` package (descript-audio-codec 1.0): `DAC` and `DACFile`, without audiotools: sounds are tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.dac import canonical_name
from fastvoc.codec import Codec
from fastvoc.compat.dac_quantizer import Quantizer
from fastvoc.compat.upstream import Upstream, folded
from fastvoc.dac_compression import compress_dac, decompress_dac
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.loading import SkipInit
from fastvoc.models.dac import Dac, DacConfig
from fastvoc.runtime.io import atomic_path
from fastvoc.sound.dac_file import DacFile, read_dac, write_dac

__all__ = ["DAC", "DACFile"]


class DACFile:
    """`.dac` files by their paths: `save(path, file)` and `load(path)` of a `fastvoc.sound.dac_file.DacFile`."""

    @staticmethod
    def load(path: str | os.PathLike[str]) -> DacFile:
        """Reads a file, of which nothing is executed. Raises DecodeError for one that is damaged or of another kind."""
        with Path(path).open("rb") as file:
            return read_dac(file)

    @staticmethod
    def save(path: str | os.PathLike[str], file: DacFile) -> Path:
        """Writes a file, whose name ends in .dac, at once or not at all; gives its path."""
        target = Path(path).with_suffix(".dac")
        with atomic_path(target) as temporary, temporary.open("wb") as stream:
            write_dac(stream, file)
        return target


class DAC(Upstream):
    """The codec under the package's names and signatures; random weights when made by its constructor.

    `quantizer` has `from_codes` and `from_latents`; `load_state_dict` takes the package's names, weight norm folded or
    not, and this module's own. Raises ArgumentError naming an illegal argument.
    """

    def __init__(
        self,
        encoder_dim: int = 64,
        encoder_rates: Sequence[int] = (2, 4, 8, 8),
        latent_dim: int | None = None,
        decoder_dim: int = 1536,
        decoder_rates: Sequence[int] = (8, 8, 4, 2),
        n_codebooks: int = 9,
        codebook_size: int = 1024,
        codebook_dim: int | Sequence[int] = 8,
        quantizer_dropout: bool | float = False,
        sample_rate: int = 44100,
    ) -> None:
        dims = codebook_dim if isinstance(codebook_dim, int) else tuple(codebook_dim)
        rates = tuple(encoder_rates), tuple(decoder_rates)
        config = DacConfig(
            sample_rate, encoder_dim, rates[0], latent_dim, decoder_dim, rates[1], n_codebooks, codebook_size, dims
        )
        super().__init__(Dac(config))
        self.quantizer = Quantizer(self._model.quantizer)
        self.encoder_dim, self.decoder_dim, self.latent_dim = encoder_dim, decoder_dim, config.latent
        self.encoder_rates, self.decoder_rates = list(rates[0]), list(rates[1])
        self.n_codebooks, self.codebook_size, self.codebook_dim = n_codebooks, codebook_size, codebook_dim
        self.quantizer_dropout = quantizer_dropout
        self.sample_rate, self.hop_length = sample_rate, config.hop

    @classmethod
    def load(cls, location: str | os.PathLike[str], *args: object, **kwargs: object) -> DAC:
        """The model of a `.pth` file of weights, in eval mode with its weights frozen; further arguments are ignored.

        Raises LoadError naming the file and what is wrong with it, as for a torch.package, which is code.
        """
        checkpoint = detect_and_load(location)
        if checkpoint.config.family != "dac":
            raise LoadError(f"{location}: a {checkpoint.config.family} model, expected dac")
        c = checkpoint.config
        with SkipInit():
            model = cls(
                c.encoder_dim,
                c.encoder_rates,
                c.latent,
                c.decoder_dim,
                c.decoder_rates,
                c.n_codebooks,
                c.codebook_size,
                c.codebook_dim,
                sample_rate=c.sample_rate,
            )
        model._model.load_state_dict(checkpoint.state, assign=True)
        return model.eval().requires_grad_(False)

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        stages = len(self.encoder_rates), len(self.decoder_rates)
        return without_ones(folded({canonical_name(name, *stages): tensor for name, tensor in state.items()}))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def preprocess(self, audio_data: Tensor, sample_rate: int | None) -> Tensor:
        """[B, 1, S] with zeros behind it up to whole frames. Raises ArgumentError for another rate than the model's."""
        if sample_rate not in (None, self.sample_rate):
            raise ArgumentError(f"sample_rate: expected {self.sample_rate} Hz like the model, got {sample_rate}")
        return torch.nn.functional.pad(audio_data, (0, -audio_data.shape[-1] % self.hop_length))

    def encode(
        self, audio_data: Tensor, n_quantizers: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """[B, 1, S] of whole frames -> z [B, D, T], codes [B, K, T], latents, commitment and codebook loss.

        Raises ShapeError, DtypeError or DeviceError for other audio.
        """
        made = self.quantizer.quantised(self._model.encoder(audio_data), n_quantizers)
        loss = made.errors.mean(1).sum()
        return made.z, made.codes, made.latents, loss, loss

    def decode(self, z: Tensor) -> Tensor:
        """[B, D, T] -> [B, 1, S]."""
        wav: Tensor = self._model.decoder(z.to(self._model.dtype))
        return wav

    def forward(
        self, audio_data: Tensor, sample_rate: int | None = None, n_quantizers: int | None = None
    ) -> dict[str, Tensor]:
        """Encodes and decodes: audio, at most as long as the input, z, codes, latents and the two losses by name."""
        z, codes, latents, commitment, codebook = self.encode(self.preprocess(audio_data, sample_rate), n_quantizers)
        return {
            "audio": self.decode(z)[..., : audio_data.shape[-1]],
            "z": z,
            "codes": codes,
            "latents": latents,
            "vq/commitment_loss": commitment,
            "vq/codebook_loss": codebook,
        }

    def compress(self, audio: Tensor, sample_rate: int | None = None, n_quantizers: int | None = None) -> DacFile:
        """What `DACFile.save` writes of a sound [C, S] or [S] on the CPU, at the model's rate.

        Raises ArgumentError for another rate; else as `fastvoc.dac_compression.compress_dac`.
        """
        self.preprocess(audio[..., :0], sample_rate)
        return compress_dac(self._codec, audio, n_quantizers)

    def decompress(self, obj: DacFile | str | os.PathLike[str]) -> Tensor:
        """The sound [C, S], at its own rate, of a file that is given or read. Raises DecodeError or ArgumentError."""
        file = obj if isinstance(obj, DacFile) else DACFile.load(obj)
        return decompress_dac(file, self._codec)[0]

    @property
    def _codec(self) -> Codec:
        return Codec(self._model, self._model.config)


def without_ones(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state whose Snakes' parameters may be [1, C, 1], with [C]."""
    return {name: t.flatten() if name.endswith(".alpha") else t for name, t in state.items()}
