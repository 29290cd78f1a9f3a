"""Mimi as Hugging Face Transformers has it (5.24): configuration and model; its extractor is EnCodec's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2, prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvoc.checkpoints.mimi import canonical_names, from_transformers, transformers_state
from fastvoc.checkpoints.text import Fields
from fastvoc.compat.encodec import whole_codes
from fastvoc.compat.outputs import ModelOutput
from fastvoc.compat.pretrained import PretrainedConfig, PretrainedModel
from fastvoc.errors import ArgumentError, LoadError, ShapeError
from fastvoc.models.mimi import Mimi
from fastvoc.models.mimi_config import MimiConfig as CodecConfig
from fastvoc.nn.streams import ModelStream

__all__ = ["MimiCache", "MimiConfig", "MimiDecoderOutput", "MimiEncoderOutput", "MimiModel", "MimiOutput"]


@dataclass
class MimiConfig(PretrainedConfig):
    """The fields and defaults of Transformers' `MimiConfig`; `frame_rate` follows from the others where it is None."""

    model_type: ClassVar[str] = "mimi"

    sampling_rate: int = 24000
    audio_channels: int = 1
    hidden_size: int = 512
    num_filters: int = 64
    num_residual_layers: int = 1
    upsampling_ratios: Sequence[int] | None = None
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: str = "constant"
    compress: int = 2
    trim_right_ratio: float = 1.0
    codebook_size: int = 2048
    codebook_dim: int | None = 256
    num_quantizers: int = 32
    use_conv_shortcut: bool = False
    vector_quantization_hidden_dimension: int = 256
    num_semantic_quantizers: int = 1
    upsample_groups: int = 512
    num_hidden_layers: int = 8
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    num_key_value_heads: int = 8
    head_dim: int | None = None
    hidden_act: str = "gelu"
    max_position_embeddings: int = 8000
    initializer_range: float = 0.02
    norm_eps: float = 1e-5
    use_cache: bool = False
    use_streaming: bool = False
    rope_parameters: dict[str, Any] | None = None
    sliding_window: int = 250
    attention_dropout: float = 0.0
    layer_scale_initial_scale: float = 0.01
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    return_dict: bool = True
    frame_rate: float | None = None

    def __post_init__(self) -> None:
        self.upsampling_ratios = list(self.upsampling_ratios or (8, 6, 5, 4))
        self.codebook_dim = self.hidden_size if self.codebook_dim is None else self.codebook_dim
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        self.frame_rate = self.sampling_rate / self.frame_size if self.frame_rate is None else self.frame_rate

    @property
    def frame_size(self) -> int:
        """Samples per frame of codes."""
        return 2 * prod(self.upsampling_ratios or ())

    @property
    def encodec_frame_rate(self) -> int:
        """Steps of the transformers per second."""
        return ceil(self.sampling_rate / prod(self.upsampling_ratios or ()))

    @property
    def num_codebooks(self) -> int:
        """Codebooks."""
        return self.num_quantizers

    def to_codec(self) -> CodecConfig:
        """The same for `fastvoc.models.mimi`. Raises ArgumentError naming an illegal field."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in self.to_dict().items()}
        try:
            return from_transformers(Fields(values, Path("MimiConfig")))
        except LoadError as error:
            raise ArgumentError(str(error)) from None


class MimiCache:
    """What one direction of a model keeps of a signal that comes in pieces; calls advance it in place."""

    def __init__(self, stream: ModelStream, codebooks: int) -> None:
        self.stream, self.codebooks = stream, codebooks


@dataclass(eq=False)
class MimiEncoderOutput(ModelOutput):
    """audio_codes [B, K, T] int64; of a stream its cache, under both names."""

    audio_codes: Tensor | None = None
    encoder_cache: MimiCache | None = None
    padding_cache: MimiCache | None = None


@dataclass(eq=False)
class MimiDecoderOutput(ModelOutput):
    """audio_values [B, 1, S], and a stream's cache."""

    audio_values: Tensor | None = None
    decoder_cache: MimiCache | None = None


@dataclass(eq=False)
class MimiOutput(ModelOutput):
    """audio_codes [B, K, T] int64, audio_values [B, 1, S]."""

    audio_codes: Tensor | None = None
    audio_values: Tensor | None = None
    encoder_cache: MimiCache | None = None
    decoder_cache: MimiCache | None = None


class MimiModel(PretrainedModel):
    """Transformers' `MimiModel`; random weights when made of a configuration.

    `load_state_dict` takes states under Transformers' names, too. A stream's cache (`use_streaming`, `use_cache`) holds
    all that a half keeps of its signal: pieces of any length give what one call on the whole signal gives. The
    decoder's of Transformers holds keys and values only, so that its convolutions begin anew with every piece.
    """

    config_class = MimiConfig
    families = ("mimi",)
    main_input_name = "input_values"

    _model: Mimi

    def __init__(self, config: MimiConfig) -> None:
        config = MimiConfig.of(config)
        bits = int(log2(config.codebook_size)) if config.codebook_size > 0 else 0
        if 1 << bits != config.codebook_size:
            raise ArgumentError(f"config.codebook_size: expected a power of two, got {config.codebook_size}")
        super().__init__(config, Mimi(config.to_codec()))
        self.bits_per_codebook = bits

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return canonical_names(state)

    def written_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state under Transformers' names."""
        return transformers_state(canonical_names(state))

    def get_encoded_length(self, input_length: Tensor) -> Tensor:
        """Frames of codes that so many samples make."""
        return -(-input_length // self._model.config.hop)

    def get_audio_codes_mask(self, padding_mask: Tensor, padding_side: str = "right") -> Tensor:
        """Which codes stand for samples of a mask [B, S]: [B, T]."""
        frames = self.get_encoded_length(padding_mask.sum(-1))
        mask = torch.arange(int(frames.max()), device=padding_mask.device) < frames[:, None]
        return mask if padding_side == "right" else mask.flip(-1)

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        encoder_cache: MimiCache | None = None,
        padding_cache: MimiCache | None = None,
        use_streaming: bool | None = None,
        return_dict: bool | None = None,
    ) -> MimiEncoderOutput | tuple[Any, ...]:
        """Samples to codes.

        Args:
            input_values: [B, 1, S].
            padding_mask: has no effect, as in Transformers: cut the codes of each item to its own frames.
            num_quantizers: codebooks; all when None.
            encoder_cache, padding_cache: what the call on the piece before gave; one of them is enough.
            use_streaming: whether more pieces follow, for which the result has a cache; the configuration's word when
                None. The last frame is completed only without.
            return_dict: False for a plain tuple; the configuration's word when None.

        Raises:
            ShapeError, DtypeError: other audio.
            ArgumentError: a number of codebooks that the model or the stream does not have.
        """
        codes, cache = self._encode(input_values, num_quantizers, encoder_cache or padding_cache, use_streaming)
        output = MimiEncoderOutput(codes, cache, cache)
        return output if self._named(return_dict) else output.to_tuple()

    def _encode(
        self, wav: Tensor, count: int | None, cache: MimiCache | None, streaming: bool | None
    ) -> tuple[Tensor, MimiCache | None]:
        streaming = self.config.use_streaming if streaming is None else streaming
        count = self._model.config.n_q if count is None else count
        if not streaming and cache is None:
            return self._model.encode(wav, count)[0][0], None
        if wav.dim() != 3 or wav.shape[1] != 1 or not len(wav):
            raise ShapeError(f"input_values: expected [B > 0, 1, S], got {list(wav.shape)}")
        cache = MimiCache(self._model.encode_stream(count), count) if cache is None else cache
        if cache.codebooks != count:
            raise ArgumentError(f"num_quantizers: expected {cache.codebooks} as in the stream so far, got {count}")
        codes = cache.stream.step(wav.to(self._model.dtype), not streaming)
        return codes, cache if streaming else None

    def decode(
        self,
        audio_codes: Tensor,
        padding_mask: Tensor | None = None,
        decoder_cache: MimiCache | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> MimiDecoderOutput | tuple[Any, ...]:
        """Codes to samples.

        Args:
            audio_codes: [B, K, T], K up to all codebooks.
            padding_mask: the result is cut to its last dimension.
            decoder_cache: what the call on the piece before gave.
            use_cache: whether more pieces follow; as there is a `decoder_cache`, or as the configuration says, when
                None.
            return_dict: False for a plain tuple; the configuration's word when None.

        Raises ShapeError, DtypeError or ArgumentError for codes that do not fit the model or the stream.
        """
        wav, cache = self._decode(audio_codes, padding_mask, decoder_cache, use_cache)
        output = MimiDecoderOutput(wav, cache)
        return output if self._named(return_dict) else output.to_tuple()

    def _decode(
        self, codes: Tensor, mask: Tensor | None, cache: MimiCache | None, use_cache: bool | None
    ) -> tuple[Tensor, MimiCache | None]:
        codes = whole_codes(codes, "audio_codes")
        most = self._model.config.n_q
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= most or 0 in codes.shape:
            raise ShapeError(f"audio_codes: expected [B, 1..{most}, T], got {list(codes.shape)}")
        use_cache = (cache is not None or self.config.use_cache) if use_cache is None else use_cache
        if use_cache or cache is not None:
            cache = MimiCache(self._model.decode_stream(), codes.shape[1]) if cache is None else cache
            wav = cache.stream.step(codes, not use_cache)
        else:
            wav = self._model.decode([codes])
        return (wav if mask is None else wav[..., : mask.shape[-1]]), cache if use_cache else None

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        audio_codes: Tensor | None = None,
        encoder_cache: MimiCache | None = None,
        decoder_cache: MimiCache | None = None,
        return_dict: bool | None = None,
    ) -> MimiOutput | tuple[Any, ...]:
        """Encodes, unless codes are given, and decodes; arguments and errors as `encode` and `decode`."""
        if audio_codes is None:
            audio_codes, encoder_cache = self._encode(input_values, num_quantizers, encoder_cache, None)
        mask = input_values if padding_mask is None else padding_mask
        wav, decoder_cache = self._decode(audio_codes, mask, decoder_cache, None)
        output = MimiOutput(audio_codes, wav, encoder_cache, decoder_cache)
        return output if self._named(return_dict) else output.to_tuple()

    def _named(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict if return_dict is None else return_dict)
