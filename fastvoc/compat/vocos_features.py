"""The feature extractor of Vocos as a draft of Hugging Face Transformers has it: experimental."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.checkpoints import detect_and_load
from fastvoc.compat.outputs import BatchFeature
from fastvoc.compat.pretrained import PretrainedExtractor
from fastvoc.errors import ArgumentError, LoadError, ShapeError
from fastvoc.sound.mel import VOCOS_24K, MelConfig, MelSpectrogram

_PADDED = (True, "longest", "max_length")


class VocosFeatureExtractor(PretrainedExtractor):
    """The draft's `VocosFeatureExtractor`: sounds to `input_features` [B, num_mel_bins, T] and `attention_mask` [B, S].

    Its arguments are attributes of the same name.
    """

    model_input_names = ("input_features", "attention_mask")

    def __init__(
        self,
        feature_size: int = 100,
        sampling_rate: int = 24000,
        num_mel_bins: int = 100,
        n_fft: int = 1024,
        hop_length: int = 256,
        padding: str = "center",
        padding_value: float = 0.0,
        return_attention_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        if padding not in ("center", "same"):
            raise ArgumentError(f"padding: expected center or same, got {padding!r}")
        self.feature_size, self.sampling_rate, self.num_mel_bins = feature_size, sampling_rate, num_mel_bins
        self.n_fft, self.win_length, self.hop_length = n_fft, n_fft, hop_length
        self.padding, self.padding_value, self.return_attention_mask = padding, padding_value, return_attention_mask
        for name, value in kwargs.items():
            setattr(self, name, value)
        self._config = MelConfig(
            sampling_rate,
            n_fft,
            n_fft,
            hop_length,
            num_mel_bins,
            scale=VOCOS_24K.scale,
            norm=VOCOS_24K.norm,
            floor=VOCOS_24K.floor,
            magnitude_eps=VOCOS_24K.magnitude_eps,
            pad="center" if padding == "center" else "reflect_hop",
        )

    @classmethod
    def from_model(cls, folder: Path) -> dict[str, Any]:
        """The front end that the model was trained with. Raises LoadError when its files do not say."""
        mel = detect_and_load(folder).config.mel
        if mel is None:
            raise LoadError(f"{folder}: does not say which front end the model was trained with")
        own = {"sampling_rate": mel.sample_rate, "n_fft": mel.n_fft, "hop_length": mel.hop_length}
        own |= {"feature_size": mel.n_mels, "num_mel_bins": mel.n_mels}
        return {**own, "padding": "center" if mel.pad == "center" else "same"}

    def __call__(
        self,
        audio: Any,
        padding: bool | str | None = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        truncation: bool | None = False,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
    ) -> BatchFeature:
        """Makes a batch.

        Args:
            audio: one mono sound [S] or a list of them, numpy arrays or tensors.
            padding: True or "longest", "max_length", False.
            max_length: samples, for truncation and padding to it.
            pad_to_multiple_of: round the length up to a multiple of so many samples; the hop for several sounds.
            truncation: cut to `max_length`.
            sampling_rate: of the sounds; another than the model's raises, none gives a warning.
            return_tensors: "np" for numpy arrays; else tensors.
            device: where the tensors go.

        Raises ArgumentError or ShapeError naming the argument.
        """
        if sampling_rate is None:
            warnings.warn(f"sampling_rate: not given, taken for {self.sampling_rate} Hz", UserWarning, stacklevel=2)
        elif sampling_rate != self.sampling_rate:
            raise ArgumentError(f"sampling_rate: expected {self.sampling_rate} Hz like the model, got {sampling_rate}")
        if padding and truncation:
            raise ArgumentError("padding, truncation: expected one of them, got both")
        if padding not in (*_PADDED, None, False, "do_not_pad"):
            raise ArgumentError(f"padding: expected True, False, longest, max_length or do_not_pad, got {padding!r}")
        if return_tensors not in (None, "pt", "np"):
            raise ArgumentError(f"return_tensors: expected pt, np or None, got {return_tensors!r}")
        if max_length is None and (truncation or padding == "max_length"):
            raise ArgumentError("max_length: truncation and padding to it need it")
        sounds = [sound[:max_length] for sound in _sounds(audio)] if truncation else _sounds(audio)
        batch, mask = self._padded(
            sounds, padding in _PADDED, max_length if padding == "max_length" else None, pad_to_multiple_of
        )
        result = {
            "input_features": MelSpectrogram(self._config)(batch.to(device or batch.device)),
            "attention_mask": mask,
        }
        if return_tensors == "np":
            return BatchFeature({name: value.cpu().numpy() for name, value in result.items()})
        return BatchFeature(result)

    def _padded(
        self, sounds: list[Tensor], pad: bool, target: int | None, multiple: int | None
    ) -> tuple[Tensor, Tensor]:
        """The sounds as one batch, and their mask as long as what the transform sees."""
        longest = max(map(len, sounds))
        if not pad and min(map(len, sounds)) < longest:
            raise ShapeError("padding: the sounds have different lengths; pass padding=True")
        if pad:
            if multiple is None and len(sounds) > 1:
                multiple = self.hop_length
            longest = max(longest, target or 0)
            longest = longest if multiple is None else -(-longest // multiple) * multiple
        rows = [F.pad(sound, (0, longest - len(sound)), value=self.padding_value) for sound in sounds]
        masks = [F.pad(sound.new_ones(len(sound), dtype=torch.int32), (0, longest - len(sound))) for sound in sounds]
        side = (self.win_length - self.hop_length) // 2 if self.padding == "same" else 0
        return torch.stack(rows), F.pad(torch.stack(masks), (side, side))


def _sounds(audio: Any) -> list[Tensor]:
    """Every sound as [S]."""
    if isinstance(audio, list | tuple) and not audio:
        raise ShapeError("audio: expected at least one sound, got an empty list")
    several = isinstance(audio, list | tuple) and isinstance(audio[0], np.ndarray | Tensor | list | tuple)
    several = several or (isinstance(audio, np.ndarray | Tensor) and audio.ndim == 2)
    given = [s.astype(np.float32) if isinstance(s, np.ndarray) else s for s in (audio if several else [audio])]
    sounds = [torch.as_tensor(sound, dtype=torch.float32, device="cpu") for sound in given]
    for sound in sounds:
        if sound.dim() != 1 or not len(sound):
            raise ShapeError(f"audio: expected mono sounds [S > 0], got {list(sound.shape)}")
    return sounds
