"""DAC as Hugging Face Transformers has it (5.24): configuration, model and feature extractor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2, prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from fastvoc.checkpoints.dac import from_transformers
from fastvoc.checkpoints.text import Fields
from fastvoc.compat.dac import without_ones
from fastvoc.compat.dac_quantizer import Quantizer
from fastvoc.compat.encodec_features import EncodecFeatureExtractor
from fastvoc.compat.outputs import ModelOutput
from fastvoc.compat.pretrained import PretrainedConfig, PretrainedModel
from fastvoc.compat.upstream import folded
from fastvoc.errors import ArgumentError, LoadError, ShapeError
from fastvoc.models.dac import Dac
from fastvoc.models.dac import DacConfig as CodecConfig

__all__ = [
    "DacConfig",
    "DacDecoderOutput",
    "DacEncoderOutput",
    "DacFeatureExtractor",
    "DacModel",
    "DacOutput",
]


@dataclass
class DacConfig(PretrainedConfig):
    """The fields and defaults of Transformers' `DacConfig`; the last three follow from the others."""

    model_type: ClassVar[str] = "dac"

    encoder_hidden_size: int = 64
    downsampling_ratios: Sequence[int] = (2, 4, 8, 8)
    decoder_hidden_size: int = 1536
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    quantizer_dropout: float = 0.0
    commitment_loss_weight: float = 0.25
    codebook_loss_weight: float = 1.0
    sampling_rate: int = 16000
    return_dict: bool = True
    upsampling_ratios: Sequence[int] | None = None
    hidden_size: int | None = None
    hop_length: int | None = None

    def __post_init__(self) -> None:
        self.upsampling_ratios = self.downsampling_ratios[::-1]
        self.hidden_size = self.encoder_hidden_size << len(self.downsampling_ratios)
        self.hop_length = prod(self.downsampling_ratios)

    @property
    def frame_rate(self) -> int:
        """Frames of codes per second."""
        return ceil(self.sampling_rate / prod(self.downsampling_ratios))

    def to_codec(self) -> CodecConfig:
        """The same for `fastvoc.models.dac`. Raises ArgumentError naming an illegal field."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in self.to_dict().items()}
        try:
            return from_transformers(Fields(values, Path("DacConfig")))
        except LoadError as error:
            raise ArgumentError(str(error)) from None


@dataclass(eq=False)
class DacEncoderOutput(ModelOutput):
    """loss [B], quantized_representation [B, D, T], audio_codes [B, K, T], projected_latents [B, K * dimensions, T]."""

    loss: Tensor | None = None
    quantized_representation: Tensor | None = None
    audio_codes: Tensor | None = None
    projected_latents: Tensor | None = None


@dataclass(eq=False)
class DacDecoderOutput(ModelOutput):
    """audio_values [B, S]."""

    audio_values: Tensor | None = None


@dataclass(eq=False)
class DacOutput(ModelOutput):
    """What `DacModel.encode` gives, and audio_values [B, S]."""

    loss: Tensor | None = None
    audio_values: Tensor | None = None
    quantized_representation: Tensor | None = None
    audio_codes: Tensor | None = None
    projected_latents: Tensor | None = None


class DacModel(PretrainedModel):
    """Transformers' `DacModel`; random weights when made of a configuration.

    `encoder`, `decoder` and `quantizer` (`from_codes`, `from_latents`) are there by themselves; `load_state_dict` takes
    Snakes' parameters of shape [1, C, 1], too. As in Transformers, `encode` pads nothing: `DacFeatureExtractor` does.
    The loss weights and `return_dict` of `config` are read in every call.
    """

    config_class = DacConfig
    families = ("dac",)
    main_input_name = "input_values"

    _model: Dac

    def __init__(self, config: DacConfig) -> None:
        config = DacConfig.of(config)
        bits = int(log2(config.codebook_size)) if config.codebook_size > 0 else 0
        if 1 << bits != config.codebook_size:
            raise ArgumentError(f"config.codebook_size: expected a power of two, got {config.codebook_size}")
        super().__init__(config, Dac(config.to_codec()))
        self.quantizer = Quantizer(self._model.quantizer)
        self.bits_per_codebook = bits

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return without_ones(folded(state))

    def written_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state as Transformers has it."""
        written = super().written_state(folded(state))
        return {name: t.reshape(1, -1, 1) if name.endswith(".alpha") else t for name, t in written.items()}

    def encode(
        self, input_values: Tensor, n_quantizers: int | None = None, return_dict: bool | None = None
    ) -> DacEncoderOutput | tuple[Tensor, Tensor, Tensor, Tensor]:
        """Samples [B, 1, S] to codes of all codebooks, or of the first `n_quantizers`.

        return_dict: False for a plain tuple; the configuration's word when None. Raises ShapeError, DtypeError or
        DeviceError for other audio.
        """
        values = self._encode(input_values, n_quantizers)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return values
        return DacEncoderOutput(*values)

    def _encode(self, input_values: Tensor, n_quantizers: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if input_values.dim() != 3 or input_values.shape[1] != 1:
            raise ShapeError(f"input_values: expected [B, 1, S], got {list(input_values.shape)}")
        made = self.quantizer.quantised(self._model.encoder(input_values), n_quantizers)
        weight = self.config.commitment_loss_weight + self.config.codebook_loss_weight
        # Upstream's errors are means over the batch.
        loss = (weight * made.errors.mean(1).sum()).expand(len(input_values))
        return loss, made.z, made.codes, made.latents

    def decode(
        self,
        quantized_representation: Tensor | None = None,
        audio_codes: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> DacDecoderOutput | tuple[Tensor]:
        """The latent [B, D, T], or codes [B, K, T], which come first, to samples [B, S].

        return_dict: as in `encode`. Raises ArgumentError for neither, ShapeError, DtypeError or ArgumentError for those
        that do not fit.
        """
        wav = self._decode(quantized_representation, audio_codes)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return (wav,)
        return DacDecoderOutput(wav)

    def _decode(self, z: Tensor | None, audio_codes: Tensor | None) -> Tensor:
        if audio_codes is not None:
            z = self.quantizer.from_codes(audio_codes)[0]
        if z is None:
            raise ArgumentError("quantized_representation, audio_codes: expected one of them")
        wav: Tensor = self._model.decoder(z.to(self._model.dtype))
        return wav[:, 0]

    def forward(
        self, input_values: Tensor, n_quantizers: int | None = None, return_dict: bool | None = None
    ) -> DacOutput | tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Encodes and decodes; arguments and errors as `encode`. audio_values are at most as long as the input."""
        loss, z, codes, latents = self._encode(input_values, n_quantizers)
        wav = self._decode(z, None)[:, : input_values.shape[-1]]
        if not (self.config.return_dict if return_dict is None else return_dict):
            return loss, wav, z, codes, latents
        return DacOutput(loss, wav, z, codes, latents)


class DacFeatureExtractor(EncodecFeatureExtractor):
    """Transformers' `DacFeatureExtractor`: mono sounds to `input_values` [B, 1, S] of whole frames, and `padding_mask`.

    The arguments are attributes of the same name; the call is that of `EncodecFeatureExtractor`.
    """

    model_input_names = ("input_values", "n_quantizers")
    chunk_length_s = overlap = None

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        hop_length: int = 512,
        padding_side: str = "right",
        return_attention_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            feature_size,
            sampling_rate,
            padding_value,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )
        del self.chunk_length_s, self.overlap  # of the class, and no values of this extractor
        self.hop_length = hop_length

    @classmethod
    def from_model(cls, folder: Path) -> dict[str, Any]:
        """What the model's own configuration says the extractor has to be. Raises LoadError."""
        c = DacConfig.from_pretrained(folder)
        return {"sampling_rate": c.sampling_rate, "hop_length": c.hop_length}

    def _padded_length(self, sounds: list[np.ndarray[Any, Any]], padding: bool | str, max_length: int | None) -> int:
        return -(-super()._padded_length(sounds, padding, max_length) // self.hop_length) * self.hop_length
