"""The feature extractor of EnCodec as Hugging Face Transformers has it (5.23)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastvoc.compat.encodec_config import Chunked, EncodecConfig
from fastvoc.compat.outputs import BatchFeature
from fastvoc.compat.pretrained import PretrainedExtractor
from fastvoc.errors import ArgumentError, ShapeError


class EncodecFeatureExtractor(Chunked, PretrainedExtractor):
    """Transformers' `EncodecFeatureExtractor`: sounds to `input_values` [B, C, S] and `padding_mask` [B, S].

    With `chunk_length_s` and `overlap` the inputs are padded to a whole number of chunks. The arguments are attributes
    of the same name.
    """

    model_input_names = ("input_values", "padding_mask")

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        chunk_length_s: float | None = None,
        overlap: float | None = None,
        padding_side: str = "right",
        return_attention_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        if padding_side not in ("left", "right"):
            raise ArgumentError(f"padding_side: expected left or right, got {padding_side!r}")
        self.feature_size, self.sampling_rate, self.padding_value = feature_size, sampling_rate, padding_value
        self.chunk_length_s, self.overlap, self.padding_side = chunk_length_s, overlap, padding_side
        self.return_attention_mask = return_attention_mask
        for name, value in kwargs.items():
            setattr(self, name, value)

    @classmethod
    def from_model(cls, folder: Path) -> dict[str, Any]:
        """What the model's own configuration says the extractor has to be. Raises LoadError."""
        c = EncodecConfig.from_pretrained(folder)
        values = {"feature_size": c.audio_channels, "sampling_rate": c.sampling_rate}
        return {**values, "chunk_length_s": c.chunk_length_s, "overlap": c.overlap}

    def __call__(
        self,
        raw_audio: Any,
        padding: bool | str | None = None,
        truncation: bool | None = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Makes a batch.

        Args:
            raw_audio: one sound or a list of them: [S], or [2, S] for a stereo extractor.
            padding: True or "longest" (the default), "max_length", False.
            truncation: cut to `max_length`, or to the whole chunks of the shortest.
            max_length: samples.
            return_tensors: "pt", "np", or None for a list of arrays.
            sampling_rate: of the sounds; another than the model's raises, none gives a warning.

        Raises ArgumentError or ShapeError naming the argument.
        """
        if sampling_rate is None:
            warnings.warn(f"sampling_rate: not given, taken for {self.sampling_rate} Hz", UserWarning, stacklevel=2)
        elif sampling_rate != self.sampling_rate:
            raise ArgumentError(f"sampling_rate: expected {self.sampling_rate} Hz like the model, got {sampling_rate}")
        if padding and truncation:
            raise ArgumentError("padding, truncation: expected one of them, got both")
        if return_tensors not in (None, "pt", "np"):
            raise ArgumentError(f"return_tensors: expected pt, np or None, got {return_tensors!r}")
        padding = True if padding is None else padding
        sounds = self._sounds(raw_audio)
        length, stride = self.chunk_length, self.chunk_stride
        if length is not None and stride is not None and max_length is None:
            sizes = [len(sound) for sound in sounds]
            if truncation:  # whole chunks inside the shortest
                max_length = (min(sizes) // stride - 1) * stride + length
            elif padding:  # whole chunks around the longest
                max_length, padding = (-(-max(sizes) // stride) - 1) * stride + length, "max_length"
        if truncation and max_length is None:
            raise ArgumentError("max_length: truncation needs it")
        if truncation:
            sounds = [sound[:max_length] for sound in sounds]
        result: dict[str, Any] = {}
        if padding:
            sounds, result["padding_mask"] = self._padded(sounds, padding, max_length)
        result["input_values"] = [sound.T if sound.ndim == 2 else sound[None] for sound in sounds]
        if return_tensors is not None:
            result = {name: np.stack(value) for name, value in result.items()}
        if return_tensors == "pt":
            result = {name: torch.from_numpy(value) for name, value in result.items()}
        return BatchFeature(result)

    def _sounds(self, raw_audio: Any) -> list[np.ndarray[Any, Any]]:
        """Every sound as [S] or [S, C]."""
        if isinstance(raw_audio, list | tuple) and not raw_audio:
            raise ShapeError("raw_audio: expected at least one sound, got an empty list")
        several = isinstance(raw_audio, list | tuple) and isinstance(raw_audio[0], np.ndarray | list | tuple)
        sounds = []
        for sound in raw_audio if several else [raw_audio]:
            array = np.asarray(sound, np.float32)
            fits = array.ndim == 1 if self.feature_size == 1 else array.ndim == 2 and len(array) == self.feature_size
            if not fits:
                form = "[S], mono" if self.feature_size == 1 else f"[{self.feature_size}, S]"
                raise ShapeError(f"raw_audio: expected {form}, got {list(array.shape)}")
            sounds.append(array.T)
        return sounds

    def _padded_length(self, sounds: list[np.ndarray[Any, Any]], padding: bool | str, max_length: int | None) -> int:
        """Samples up to which sounds are padded."""
        if padding not in (True, "longest", "max_length"):
            raise ArgumentError(f"padding: expected True, False, longest or max_length, got {padding!r}")
        if padding == "max_length" and max_length is None:
            raise ArgumentError("max_length: padding to it needs it")
        longest = max(len(sound) for sound in sounds)
        return max_length if padding == "max_length" and max_length is not None else longest

    def _padded(
        self, sounds: list[np.ndarray[Any, Any]], padding: bool | str, max_length: int | None
    ) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        target = self._padded_length(sounds, padding, max_length)
        made, masks = [], []
        for sound in sounds:
            missing = max(0, target - len(sound))
            width = (0, missing) if self.padding_side == "right" else (missing, 0)
            masks.append(np.pad(np.ones(len(sound), np.int32), width))
            widths = (width, (0, 0)) if sound.ndim == 2 else width
            made.append(np.pad(sound, widths, constant_values=self.padding_value))
        return made, np.stack(masks) if len({len(mask) for mask in masks}) == 1 else np.array(masks, object)
