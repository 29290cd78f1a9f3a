"""UnivNet of Hugging Face Transformers (5.23): configuration, model and feature extractor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvoc.compat.outputs import ModelOutput
from fastvoc.compat.pretrained import PretrainedConfig, PretrainedModel
from fastvoc.compat.univnet_features import UnivNetFeatureExtractor
from fastvoc.compat.upstream import WeightNormed
from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.models.univnet import UnivNet
from fastvoc.models.univnet import UnivNetConfig as GeneratorConfig

__all__ = ["UnivNetConfig", "UnivNetFeatureExtractor", "UnivNetModel", "UnivNetModelOutput"]


@dataclass
class UnivNetConfig(PretrainedConfig):
    """The fields and defaults of Transformers' class."""

    model_type: ClassVar[str] = "univnet"

    model_in_channels: int = 64
    model_hidden_channels: int = 32
    num_mel_bins: int = 100
    resblock_kernel_sizes: Sequence[int] = (3, 3, 3)
    resblock_stride_sizes: Sequence[int] = (8, 8, 4)
    resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 9, 27), (1, 3, 9, 27), (1, 3, 9, 27))
    kernel_predictor_num_blocks: int = 3
    kernel_predictor_hidden_channels: int = 64
    kernel_predictor_conv_size: int = 3
    kernel_predictor_dropout: float = 0.0
    initializer_range: float = 0.01
    leaky_relu_slope: float = 0.2
    return_dict: bool = True


@dataclass(eq=False)
class UnivNetModelOutput(ModelOutput):
    """waveforms [B, S]; waveform_lengths [B], what the padding mask says of each."""

    waveforms: Tensor | None = None
    waveform_lengths: Tensor | None = None


class UnivNetModel(WeightNormed, PretrainedModel):
    """Log-mel and noise in, waveform out; random weights when made of a configuration.

    Parameters carry Transformers' names; `load_state_dict` takes weight norm in either of torch's namings and folds it.
    Dropout belongs to training and is not applied. As in Transformers, `config.return_dict` is read in every call.
    """

    config_class = UnivNetConfig
    families = ("univnet",)
    main_input_name = "input_features"

    def __init__(self, config: Any) -> None:
        config = UnivNetConfig.of(config)
        generator = GeneratorConfig(
            num_mels=config.num_mel_bins,
            model_in_channels=config.model_in_channels,
            model_hidden_channels=config.model_hidden_channels,
            resblock_kernel_sizes=tuple(config.resblock_kernel_sizes),
            resblock_stride_sizes=tuple(config.resblock_stride_sizes),
            resblock_dilation_sizes=tuple(tuple(row) for row in config.resblock_dilation_sizes),
            kernel_predictor_num_blocks=config.kernel_predictor_num_blocks,
            kernel_predictor_hidden_channels=config.kernel_predictor_hidden_channels,
            kernel_predictor_conv_size=config.kernel_predictor_conv_size,
            leaky_relu_slope=config.leaky_relu_slope,
        )
        super().__init__(config, UnivNet(generator))
        self.num_kernels, self.leaky_relu_slope = len(generator.resblock_kernel_sizes), generator.leaky_relu_slope

    def forward(
        self,
        input_features: Tensor,
        noise_sequence: Tensor | None = None,
        padding_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> UnivNetModelOutput | tuple[Tensor, Tensor | None]:
        """Log-mel to waveform.

        Args:
            input_features: [B, T, num_mel_bins], or [T, num_mel_bins].
            noise_sequence: [B, T, model_in_channels], or [T, model_in_channels], standard normal; drawn by torch when
                None. A batch of one noise or one log-mel serves the whole batch of the other.
            padding_mask: [B, T] or [T], 1 where the input is no padding; the sum is returned as the lengths.
            generator: what the noise is drawn with.
            return_dict: a tuple comes back when False; the configuration's `return_dict` when None.
            kwargs: ignored, as upstream does.

        Raises ShapeError, DtypeError or DeviceError naming an argument that does not fit, ArgumentError where noise is
        to be drawn for another `config.model_in_channels` than the model was made for.
        """
        made = self._model.config
        mel = _batch(input_features, made.num_mels, "input_features")
        if noise_sequence is None:
            if self.config.model_in_channels != made.model_in_channels:
                wrong = f"expected {made.model_in_channels} as the model was made, got {self.config.model_in_channels}"
                raise ArgumentError(f"config.model_in_channels: {wrong}")
            size = (*mel.shape[:2], made.model_in_channels)
            noise = torch.randn(size, generator=generator, dtype=mel.dtype, device=mel.device)
        else:
            noise = _batch(noise_sequence, made.model_in_channels, "noise_sequence")
        batch = max(len(mel), len(noise))
        if noise.shape[1] != mel.shape[1] or {len(mel), len(noise)} - {1, batch}:
            raise ShapeError(f"noise_sequence: {list(noise.shape)} does not fit input_features {list(mel.shape)}")
        lengths = None
        if padding_mask is not None:
            mask = padding_mask if padding_mask.dim() != 1 else padding_mask[None]
            if len(mask) != batch:
                raise ShapeError(f"padding_mask: expected a batch of {batch}, got {list(padding_mask.shape)}")
            lengths = mask.sum(dim=1)
        wav = self._model(mel.expand(batch, -1, -1).mT, noise=noise.expand(batch, -1, -1).mT)[:, 0]
        if self.config.return_dict if return_dict is None else return_dict:
            return UnivNetModelOutput(wav, lengths)
        return wav, lengths


def _batch(value: Tensor, channels: int, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise DtypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dim() not in (2, 3) or value.shape[-1] != channels or 0 in value.shape:
        raise ShapeError(f"{name}: expected [B, T, {channels}] or [T, {channels}], got {list(value.shape)}")
    return value if value.dim() == 3 else value[None]
