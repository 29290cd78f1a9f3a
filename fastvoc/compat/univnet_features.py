"""The feature extractor of UnivNet as Hugging Face Transformers has it (5.23)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fastvoc.compat.outputs import BatchFeature
from fastvoc.compat.pretrained import PretrainedExtractor
from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.sound.mel import MelConfig, mel_filterbank

_WINDOWS: dict[str, Callable[..., Tensor]] = {
    "hann": torch.hann_window,
    "hann_window": torch.hann_window,
    "hamming": torch.hamming_window,
    "hamming_window": torch.hamming_window,
    "boxcar": lambda size, **kind: torch.ones(size, **kind),
    "povey": lambda size, **kind: torch.hann_window(size, **kind) ** 0.85,
}
Array = np.ndarray[Any, Any]
_Spectrogram = TypeVar("_Spectrogram", Array, Tensor)


class UnivNetFeatureExtractor(PretrainedExtractor):
    """Transformers' `UnivNetFeatureExtractor`: sounds to `input_features` [B, T, num_mel_bins], `noise_sequence`
    [B, T, model_in_channels] and `padding_mask` [B, S]. Its arguments are attributes of the same name.
    """

    model_input_names = ("input_features", "noise_sequence", "padding_mask")
    derived = ("n_fft", "n_freqs", "num_max_samples", "mel_filters", "window")

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        do_normalize: bool = False,
        num_mel_bins: int = 100,
        hop_length: int = 256,
        win_length: int = 1024,
        win_function: str = "hann_window",
        filter_length: int | None = 1024,
        max_length_s: int = 10,
        fmin: float = 0.0,
        fmax: float | None = None,
        mel_floor: float = 1e-9,
        center: bool = False,
        compression_factor: float = 1.0,
        compression_clip_val: float = 1e-5,
        normalize_min: float = -11.512925148010254,
        normalize_max: float = 2.3143386840820312,
        model_in_channels: int = 64,
        pad_end_length: int = 10,
        return_attention_mask: bool = True,
        padding_side: str = "right",
        **kwargs: Any,
    ) -> None:
        if win_function not in _WINDOWS:
            raise ArgumentError(f"win_function: expected one of {', '.join(_WINDOWS)}, got {win_function!r}")
        if padding_side not in ("left", "right"):
            raise ArgumentError(f"padding_side: expected left or right, got {padding_side!r}")
        # An explicit None asks for the next power of two.
        self.n_fft = 1 << (win_length - 1).bit_length() if filter_length is None else filter_length
        if win_length != self.n_fft:
            raise ArgumentError(f"win_length: expected the length of the transform, {self.n_fft}, got {win_length}")
        self.feature_size, self.sampling_rate, self.padding_value = feature_size, sampling_rate, padding_value
        self.do_normalize, self.num_mel_bins, self.hop_length = do_normalize, num_mel_bins, hop_length
        self.win_length, self.win_function, self.filter_length = win_length, win_function, filter_length
        self.max_length_s, self.fmin, self.mel_floor, self.center = max_length_s, fmin, mel_floor, center
        self.fmax = sampling_rate / 2 if fmax is None else fmax
        self.compression_factor, self.compression_clip_val = compression_factor, compression_clip_val
        self.normalize_min, self.normalize_max = normalize_min, normalize_max
        self.model_in_channels, self.pad_end_length = model_in_channels, pad_end_length
        self.return_attention_mask, self.padding_side = return_attention_mask, padding_side
        for name, value in kwargs.items():
            setattr(self, name, value)
        config = MelConfig(sampling_rate, self.n_fft, win_length, hop_length, num_mel_bins, fmin, self.fmax)
        self.n_freqs, self.num_max_samples = self.n_fft // 2 + 1, max_length_s * sampling_rate
        self.mel_filters: Array = mel_filterbank(config, torch.float64).T.contiguous().numpy()
        self.window: Array = _WINDOWS[win_function](win_length, dtype=torch.float64, device="cpu").numpy()

    def normalize(self, spectrogram: _Spectrogram) -> _Spectrogram:
        """Log-mel in normalize_min..normalize_max -> -1..1."""
        return 2 * ((spectrogram - self.normalize_min) / (self.normalize_max - self.normalize_min)) - 1

    def denormalize(self, spectrogram: _Spectrogram) -> _Spectrogram:
        """The inverse of `normalize`."""
        return self.normalize_min + (self.normalize_max - self.normalize_min) * ((spectrogram + 1) / 2)

    def mel_spectrogram(self, waveform: Array) -> Array:
        """[S] samples -> [T, num_mel_bins] natural log-mel, both ends reflected, more than once where S is short.

        Raises ShapeError for a sound too short for a frame.
        """
        wav = np.asarray(waveform, dtype=np.float64)
        pad = (self.n_fft - self.hop_length) // 2
        shortest = 1 if self.center else max(1, self.n_fft - 2 * pad)
        if wav.ndim != 1 or len(wav) < shortest:
            raise ShapeError(f"waveform: expected [S] of at least {shortest} samples, got {list(wav.shape)}")
        wav = np.pad(wav, pad, mode="reflect")
        if self.center:
            wav = np.pad(wav, self.n_fft // 2, mode="reflect")
        spectrum = torch.stft(
            torch.from_numpy(wav)[None],
            self.n_fft,
            self.hop_length,
            window=torch.from_numpy(self.window),
            center=False,
            return_complex=True,
        )
        amplitude = (spectrum[0].abs().square() + self.mel_floor).sqrt()
        mel = (torch.from_numpy(self.mel_filters).T @ amplitude).clamp(
            min=self.compression_clip_val
        ) * self.compression_factor
        return mel.log().T.numpy()

    def generate_noise(self, noise_length: int, generator: np.random.Generator | None = None) -> Array:
        """[noise_length, model_in_channels] standard normal float32; fresh entropy without a generator."""
        generator = np.random.default_rng() if generator is None else generator
        return generator.standard_normal((noise_length, self.model_in_channels), dtype=np.float32)

    def batch_decode(
        self, waveforms: Tensor | Sequence[Tensor], waveform_lengths: Tensor | Sequence[int] | None = None
    ) -> list[Array]:
        """The sounds of a batch [B, S] as arrays, each cut to its length."""
        sounds = [wav.detach().to(device="cpu", copy=True).numpy() for wav in waveforms]
        if waveform_lengths is None:
            return sounds
        return [sound[: int(n)] for sound, n in zip(sounds, waveform_lengths, strict=True)]

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = True,
        pad_to_multiple_of: int | None = None,
        return_noise: bool = True,
        generator: np.random.Generator | None = None,
        pad_end: bool = False,
        pad_length: int | None = None,
        do_normalize: bool | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Makes a batch.

        Args:
            raw_speech: one mono sound [S] or a list of them.
            sampling_rate: of the sounds; another than the model's raises, none gives a warning.
            padding: True or "longest", "max_length", False.
            max_length: samples; `max_length_s` seconds when None.
            truncation: cut to `max_length`.
            pad_to_multiple_of: round lengths up to a multiple of so many samples.
            return_noise: also draw `noise_sequence`, with `generator`.
            pad_end: first append `pad_length` (default `pad_end_length`) frames of `padding_value` to every sound.
            do_normalize, return_attention_mask: the extractor's own values when None.
            return_tensors: "pt", "np", or None for lists of arrays.

        Raises ArgumentError or ShapeError naming the argument.
        """
        if sampling_rate is None:
            warnings.warn(f"sampling_rate: not given, taken for {self.sampling_rate} Hz", UserWarning, stacklevel=2)
        elif sampling_rate != self.sampling_rate:
            raise ArgumentError(f"sampling_rate: expected {self.sampling_rate} Hz like the model, got {sampling_rate}")
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise ArgumentError(f"padding: expected True, False, longest, max_length or do_not_pad, got {padding!r}")
        if return_tensors not in (None, "pt", "np"):
            raise ArgumentError(f"return_tensors: expected pt, np or None, got {return_tensors!r}")
        sounds = _sounds(raw_speech)
        if pad_end:
            tail = (self.pad_end_length if pad_length is None else pad_length) * self.hop_length
            sounds = [np.pad(sound, (0, tail), constant_values=self.padding_value) for sound in sounds]
        longest = _rounded(self.num_max_samples if max_length is None else max_length, pad_to_multiple_of)
        if truncation:
            sounds = [sound[:longest] for sound in sounds]
        masks = [np.ones(len(sound), np.int32) for sound in sounds]
        if padding not in (False, "do_not_pad"):
            target = longest if padding == "max_length" else max(map(len, sounds))
            target = _rounded(target, pad_to_multiple_of)
            masks = [self._padded(mask, target, 0) for mask in masks]
            sounds = [self._padded(sound, target, self.padding_value) for sound in sounds]
        mels = [self.mel_spectrogram(sound).astype(np.float32) for sound in sounds]
        result: dict[str, Any] = {"input_features": mels}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            result["padding_mask"] = masks
        if return_noise:
            result["noise_sequence"] = [self.generate_noise(len(mel), generator) for mel in mels]
        if self.do_normalize if do_normalize is None else do_normalize:
            result["input_features"] = [self.normalize(mel) for mel in mels]
        return BatchFeature({name: _stacked(value, name, return_tensors) for name, value in result.items()})

    def _padded(self, values: Array, target: int, value: float) -> Array:
        missing = max(0, target - len(values))
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(values, width, constant_values=value)


def _sounds(raw_speech: Any) -> list[Array]:
    if isinstance(raw_speech, list | tuple) and not raw_speech:
        raise ShapeError("raw_speech: expected at least one sound, got an empty list")
    several = isinstance(raw_speech, list | tuple) and isinstance(raw_speech[0], np.ndarray | list | tuple)
    several = several or (isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 2)
    sounds = [np.asarray(sound, dtype=np.float32) for sound in (raw_speech if several else [raw_speech])]
    for sound in sounds:
        if sound.ndim != 1 or not len(sound):
            raise ShapeError(f"raw_speech: expected mono sounds [S > 0], got {list(sound.shape)}")
    return sounds


def _rounded(length: int, multiple: int | None) -> int:
    return length if multiple is None else -(-length // multiple) * multiple


def _stacked(value: list[Array], name: str, kind: str | None) -> Any:
    if kind is None:
        return value
    if len({len(row) for row in value}) > 1:
        raise ShapeError(f"return_tensors: {name} has items of different lengths; pass padding=True or None here")
    return torch.from_numpy(np.stack(value)) if kind == "pt" else np.stack(value)
