"""The classes of the `encodec` package (github.com/facebookresearch/encodec, 0.1.1) under their own signatures.

`from fastvoc.compat.encodec import EncodecModel, convert_audio` takes the place of the imports from `encodec` and
`encodec.utils`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.checkpoints.encodec import canonical_names
from fastvoc.compat.codebooks import Stages
from fastvoc.compat.upstream import Upstream, folded
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.hub import published
from fastvoc.loading import model_of
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import ENCODEC_24K, ENCODEC_48K, EncodecConfig
from fastvoc.nn.rvq import ResidualVectorQuantizer
from fastvoc.sound import audio

EncodedFrame = tuple[Tensor, Tensor | None]


def whole_codes(codes: Tensor, name: str) -> Tensor:
    """Codes of any integer type as int64. Raises DtypeError for others."""
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        got = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise DtypeError(f"{name}: expected a tensor of whole numbers, got {got}")
    return codes.long()


class Quantizer(nn.Module):
    """The quantiser as upstream has it, codes [K, B, T]; its weights are `codebooks.{k}` [bins, D].

    `vq.layers[k]._codebook.embed` and `vq.layers[k].codebook` are the same tensors under upstream's names.
    """

    _quantizer: ResidualVectorQuantizer

    def __init__(self, quantizer: ResidualVectorQuantizer) -> None:
        super().__init__()
        self.codebooks = quantizer.codebooks
        self.n_q, (self.bins, self.dimension) = len(quantizer.codebooks), quantizer.codebooks[0].shape
        object.__setattr__(self, "_quantizer", quantizer)  # no part, so that every codebook has one name
        self.vq = Stages(quantizer)

    def get_num_quantizers_for_bandwidth(self, frame_rate: int, bandwidth: float | None = None) -> int:
        """Codebooks that a bandwidth in kbit/s pays for; all for None or 0."""
        if not bandwidth or bandwidth < 0.0:
            return self.n_q
        return max(1, int(bandwidth * 1000 // (log2(self.bins) * frame_rate)))

    def get_bandwidth_per_quantizer(self, frame_rate: int) -> float:
        """Bits per second of one codebook."""
        return log2(self.bins) * frame_rate

    def encode(self, x: Tensor, frame_rate: int, bandwidth: float | None = None) -> Tensor:
        """[B, D, T] -> codes [K, B, T] int64."""
        n_q = min(self.get_num_quantizers_for_bandwidth(frame_rate, bandwidth), self.n_q)
        codes: Tensor = self._quantizer.encode(x, n_q)
        return codes.transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [K, B, T] -> [B, D, T]."""
        latent: Tensor = self._quantizer.decode(whole_codes(codes, "codes").transpose(0, 1))
        return latent


class EncodecModel(Upstream):
    """Upstream's model: `encode` gives a list of (codes [B, K, T], scale [B, 1] or None), one for each segment.

    `segment`, `overlap`, `normalize`, `sample_rate` and `bandwidth` may be set at any time, as upstream's.
    `load_state_dict` takes states under upstream's names, too.
    """

    _model: Encodec
    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, model: Encodec) -> None:
        super().__init__(model)
        config = model.config
        self.quantizer = Quantizer(model.quantizer)
        self.bandwidth: float | None = None
        self.target_bandwidths = list(config.bandwidths)
        self.sample_rate, self.channels, self.normalize = config.sample_rate, config.channels, config.normalize
        self.segment, self.overlap, self.name = config.segment, config.overlap, config.name
        self.frame_rate = config.frame_rate
        self.bits_per_codebook = int(log2(config.bins))
        self.train(model.training)

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return folded(canonical_names(state))

    @property
    def segment_length(self) -> int | None:
        """Samples of a whole segment; None when signals are not cut."""
        return None if self.segment is None else int(self.segment * self.sample_rate)

    @property
    def segment_stride(self) -> int | None:
        """Samples from the beginning of a segment to that of the next."""
        length = self.segment_length
        return None if length is None else max(1, int((1 - self.overlap) * length))

    def _follow(self) -> None:
        self._model.config = recut(self._model.config, self.normalize, self.segment_length, self.overlap)

    def set_target_bandwidth(self, bandwidth: float) -> None:
        """Chooses the bandwidth in kbit/s. Raises ArgumentError (a ValueError) when the model does not have it."""
        if bandwidth not in self.target_bandwidths:
            known = ", ".join(f"{b:g}" for b in self.target_bandwidths)
            raise ArgumentError(f"bandwidth: expected one of {known} kbit/s, got {bandwidth!r}")
        self.bandwidth = bandwidth

    def encode(self, x: Tensor) -> list[EncodedFrame]:
        """[B, C, S] -> the segments' codes and volumes; with all codebooks as long as no target bandwidth is set."""
        self._follow()
        n_q = min(self.quantizer.get_num_quantizers_for_bandwidth(self.frame_rate, self.bandwidth), self.quantizer.n_q)
        segments, scale = self._model.encode(x, n_q)
        return [(codes, None if scale is None else scale[:, i : i + 1]) for i, codes in enumerate(segments)]

    def decode(self, encoded_frames: Sequence[EncodedFrame]) -> Tensor:
        """What `encode` returned -> [B, C, S'], as a rule a little longer than what was encoded."""
        self._follow()
        if not encoded_frames or (self.segment is None and len(encoded_frames) != 1):
            expected = "one frame" if self.segment is None else "at least one frame"
            raise ShapeError(f"encoded_frames: expected {expected}, got {len(encoded_frames)}")
        segments = [whole_codes(codes, "encoded_frames") for codes, _ in encoded_frames]
        scales = [scale for _, scale in encoded_frames]
        volumes = [scale.reshape(-1, 1) for scale in scales if scale is not None]
        if volumes and len(volumes) != len(scales):
            raise ArgumentError("encoded_frames: some have a scale and some have none")
        return self._model.decode(segments, torch.cat(volumes, 1) if volumes else None)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes and decodes [B, C, S] -> [B, C, S]."""
        return self.decode(self.encode(x))[:, :, : x.shape[-1]]

    @staticmethod
    def encodec_model_24khz(pretrained: bool = True, repository: str | Path | None = None) -> EncodecModel:
        """The causal 24 kHz model.

        Args:
            pretrained: load the published weights; random ones when False.
            repository: folder that holds the published file; when None, torch.hub's cache, into which the file is
                downloaded if it is not there.

        Raises:
            ArgumentError: no such file in the repository.
            LoadError: the file cannot be had, is damaged or is another model's.
        """
        return _published(ENCODEC_24K, pretrained, repository)

    @staticmethod
    def encodec_model_48khz(pretrained: bool = True, repository: str | Path | None = None) -> EncodecModel:
        """The 48 kHz stereo model; arguments and errors as `encodec_model_24khz`."""
        return _published(ENCODEC_48K, pretrained, repository)


def recut(config: EncodecConfig, normalize: bool, length: int | None, overlap: float | None) -> EncodecConfig:
    """A configuration whose segments have `length` samples, those of None being whole signals.

    Raises ArgumentError naming what is illegal.
    """
    same = (config.normalize, config.segment_length) == (normalize, length)
    if same and (length is None or config.overlap == overlap):
        return config
    if length is None:
        return replace(config, normalize=normalize, segment=None)
    if length < 1:
        raise ArgumentError(f"segment, chunk_length_s: expected at least one sample, got {length}")
    if overlap is None:
        raise ArgumentError(
            "overlap: expected a number from 0, below 1, for signals that are cut into chunks, got None"
        )
    # Half a sample more, so that rounding down gives the length again.
    return replace(config, normalize=normalize, segment=(length + 0.5) / config.sample_rate, overlap=overlap)


def convert_audio(wav: Tensor, sr: int, target_sr: int, target_channels: int) -> Tensor:
    """[C, S] or [B, C, S] of 1 or 2 channels at `sr` Hz -> the same at `target_sr` with 1 or 2 channels.

    Upstream resamples with torchaudio, this does with soxr; S becomes ceil(S * target_sr / sr), as there.
    Raises ShapeError or ArgumentError for other channels, DtypeError for samples of no floating-point type.
    """
    if not isinstance(wav, Tensor) or not wav.is_floating_point():
        got = wav.dtype if isinstance(wav, Tensor) else type(wav).__name__
        raise DtypeError(f"wav: expected floating-point samples in -1..1 (16-bit samples / 32768), got {got}")
    if wav.dim() not in (2, 3) or wav.shape[-2] not in (1, 2):
        raise ShapeError(f"wav: expected [1 or 2, S] or [B, 1 or 2, S], got {list(wav.shape)}")
    if target_channels not in (1, 2):
        raise ArgumentError(f"target_channels: expected 1 or 2, got {target_channels!r}")
    if target_channels == 1:
        wav = wav.mean(-2, keepdim=True)
    wav = wav.expand(*wav.shape[:-2], target_channels, -1)
    if sr <= 0 or target_sr <= 0:
        raise ArgumentError(f"sr, target_sr: expected positive rates in Hz, got {sr!r} and {target_sr!r}")
    length = -(-wav.shape[-1] * target_sr // sr)
    if not length:
        return wav
    # soxr rounds the length; silence behind the signal lets it reach the next whole sample.
    flat = nn.functional.pad(wav.reshape(-1, wav.shape[-1]), (0, 0 if sr == target_sr else -(-sr // target_sr)))
    return audio.resample(flat, sr, target_sr)[:, :length].reshape(*wav.shape[:-1], length)


def _published(config: EncodecConfig, pretrained: bool, repository: str | Path | None) -> EncodecModel:
    if not pretrained:
        return EncodecModel(Encodec(config).eval())
    name = published.CODECS[config.sample_rate]
    path = published.fetch(name) if repository is None else Path(repository) / name
    if not path.is_file():
        raise ArgumentError(f"repository: {repository} has no file {name}")
    checkpoint: Checkpoint = detect_and_load(path)
    if checkpoint.config.sample_rate != config.sample_rate:
        raise LoadError(f"{path}: a model of {checkpoint.config.sample_rate} Hz, expected {config.sample_rate} Hz")
    model: Any = model_of(checkpoint)
    return EncodecModel(model)
