"""Vocos as drafts of Hugging Face Transformers have it (pull request 39403, not released): experimental.

`VocosModel` and `VocosFeatureExtractor` follow the latest draft, `VocosWithEncodecModel` an early one. Folders and hub
ids of the drafts and of the original package can be loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor

from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.compat.fixed import Fixed
from fastvoc.compat.outputs import ModelOutput
from fastvoc.compat.pretrained import PretrainedConfig, PretrainedModel
from fastvoc.compat.vocos import EncodecFeatures, codes_tensor, model_state
from fastvoc.compat.vocos_features import VocosFeatureExtractor
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.hub import download as hub
from fastvoc.models.vocos import BandwidthId, Vocos
from fastvoc.models.vocos_config import VocosConfig as ModelConfig

__all__ = [
    "VocosConfig",
    "VocosFeatureExtractor",
    "VocosModel",
    "VocosOutput",
    "VocosWithEncodecConfig",
    "VocosWithEncodecModel",
]

_EARLY_NAMES = {
    "input_channels": "n_mels",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "spec_padding": "istft_padding",
}
_C = TypeVar("_C", bound="VocosConfig")


@dataclass
class VocosConfig(PretrainedConfig):
    """The fields and defaults of the draft; names of early drafts are read, too."""

    model_type: ClassVar[str] = "vocos"

    n_mels: int = 100
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_layers: int = 8
    kernel_size: int = 7
    padding: int = 3
    layer_scale_init_value: float = 0.125
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"
    n_fft: int = 1024
    hop_length: int = 256
    istft_padding: str = "center"
    sampling_rate: int = 24000

    @classmethod
    def from_dict(cls: type[_C], values: dict[str, Any], **changes: Any) -> _C:
        """The configuration of these values, some of them changed."""
        return super().from_dict({_EARLY_NAMES.get(name, name): value for name, value in values.items()}, **changes)

    @classmethod
    def read(cls, folder: Path) -> dict[str, Any]:
        """The values of a draft's folder, or of the original package's. Raises LoadError."""
        if cls.describes(folder):
            return super().read(folder)
        config = detect_and_load(folder).config
        if not isinstance(config, ModelConfig):
            raise LoadError(f"{folder}: a {config.family} model, expected vocos")
        return cls._fields_of(config)

    @classmethod
    def _fields_of(cls, c: ModelConfig) -> dict[str, Any]:
        return {
            "n_mels": c.input_channels,
            "hidden_size": c.dim,
            "intermediate_size": c.intermediate_dim,
            "num_layers": c.num_layers,
            "kernel_size": c.kernel_size,
            "padding": c.kernel_size // 2,
            "layer_scale_init_value": 1.0 / c.num_layers if c.layer_scale else 0.0,
            "layer_norm_eps": c.layer_norm_eps,
            "n_fft": c.n_fft,
            "hop_length": c.hop_length,
            "istft_padding": c.padding,
            "sampling_rate": c.sample_rate,
        }

    def to_model(self, **further: Any) -> ModelConfig:
        """The configuration of fastvoc's model. Raises ArgumentError naming what is illegal."""
        if self.hidden_act != "gelu":
            raise ArgumentError(f"hidden_act: expected gelu, got {self.hidden_act!r}")
        if self.padding != self.kernel_size // 2:
            raise ArgumentError(f"padding: expected {self.kernel_size // 2} for kernels of {self.kernel_size}")
        return ModelConfig(
            sample_rate=self.sampling_rate,
            input_channels=self.n_mels,
            dim=self.hidden_size,
            intermediate_dim=self.intermediate_size,
            num_layers=self.num_layers,
            kernel_size=self.kernel_size,
            layer_norm_eps=self.layer_norm_eps,
            layer_scale=self.layer_scale_init_value > 0,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            padding=self.istft_padding,  # type: ignore[arg-type]  # checked there
            **further,
        )


@dataclass
class VocosWithEncodecConfig(VocosConfig):
    """The configuration of a model on EnCodec's codes."""

    model_type: ClassVar[str] = "vocos_with_encodec"

    n_mels: int = 128
    hidden_size: int = 384
    intermediate_size: int = 1152
    n_fft: int = 1280
    hop_length: int = 320
    istft_padding: str = "same"
    bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0)
    num_quantizers: int = 16
    codebook_size: int = 1024

    def __post_init__(self) -> None:
        self.bandwidths = tuple(self.bandwidths)  # a list in files

    @classmethod
    def _fields_of(cls, c: ModelConfig) -> dict[str, Any]:
        books = {"bandwidths": c.bandwidths, "num_quantizers": c.num_codebooks, "codebook_size": c.codebook_size}
        return {**super()._fields_of(c), **books}

    def to_model(self, **further: Any) -> ModelConfig:
        """The configuration of fastvoc's model. Raises ArgumentError naming what is illegal."""
        return super().to_model(
            adanorm_num_embeddings=len(self.bandwidths),
            bandwidths=tuple(self.bandwidths),
            num_codebooks=self.num_quantizers,
            codebook_size=self.codebook_size,
            **further,
        )


@dataclass(eq=False)
class VocosOutput(ModelOutput):
    """audio [B, S]; attention_mask as it came in, to cut padding off the audio."""

    audio: Tensor | None = None
    attention_mask: Tensor | None = None


class _VocosPretrained(PretrainedModel):
    """A model whose state has the names of a draft; `load_state_dict` takes those of any."""

    families = ("vocos",)
    draft_names: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(self, config: Any, model: Vocos, names: dict[str, str] | None = None) -> None:
        super().__init__(config, model, names)
        self._fixed = Fixed(config)

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Takes the weights of a checkpoint. Raises LoadError when it is of another kind or size."""
        wanted = {name: tuple(tensor.shape) for name, tensor in self._model.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint.state.items()}
        for name in sorted(set(wanted) | set(found)):
            if wanted.get(name) != found.get(name):
                sizes = f"{list(found.get(name, ()))}, {type(self).__name__} with this configuration has"
                raise LoadError(f"tensor {name!r}: the files have {sizes} {list(wanted.get(name, ()))}")
        super().adopt(checkpoint)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """As `torch.nn.Module.state_dict`."""
        state = {**super().state_dict(*args, **kwargs), "head.window": self._model.head.istft.window}
        return {self._draft_name(name): tensor for name, tensor in state.items()}

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Constants and a whole EnCodec are left out."""
        return model_state(state, self._model.config)

    def _draft_name(self, name: str) -> str:
        for pattern, replacement in self.draft_names:
            name = re.sub(pattern, replacement, name)
        return name


class VocosModel(_VocosPretrained):
    """Log-mel in, waveform out; random weights when made of a configuration."""

    config_class = VocosConfig
    main_input_name = "input_features"
    draft_names = (
        (r"^backbone\.", ""),
        (r"^convnext\.", "layers."),
        (r"\.gamma$", ".layer_scale_parameter"),
        (r"^head\.", "decoder."),
    )

    def __init__(self, config: VocosConfig) -> None:
        config = VocosConfig.of(config)
        super().__init__(config, Vocos(config.to_model()))

    def forward(
        self, input_features: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> VocosOutput | tuple[Any, ...]:
        """Log-mel to waveform.

        Args:
            input_features: [B, n_mels, T] log-mel; early drafts call it `features`.
            attention_mask: not used, comes back in the output.
            kwargs: `return_dict=False` gives a tuple; others have no effect.

        Raises ShapeError or DtypeError naming an argument that does not fit, ArgumentError for a configuration that was
        changed after the model was made.
        """
        self._fixed.check(self.config)
        features = kwargs.get("features") if input_features is None else input_features
        if features is None:
            raise ArgumentError("input_features: expected a log-mel [B, n_mels, T], got None")
        output = VocosOutput(self._model(features)[:, 0], attention_mask)
        return output.to_tuple() if kwargs.get("return_dict") is False else output


class VocosWithEncodecModel(_VocosPretrained):
    """EnCodec's codes, or audio that becomes them, in, waveform out; random weights when made of a configuration.

    Set `encodec` to a `fastvoc.Codec` or to EnCodec's module before audio comes; else the published one is loaded then.
    Codes need none.
    """

    config_class = VocosWithEncodecConfig
    main_input_name = "audio"
    draft_names = (
        (r"^backbone\.convnext\.", "backbone.layers."),
        (r"\.gamma$", ".layer_scale_parameter"),
        (r"^head\.out\.", "head.out_proj."),
        (r"^codebooks\.", ""),
    )

    def __init__(self, config: VocosWithEncodecConfig) -> None:
        config = VocosWithEncodecConfig.of(config)
        model = Vocos(config.to_model())
        super().__init__(config, model, {"feature_extractor": "codebooks"})
        self._front = EncodecFeatures(model)

    def reached(self, files: hub.Options) -> None:
        """Fetches EnCodec only where the model's own files might be."""
        self._front.local_files_only = files.local_files_only

    @property
    def num_quantizers(self) -> int:
        """Codebooks of the model."""
        return int(self.config.num_quantizers)

    @property
    def encodec(self) -> Any:
        """What makes codes of audio, None before it is needed."""
        return self._front.encodec

    @encodec.setter
    def encodec(self, value: Any) -> None:
        self._front.encodec = value

    def forward(
        self,
        bandwidth_id: BandwidthId,
        audio: Tensor | None = None,
        codes: Tensor | np.ndarray[Any, Any] | None = None,
        return_codes: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Codes or audio to waveform.

        Args:
            bandwidth_id: which of the configuration's bandwidths, a number or a tensor of one; with codes also one for
                each item [B].
            audio: [B, S] samples; has precedence over codes.
            codes: [K, T] or [K, B, T] of any integer type.
            return_codes: also give the codes [K, B, T].

        Returns:
            [B, S'] samples, or the samples and the codes.

        Raises:
            ArgumentError: neither audio nor codes, a bandwidth or a code that the model does not have, a configuration
                that was changed after the model was made.
            ShapeError, DtypeError: an argument that does not fit.
            LoadError: EnCodec cannot be had.
        """
        self._fixed.check(self.config)
        if audio is not None:
            row = self._model.rows(bandwidth_id, len(audio))
            if len(set(row.tolist())) != 1:
                raise ArgumentError(f"bandwidth_id: expected one bandwidth for all audio, got {row.tolist()}")
            codes = self._front.get_encodec_codes(audio, self.config.bandwidths[int(row[0])])
        elif codes is None:
            raise ArgumentError("audio, codes: expected one of them, got None")
        batch = codes_tensor(codes, next(self.parameters()).device)
        wav: Tensor = self._model.decode_codes(batch, bandwidth_id=bandwidth_id)[:, 0]
        return (wav, batch.transpose(0, 1)) if return_codes else wav
