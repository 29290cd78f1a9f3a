"""EnCodec as Hugging Face Transformers has it (5.23): configuration, model and feature extractor.

The classes take and return what theirs do; `from_pretrained` takes a folder or a hub id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn

from fastvoc.checkpoints.encodec import canonical_names, transformers_state
from fastvoc.compat.codebooks import Codebook, TransformersLayer
from fastvoc.compat.encodec import Quantizer, recut, whole_codes
from fastvoc.compat.encodec_config import EncodecConfig
from fastvoc.compat.encodec_features import EncodecFeatureExtractor
from fastvoc.compat.outputs import ModelOutput
from fastvoc.compat.pretrained import PretrainedModel
from fastvoc.compat.upstream import folded
from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.models.encodec import Encodec
from fastvoc.nn.rvq import ResidualVectorQuantizer

__all__ = [
    "EncodecConfig",
    "EncodecDecoderOutput",
    "EncodecEncoderOutput",
    "EncodecFeatureExtractor",
    "EncodecModel",
    "EncodecOutput",
]


@dataclass(eq=False)
class EncodecEncoderOutput(ModelOutput):
    """audio_codes [chunks, B, K, T] int64, audio_scales a list of [B, 1] or None, zero frames behind the last chunk."""

    audio_codes: Tensor | None = None
    audio_scales: list[Tensor | None] | None = None
    last_frame_pad_length: int | None = None


@dataclass(eq=False)
class EncodecDecoderOutput(ModelOutput):
    """audio_values [B, C, S]."""

    audio_values: Tensor | None = None


@dataclass(eq=False)
class EncodecOutput(ModelOutput):
    """audio_codes [chunks, B, K, T] int64, audio_values [B, C, S]."""

    audio_codes: Tensor | None = None
    audio_values: Tensor | None = None


class _Quantizer(Quantizer):
    """Transformers' methods know the frame rate; `layers[k].codebook.embed` is a codebook."""

    def __init__(self, quantizer: ResidualVectorQuantizer, frame_rate: int) -> None:
        super().__init__(quantizer)
        self.frame_rate, self.codebook_size, self.num_quantizers = frame_rate, self.bins, self.n_q
        self.layers = [TransformersLayer(Codebook(self.codebooks, k)) for k in range(self.n_q)]

    def get_num_quantizers_for_bandwidth(self, bandwidth: float | None = None) -> int:  # type: ignore[override]
        return super().get_num_quantizers_for_bandwidth(self.frame_rate, bandwidth)

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:  # type: ignore[override]
        n_q = min(self.get_num_quantizers_for_bandwidth(bandwidth), self.n_q)
        codes: Tensor = self._quantizer.encode(embeddings, n_q)
        return codes.transpose(0, 1)


class EncodecModel(PretrainedModel):
    """Transformers' `EncodecModel`; random weights when made of a configuration.

    `encoder`, `decoder` and `quantizer` (codes [K, B, T]) are there by themselves; `load_state_dict` takes states under
    Transformers' names, too. What Transformers reads of `config` in every call is read in every call: `normalize`,
    `chunk_length_s`, `overlap`, `sampling_rate` (for the chunks' length), `target_bandwidths` and `return_dict`.
    """

    config_class = EncodecConfig
    families = ("encodec",)
    main_input_name = "input_values"

    _model: Encodec

    def __init__(self, config: EncodecConfig) -> None:
        config = EncodecConfig.of(config)
        super().__init__(config, Encodec(config.to_codec()))
        self.quantizer = _Quantizer(self._model.quantizer, config.frame_rate)
        self.bits_per_codebook = int(log2(config.codebook_size))

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return folded(canonical_names(state))

    def written_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state under Transformers' names."""
        return transformers_state(folded(canonical_names(state)), self.config.to_codec())

    def _follow(self) -> None:
        c = self.config
        self._model.config = recut(self._model.config, c.normalize, c.chunk_length, c.overlap)

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        bandwidth: float | None = None,
        return_dict: bool | None = None,
    ) -> EncodecEncoderOutput | tuple[Tensor, list[Tensor | None], int]:
        """Samples to codes.

        Args:
            input_values: [B, C, S].
            padding_mask: [B, S] or [B, C, S], 0 where the input counts as silence.
            bandwidth: in kbit/s; the lowest when None.
            return_dict: False for a plain tuple; the configuration's word when None.

        Raises:
            ArgumentError: a bandwidth that the model does not have.
            ShapeError: another shape; or a length at which the last but one chunk has fewer frames than those before,
                which one tensor cannot hold (`EncodecFeatureExtractor` pads to lengths that have none).
        """
        codes, scales, missing = self._encode(input_values, padding_mask, bandwidth)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return codes, scales, missing
        return EncodecEncoderOutput(codes, scales, missing)

    def _encode(
        self, input_values: Tensor, padding_mask: Tensor | None, bandwidth: float | None
    ) -> tuple[Tensor, list[Tensor | None], int]:
        config = self.config
        bandwidth = config.target_bandwidths[0] if bandwidth is None else bandwidth
        if bandwidth not in config.target_bandwidths:
            known = ", ".join(f"{b:g}" for b in config.target_bandwidths)
            raise ArgumentError(f"bandwidth: expected one of {known} kbit/s, got {bandwidth!r}")
        self._follow()
        n_q = min(self.quantizer.get_num_quantizers_for_bandwidth(bandwidth), self.quantizer.n_q)
        if padding_mask is not None:
            mask = padding_mask.reshape(len(padding_mask), -1, padding_mask.shape[-1])
            input_values = mask.bool() * input_values
        segments, scale = self._model.encode(input_values, n_q)
        frames = [segment.shape[2] for segment in segments]
        if len(set(frames[:-1])) > 1:
            raise ShapeError(f"input_values: {input_values.shape[2]} samples make chunks of {frames} frames; pad them")
        missing = frames[0] - frames[-1]
        codes = torch.stack([nn.functional.pad(s, (0, frames[0] - s.shape[2])) for s in segments])
        scales = [None if scale is None else scale[:, i : i + 1] for i in range(len(segments))]
        return codes, scales, missing

    def decode(
        self,
        audio_codes: Tensor,
        audio_scales: Sequence[Tensor | None] | Tensor,
        padding_mask: Tensor | None = None,
        return_dict: bool | None = None,
        last_frame_pad_length: int | None = 0,
    ) -> EncodecDecoderOutput | tuple[Tensor]:
        """Codes to samples.

        Args:
            audio_codes: [chunks, B, K, T].
            audio_scales: what `encode` gave, one entry for each chunk.
            padding_mask: the result is cut to its last dimension.
            return_dict: as in `encode`.
            last_frame_pad_length: frames at the end of the last chunk that are none.

        Raises ShapeError, DtypeError or ArgumentError for codes that do not fit the model.
        """
        wav = self._decode(audio_codes, audio_scales, padding_mask, last_frame_pad_length)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return (wav,)
        return EncodecDecoderOutput(wav)

    def _decode(
        self,
        audio_codes: Tensor,
        audio_scales: Sequence[Tensor | None] | Tensor,
        padding_mask: Tensor | None,
        last_frame_pad_length: int | None,
    ) -> Tensor:
        audio_codes = whole_codes(audio_codes, "audio_codes")
        if audio_codes.dim() != 4 or 0 in audio_codes.shape or len(audio_scales) != len(audio_codes):
            got = f"{list(audio_codes.shape)} and {len(audio_scales)} scales"
            raise ShapeError(f"audio_codes: expected [chunks, B, K, T] and as many scales, got {got}")
        if self.config.chunk_length is None and len(audio_codes) != 1:
            raise ShapeError(f"audio_codes: expected one frame, got {len(audio_codes)}")
        self._follow()
        segments = list(audio_codes)
        segments[-1] = segments[-1][:, :, : segments[-1].shape[2] - (last_frame_pad_length or 0)]
        volumes = [scale.reshape(-1, 1) for scale in audio_scales if scale is not None]
        wav = self._model.decode(segments, torch.cat(volumes, 1) if volumes else None)
        return wav if padding_mask is None else wav[:, :, : padding_mask.shape[-1]]

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        bandwidth: float | None = None,
        audio_codes: Tensor | None = None,
        audio_scales: Sequence[Tensor | None] | None = None,
        return_dict: bool | None = None,
        last_frame_pad_length: int | None = 0,
    ) -> EncodecOutput | tuple[Tensor, Tensor]:
        """Encodes, unless codes and scales are given, and decodes; arguments and errors as `encode` and `decode`."""
        if (audio_codes is None) != (audio_scales is None):
            raise ArgumentError("audio_codes, audio_scales: expected both or neither")
        if audio_codes is None or audio_scales is None:
            audio_codes, audio_scales, last_frame_pad_length = self._encode(input_values, padding_mask, bandwidth)
        mask = input_values if padding_mask is None else padding_mask
        wav = self._decode(audio_codes, audio_scales, mask, last_frame_pad_length)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return audio_codes, wav
        return EncodecOutput(audio_codes, wav)
