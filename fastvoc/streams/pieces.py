"""Codecs on signals that come in pieces, in memory that does not grow with them.

A model that cuts signals into segments, as EnCodec at 48 kHz, gets several at a time. A causal one, as EnCodec at 24
kHz, runs on stretches: what a stretch's convolutions need from before it is computed again, and the LSTM goes on from
its state. The C++ kernels give what `Codec` gives on the whole signal, bit for bit, of a causal model with `exact`;
torch agrees to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fastvoc.codec import Codec
from fastvoc.ecdc.coder_python import Codes
from fastvoc.errors import ArgumentError
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.models.segments import Fade
from fastvoc.nn.streams import ModelStream

STRETCH_SECONDS = 10.0
_TOGETHER = 8

Piece = tuple[Codes, float | None]


def piecewise(codec: Codec) -> tuple[Encodec, EncodecConfig]:
    """Its model and configuration. Raises ArgumentError for one that is no EnCodec or needs a signal as a whole."""
    model, config = codec.model, codec.config
    if not isinstance(model, Encodec) or not isinstance(config, EncodecConfig):
        raise ArgumentError(f"codec: expected an EnCodec, got {type(model).__name__}")
    causal = config.causal and config.norm == "weight_norm" and config.trim_right_ratio == 1.0
    if config.segment is None and (not causal or config.normalize):
        raise ArgumentError("codec: this model neither cuts signals into segments nor is it causal")
    return model, config


class CodecEncoder:
    """Samples in pieces of any size -> codes uint16 [K, T] and volumes; one pair a segment, or the next codes of it."""

    def __init__(self, codec: Codec, bandwidth: float) -> None:
        """Raises ArgumentError for a bandwidth that the model lacks, or a model that needs a signal as a whole."""
        self._codec, (self._model, self._config) = codec, piecewise(codec)
        self.codebooks = codec.codebooks(bandwidth)
        self.samples = 0
        self._held: Tensor = torch.zeros((codec.channels, 0), dtype=torch.float32, device="cpu")
        self._live = None if self._config.segment else codec.model.encode_stream(self.codebooks, codec.backend)

    def push(self, wav: Tensor) -> list[Piece]:
        """The next samples [C, n] -> what they complete."""
        self.samples += wav.shape[1]
        self._held = torch.cat([self._held, wav.float()], 1)
        return self._segments(last=False) if self._live is None else self._stretches(self._live, last=False)

    def finish(self) -> list[Piece]:
        """The rest. Raises ArgumentError when there were no samples at all."""
        if not self.samples:
            raise ArgumentError("wav: holds no samples")
        return self._segments(last=True) if self._live is None else self._stretches(self._live, last=True)

    @torch.inference_mode()
    def _stretches(self, live: ModelStream, *, last: bool) -> list[Piece]:
        device, dtype = self._codec.device, self._codec.input_dtype
        size = _stretch(self._config) * self._config.hop
        pieces: list[Piece] = []
        # The last stretch is not left empty.
        while self._held.shape[1] > size:
            pieces.append((_numbers(live.step(self._held[None, :, :size].to(device, dtype), False)[0]), None))
            self._held = self._held[:, size:]
        if last:
            pieces.append((_numbers(live.step(self._held[None].to(device, dtype), True)[0]), None))
        return pieces

    @torch.inference_mode()
    def _segments(self, *, last: bool) -> list[Piece]:
        length, stride = self._config.segment_length, self._config.segment_stride
        assert length is not None
        assert stride is not None
        pieces: list[Piece] = []
        while (ready := (self._held.shape[1] - length) // stride + 1) >= (1 if last else _TOGETHER):
            count = min(ready, _TOGETHER)
            pieces += self._encode(torch.stack([self._held[:, i * stride : i * stride + length] for i in range(count)]))
            self._held = self._held[:, count * stride :]
        while last and self._held.shape[1]:
            pieces += self._encode(self._held[None])
            self._held = self._held[:, stride:]
        return pieces

    def _encode(self, batch: Tensor) -> list[Piece]:
        codec = self._codec
        codes, volumes = self._model.encode_segment(
            batch.to(codec.device, codec.input_dtype), self.codebooks, None, codec.backend
        )
        scales = [None] * len(batch) if volumes is None else volumes.float().tolist()
        return [(_numbers(row), scale) for row, scale in zip(codes, scales, strict=True)]


class CodecDecoder:
    """Codes in the order of the stream -> samples [C, n], float32."""

    def __init__(self, codec: Codec) -> None:
        """Raises ArgumentError for a model that needs a signal as a whole."""
        self._codec, (_, self._config) = codec, piecewise(codec)
        self._given = 0
        self._segments: list[tuple[Tensor, float | None]] = []
        self._live = None if self._config.segment else codec.model.decode_stream(codec.backend)
        self._codes: list[Tensor] = []
        self._held: Tensor = torch.zeros((codec.channels, 0), dtype=torch.float32, device="cpu")
        self._fade: Fade | None = None

    def push(self, codes: Codes, scale: float | None = None) -> Tensor:
        """The next codes [K, T], a whole segment of a model that has them, -> the samples that they complete.

        The last frames' samples wait until `finish`, which knows where the signal ends.
        """
        tensor = torch.from_numpy(codes.astype(np.int64))[None].to(self._codec.device)
        if self._live is None:
            return self._segment(tensor, scale)
        self._codes.append(tensor)
        frames = sum(part.shape[2] for part in self._codes)
        if frames < _stretch(self._config):
            return self._held[:, :0]
        return self._out(self._stretch(self._live, last=False), keep=2 * self._config.hop)

    def finish(self, samples: int) -> Tensor:
        """The rest of a signal of so many samples. Raises ArgumentError when the codes do not stand for that many."""
        if self._live is None:
            self._held = torch.cat([self._held, self._faded(last=True)], 1)
        else:
            self._held = torch.cat([self._held, self._stretch(self._live, last=True)], 1)
        most = self._given + self._held.shape[1]
        if not self._given <= samples <= most:
            raise ArgumentError(f"samples: the codes stand for {self._given} to {most}, got {samples}")
        rest = self._held[:, : samples - self._given]
        self._given += rest.shape[1]
        return rest

    @torch.inference_mode()
    def _stretch(self, live: ModelStream, *, last: bool) -> Tensor:
        nothing = torch.zeros((1, 1, 0), dtype=torch.int64, device=self._codec.device)
        codes, self._codes = torch.cat(self._codes, 2) if self._codes else nothing, []
        wav: Tensor = live.step(codes, last)[0].float().cpu()
        return wav

    def _segment(self, codes: Tensor, scale: float | None) -> Tensor:
        self._segments.append((codes, scale))
        if len(self._segments) < _TOGETHER:
            return self._held[:, :0]
        return self._out(self._faded(last=False), keep=0)

    @torch.inference_mode()
    def _faded(self, *, last: bool) -> Tensor:
        # Only the last segments of a signal are shorter.
        made = [
            row for _, alike in groupby(self._segments, lambda item: item[0].shape[2]) for row in self._decode(alike)
        ]
        self._segments = []
        if made and self._fade is None:
            stride = self._config.segment_stride
            assert stride is not None
            self._fade = Fade(made[0].shape[1], stride)
        parts = [self._fade.push(piece) for piece in made] if self._fade else []
        # The group before may have ended with the signal's last segment.
        rest = [self._fade.rest()] if self._fade and last else []
        return torch.cat([self._held[:, :0], *parts, *rest], 1)

    def _decode(self, group: Iterable[tuple[Tensor, float | None]]) -> Tensor:
        codec = self._codec
        segments, scales = zip(*group, strict=True)
        codes = torch.cat(segments)
        volumes = torch.tensor([1.0 if s is None else s for s in scales], dtype=torch.float32, device=codec.device)
        wav: Tensor = codec.model.decode_segment(
            codes, volumes if self._config.normalize else None, None, codec.backend
        )
        return wav.float().cpu()

    def _out(self, wav: Tensor, keep: int) -> Tensor:
        """Gives all but the last `keep` samples."""
        wav = torch.cat([self._held, wav], 1)
        ready = max(wav.shape[1] - keep, 0)
        self._held, out = wav[:, ready:], wav[:, :ready]
        self._given += ready
        return out


def _numbers(codes: Tensor) -> Codes:
    return codes.cpu().numpy().astype(np.uint16)


def _stretch(config: EncodecConfig) -> int:
    """Frames that run together."""
    return max(1, int(STRETCH_SECONDS * config.frame_rate))
