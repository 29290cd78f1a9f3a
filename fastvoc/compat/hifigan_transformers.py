"""The HiFi-GANs of Hugging Face Transformers (5.23): `SpeechT5HifiGan`, `FastSpeech2ConformerHifiGan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fastvoc.checkpoints import Checkpoint
from fastvoc.compat.pretrained import PretrainedConfig, PretrainedModel, read_json
from fastvoc.compat.upstream import WeightNormed
from fastvoc.errors import DtypeError, LoadError, ShapeError
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.ops.activation import leaky_relu

__all__ = [
    "FastSpeech2ConformerHifiGan",
    "FastSpeech2ConformerHifiGanConfig",
    "SpeechT5HifiGan",
    "SpeechT5HifiGanConfig",
]

_DILATIONS = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
_COMBINED = "vocoder_config"
_C = TypeVar("_C", bound="_HifiGanConfig")


class _HifiGanConfig(PretrainedConfig):
    """A configuration that may be a part of `FastSpeech2ConformerWithHifiGan`'s."""

    @classmethod
    def read(cls, folder: Path) -> dict[str, Any]:
        values = read_json(folder, "config.json")
        return values if _COMBINED in values else super().read(folder)

    @classmethod
    def from_dict(cls: type[_C], values: dict[str, Any], **changes: Any) -> _C:
        """The configuration of these values, or of the vocoder's among them, some of them changed."""
        own = values.get(_COMBINED, values)
        if not isinstance(own, dict):
            raise LoadError(f"config.json: field {_COMBINED!r}: expected an object, got {type(own).__name__}")
        return super().from_dict(own, **changes)


@dataclass
class SpeechT5HifiGanConfig(_HifiGanConfig):
    """The fields and defaults of Transformers' class."""

    model_type: ClassVar[str] = "speecht5_hifigan"

    model_in_dim: int = 80
    sampling_rate: int = 16000
    upsample_initial_channel: int = 512
    upsample_rates: Sequence[int] = (4, 4, 4, 4)
    upsample_kernel_sizes: Sequence[int] = (8, 8, 8, 8)
    resblock_kernel_sizes: Sequence[int] = (3, 7, 11)
    resblock_dilation_sizes: Sequence[Sequence[int]] = _DILATIONS
    initializer_range: float = 0.01
    leaky_relu_slope: float = 0.1
    normalize_before: bool = True
    return_dict: bool = True


@dataclass
class FastSpeech2ConformerHifiGanConfig(_HifiGanConfig):
    """The fields and defaults of Transformers' class."""

    model_type: ClassVar[str] = "fastspeech2_conformer_hifigan"

    model_in_dim: int = 80
    upsample_initial_channel: int = 512
    upsample_rates: Sequence[int] = (8, 8, 2, 2)
    upsample_kernel_sizes: Sequence[int] = (16, 16, 4, 4)
    resblock_kernel_sizes: Sequence[int] = (3, 7, 11)
    resblock_dilation_sizes: Sequence[Sequence[int]] | None = None
    initializer_range: float = 0.01
    leaky_relu_slope: float = 0.1
    normalize_before: bool = True
    return_dict: bool = True

    def __post_init__(self) -> None:
        if self.resblock_dilation_sizes is None:
            self.resblock_dilation_sizes = _DILATIONS


class SpeechT5HifiGan(WeightNormed, PretrainedModel):
    """Log-mel in, waveform out; random weights when made of a configuration.

    Parameters carry Transformers' names: `conv_pre`, `upsampler.{i}`, `resblocks.{n}`, `conv_post`; buffers `mean` and
    `scale` [model_in_dim]. `load_state_dict` takes weight norm in either of torch's namings and folds it. As in
    Transformers, `config.normalize_before` and, in front of the upsamplers, `config.leaky_relu_slope` are read in every
    call.
    """

    config_class: ClassVar[type[PretrainedConfig]] = SpeechT5HifiGanConfig
    families = ("hifigan",)
    main_input_name = "spectrogram"

    mean: Tensor
    scale: Tensor

    def __init__(self, config: Any) -> None:
        config = self.config_class.of(config)
        generator = HifiGanConfig(
            sample_rate=getattr(config, "sampling_rate", 22050),
            num_mels=config.model_in_dim,
            upsample_rates=tuple(config.upsample_rates),
            upsample_kernel_sizes=tuple(config.upsample_kernel_sizes),
            upsample_initial_channel=config.upsample_initial_channel,
            resblock_kernel_sizes=tuple(config.resblock_kernel_sizes),
            resblock_dilation_sizes=tuple(tuple(row) for row in config.resblock_dilation_sizes),
            leaky_relu_slope=config.leaky_relu_slope,
        )
        super().__init__(config, HifiGan(generator), {"ups": "upsampler"})
        self.num_kernels, self.num_upsamples = len(config.resblock_kernel_sizes), len(config.upsample_rates)
        self._slope = config.leaky_relu_slope
        self.register_buffer("mean", torch.zeros(config.model_in_dim))
        self.register_buffer("scale", torch.ones(config.model_in_dim))

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Takes the weights of a checkpoint, and its statistics if it has any."""
        state = {name.replace("ups.", "upsampler.", 1): tensor for name, tensor in checkpoint.state.items()}
        bands: int = self.config.model_in_dim
        kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
        absent: dict[str, Tensor] = {"mean": torch.zeros(bands, **kind), "scale": torch.ones(bands, **kind)}
        self.load_state_dict({**absent, **state}, assign=True)

    def _follow(self) -> None:
        slope = self.config.leaky_relu_slope
        if slope != self._slope:
            for up in self._model.ups:
                up.activate(leaky_relu(slope))
            self._slope = slope

    def forward(self, spectrogram: Tensor, **kwargs: object) -> Tensor:
        """Log-mel to waveform.

        Args:
            spectrogram: [B, T, model_in_dim], or [T, model_in_dim].
            kwargs: ignored, as upstream does.

        Returns:
            [B, S] or [S] samples in (-1, 1).

        Raises ShapeError or DtypeError for a spectrogram that does not fit.
        """
        if not isinstance(spectrogram, Tensor):
            raise DtypeError(f"spectrogram: expected a torch.Tensor, got {type(spectrogram).__name__}")
        bands = self._model.config.num_mels
        if spectrogram.dim() not in (2, 3) or spectrogram.shape[-1] != bands or 0 in spectrogram.shape:
            got = list(spectrogram.shape)
            raise ShapeError(f"spectrogram: expected [B, T, {bands}] or [T, {bands}] with B, T > 0, got {got}")
        self._follow()
        if self.config.normalize_before:
            spectrogram = (spectrogram - self.mean) / self.scale
        batch = spectrogram if spectrogram.dim() == 3 else spectrogram[None]
        wav: Tensor = self._model(batch.mT)[:, 0]
        return wav if spectrogram.dim() == 3 else wav[0]


class FastSpeech2ConformerHifiGan(SpeechT5HifiGan):
    """As `SpeechT5HifiGan`, with the defaults of FastSpeech2Conformer: 22.05 kHz, 256 samples per frame."""

    config_class = FastSpeech2ConformerHifiGanConfig
