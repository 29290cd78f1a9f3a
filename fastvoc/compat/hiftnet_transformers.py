"""HiFTNet as drafts of Hugging Face Transformers have it (pull request 38756, not released): experimental.

`HiFTNetModel` follows one draft, `HiFTNetVocoder` another. Folders and hub ids of both and of Chatterbox can be loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.checkpoints.hiftnet_transformers import canonical_name
from fastvoc.compat.chatterbox import ConvRNNF0Predictor, HiFTGenerator
from fastvoc.compat.fixed import Fixed
from fastvoc.compat.pretrained import PretrainedConfig, PretrainedModel, read_json
from fastvoc.errors import DtypeError, LoadError, ShapeError
from fastvoc.models.hift_config import HiftConfig

__all__ = ["HiFTNetConfig", "HiFTNetModel", "HiFTNetVocoder"]

_C = TypeVar("_C", bound="HiFTNetConfig")
_PREFIX = "hiftnet."


@dataclass
class HiFTNetConfig(PretrainedConfig):
    """The fields and defaults of the draft."""

    model_type: ClassVar[str] = "hiftnet"

    in_channels: int = 80
    base_channels: int = 512
    nb_harmonics: int = 8
    sampling_rate: int = 22050
    nsf_alpha: float = 0.1
    nsf_sigma: float = 0.003
    nsf_voiced_threshold: float = 10.0
    upsample_rates: Sequence[int] = (8, 8)
    upsample_kernel_sizes: Sequence[int] = (16, 16)
    istft_n_fft: int = 16
    istft_hop_len: int = 4
    resblock_kernel_sizes: Sequence[int] = (3, 7, 11)
    resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: Sequence[int] = (7, 11)
    source_resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_predictor_in_channels: int = 80
    f0_predictor_cond_channels: int = 512

    @classmethod
    def of_model(cls: type[_C], config: HiftConfig) -> _C:
        """The fields of one of fastvoc's configurations."""
        return cls(
            in_channels=config.num_mels,
            base_channels=config.base_channels,
            nb_harmonics=config.harmonics,
            sampling_rate=config.sample_rate,
            nsf_alpha=config.source_amp,
            nsf_sigma=config.noise_std,
            nsf_voiced_threshold=config.voiced_threshold,
            upsample_rates=config.upsample_rates,
            upsample_kernel_sizes=config.upsample_kernel_sizes,
            istft_n_fft=config.n_fft,
            istft_hop_len=config.istft_hop,
            resblock_kernel_sizes=config.resblock_kernel_sizes,
            resblock_dilation_sizes=config.resblock_dilation_sizes,
            source_resblock_kernel_sizes=config.source_resblock_kernel_sizes,
            source_resblock_dilation_sizes=config.source_resblock_dilation_sizes,
            lrelu_slope=config.leaky_relu_slope,
            audio_limit=0.99 if config.clamp is None else config.clamp,
            f0_predictor_in_channels=config.num_mels,
            f0_predictor_cond_channels=config.f0_channels,
        )

    @classmethod
    def describes(cls, folder: Path) -> bool:
        """Whether a folder's `config.json` is the draft's."""
        values = read_json(folder, "config.json") if super().describes(folder) else {}
        return "istft_n_fft" in values if values.get("model_type") is None else values["model_type"] == cls.model_type

    @classmethod
    def read(cls, folder: Path) -> dict[str, Any]:
        """The values of a draft's folder, or of Chatterbox's. Raises LoadError."""
        return super().read(folder) if cls.describes(folder) else cls.of_model(_hift(folder)).to_dict()


def _hift(folder: Path) -> HiftConfig:
    config = detect_and_load(folder).config
    if not isinstance(config, HiftConfig):
        raise LoadError(f"{folder}: a {config.family} model, expected hiftnet")
    HiFTGenerator.check_kind(folder, config)
    return config


class HiFTNetModel(PretrainedModel):
    """Log-mel in, waveform out; random weights when made of a configuration. The generator is Chatterbox's.

    Parameters carry the names of the draft, the generator's own under `hiftnet.`, with weight norm folded.
    """

    config_class: ClassVar[type[PretrainedConfig]] = HiFTNetConfig
    families = ("hiftnet",)
    main_input_name = "speech_feat"
    base_model_prefix: ClassVar[str] = "hiftnet"

    hiftnet: HiFTGenerator

    def __init__(self, config: Any) -> None:
        config = HiFTNetConfig.of(config)
        whole = nn.Module()
        whole.hiftnet = HiFTGenerator(
            in_channels=config.in_channels,
            base_channels=config.base_channels,
            nb_harmonics=config.nb_harmonics,
            sampling_rate=config.sampling_rate,
            nsf_alpha=config.nsf_alpha,
            nsf_sigma=config.nsf_sigma,
            nsf_voiced_threshold=config.nsf_voiced_threshold,
            upsample_rates=config.upsample_rates,
            upsample_kernel_sizes=config.upsample_kernel_sizes,
            istft_params={"n_fft": config.istft_n_fft, "hop_len": config.istft_hop_len},
            resblock_kernel_sizes=config.resblock_kernel_sizes,
            resblock_dilation_sizes=config.resblock_dilation_sizes,
            source_resblock_kernel_sizes=config.source_resblock_kernel_sizes,
            source_resblock_dilation_sizes=config.source_resblock_dilation_sizes,
            lrelu_slope=config.lrelu_slope,
            audio_limit=config.audio_limit,
            f0_predictor=ConvRNNF0Predictor(
                in_channels=config.f0_predictor_in_channels, cond_channels=config.f0_predictor_cond_channels
            ),
        )
        super().__init__(config, whole)
        self._fixed = Fixed(config)

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Takes the weights of a checkpoint. Raises LoadError when they are another kind of generator's."""
        HiFTGenerator.check_kind(checkpoint.format, checkpoint.config)
        self.hiftnet.load_state_dict(checkpoint.state, assign=True)

    def forward(self, speech_feat: Tensor, return_dict: bool | None = None) -> Tensor:
        """Samples [B, S] of a log-mel [B, T, in_channels]; `return_dict` has no effect, as upstream.

        This and `generate` raise ArgumentError for a configuration that was changed after the model was made.
        """
        self._fixed.check(self.config)
        _check_mel("speech_feat", speech_feat, self.config.in_channels, 2)
        wav: Tensor = self.hiftnet({"speech_feat": speech_feat}, self.device)[0]
        return wav

    def generate(self, speech_feat: Tensor, cache_source: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Samples [B, S] and source [B, 1, S] of a log-mel [B, in_channels, T].

        `cache_source` [B, 1, n] takes the place of the source's first n samples.
        """
        self._fixed.check(self.config)
        _check_mel("speech_feat", speech_feat, self.config.in_channels, 1)
        return self.hiftnet.inference(speech_feat, cache_source)


class HiFTNetVocoder(HiFTNetModel):
    """The other draft: a batch of mels with their lengths. Its names are taken by `load_state_dict` and from files."""

    main_input_name = "input_features"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_load_state_dict_pre_hook(_take)

    def forward(  # type: ignore[override]
        self, input_features: Tensor, input_lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-mels to waveforms.

        Args:
            input_features: [B, in_channels, T].
            input_lengths: [B] whole numbers, valid frames of each item; all when None.

        Returns:
            Samples [B, S], the valid ones of each item [B] int64 (None without lengths) and F0 [B, T] in Hz; beyond the
            lengths all is 0.

        Raises ShapeError, DtypeError and ArgumentError for an argument that does not fit.
        """
        self._fixed.check(self.config)
        _check_mel("input_features", input_features, self.config.in_channels, 1)
        model = self.hiftnet._model
        mel = input_features.to(self.dtype)
        lengths = None if input_lengths is None else torch.as_tensor(input_lengths, device="cpu")
        if lengths is not None:
            if lengths.is_floating_point() or lengths.dtype == torch.bool:
                raise DtypeError(f"input_lengths: expected whole numbers, got {lengths.dtype}")
            lengths = lengths.long()
        with torch.no_grad():
            f0: Tensor = model.predict_f0(mel, lengths)
        source = model.make_source(f0, lengths, seed=torch.randint(1 << 62, (len(mel),), device="cpu"))
        wav: Tensor = model.decode(mel, source, lengths)[:, 0]
        return wav, None if lengths is None else lengths * model.config.hop, f0


def _take(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before a state is loaded: the draft's names become the module's."""
    for name in [name for name in state if name.startswith(prefix)]:
        own = name[len(prefix) :]
        if not own.startswith(_PREFIX):
            state[f"{prefix}{_PREFIX}{canonical_name(own)}"] = state.pop(name)


def _check_mel(name: str, mel: Tensor, bands: int, axis: int) -> None:
    expected = f"[B, T, {bands}]" if axis == 2 else f"[B, {bands}, T]"
    if mel.dim() != 3 or mel.shape[axis] != bands or 0 in mel.shape:
        raise ShapeError(f"{name}: expected {expected} with B, T > 0, got {list(mel.shape)}")
