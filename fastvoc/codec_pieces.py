"""Codecs on signals that come in pieces, in memory that does not grow with them.

A model that cuts signals into segments, as EnCodec at 48 kHz, gets several at a time. A causal one, as EnCodec at 24
kHz, runs on stretches: what a stretch's convolutions need from before it is computed again, and the LSTM goes on from
its state. The C++ kernels give what `Codec` gives on the whole signal, bit for bit; torch agrees to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.codec import Codec
from fastvoc.coder_python import Codes
from fastvoc.errors import ArgumentError
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.models.segments import Fade
from fastvoc.nn.lstm import Lstm

STRETCH_SECONDS = 10.0
_TOGETHER = 8

Piece = tuple[Codes, float | None]


def check_piecewise(config: EncodecConfig) -> None:
    """Raises ArgumentError for a model that needs a signal as a whole."""
    causal = config.causal and config.norm == "weight_norm" and config.trim_right_ratio == 1.0
    if config.segment is None and (not causal or config.normalize):
        raise ArgumentError("codec: this model neither cuts signals into segments nor is it causal")


class CodecEncoder:
    """Samples in pieces of any size -> codes uint16 [K, T] and volumes; one pair a segment, or the next codes of it."""

    def __init__(self, codec: Codec, bandwidth: float) -> None:
        """Raises ArgumentError for a bandwidth that the model lacks, or a model that needs a signal as a whole."""
        check_piecewise(codec.config)
        codec.check_bandwidth(bandwidth)
        self._codec, self._config = codec, codec.config
        self.codebooks = codec.config.codebooks(bandwidth)
        self.samples = 0
        self._held: Tensor = torch.zeros((codec.channels, 0))
        self._run = _CausalEncoder(codec, self.codebooks) if codec.config.segment is None else None

    def push(self, wav: Tensor) -> list[Piece]:
        """The next samples [C, n] -> what they complete."""
        self.samples += wav.shape[1]
        self._held = torch.cat([self._held, wav.float()], 1)
        return self._segments(last=False) if self._run is None else self._stretches(self._run, last=False)

    def finish(self) -> list[Piece]:
        """The rest. Raises ArgumentError when there were no samples at all."""
        if not self.samples:
            raise ArgumentError("wav: holds no samples")
        return self._segments(last=True) if self._run is None else self._stretches(self._run, last=True)

    @torch.inference_mode()
    def _stretches(self, run: _CausalEncoder, *, last: bool) -> list[Piece]:
        size = _stretch(self._config) * self._config.hop
        pieces: list[Piece] = []
        # The last stretch is not left empty.
        while self._held.shape[1] > size:
            pieces.append((run(self._held[:, :size]), None))
            self._held = self._held[:, size:]
        if last:
            pieces.append((run(self._held), None))
        return pieces

    @torch.inference_mode()
    def _segments(self, *, last: bool) -> list[Piece]:
        length, stride = self._config.segment_length, self._config.segment_stride
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
        codes, volumes = codec.model.encode_segment(
            batch.to(codec.device, codec.input_dtype), self.codebooks, None, codec.backend
        )
        scales = [None] * len(batch) if volumes is None else volumes.float().tolist()
        return [(_numbers(row), scale) for row, scale in zip(codes, scales, strict=True)]


class CodecDecoder:
    """Codes in the order of the stream -> samples [C, n], float32."""

    def __init__(self, codec: Codec) -> None:
        """Raises ArgumentError for a model that needs a signal as a whole."""
        check_piecewise(codec.config)
        self._codec, self._config = codec, codec.config
        self._given = 0
        self._segments: list[tuple[Tensor, float | None]] = []
        self._run = _CausalDecoder(codec) if codec.config.segment is None else None
        self._codes: list[Tensor] = []
        self._held: Tensor = torch.zeros((codec.channels, 0))
        self._fade: Fade | None = None

    def push(self, codes: Codes, scale: float | None = None) -> Tensor:
        """The next codes [K, T], a whole segment of a model that has them, -> the samples that they complete.

        The last frames' samples wait until `finish`, which knows where the signal ends.
        """
        tensor = torch.from_numpy(codes.astype(np.int64))[None].to(self._codec.device)
        if self._run is None:
            return self._segment(tensor, scale)
        self._codes.append(tensor)
        frames = sum(part.shape[2] for part in self._codes)
        if frames < _stretch(self._config):
            return self._held[:, :0]
        return self._out(self._stretch(self._run), keep=2 * self._config.hop)

    def finish(self, samples: int) -> Tensor:
        """The rest of a signal of so many samples. Raises ArgumentError when the codes do not stand for that many."""
        if self._run is None:
            self._held = torch.cat([self._held, self._faded(last=True)], 1)
        elif self._codes:
            self._held = torch.cat([self._held, self._stretch(self._run)], 1)
        most = self._given + self._held.shape[1]
        if not self._given <= samples <= most:
            raise ArgumentError(f"samples: the codes stand for {self._given} to {most}, got {samples}")
        rest = self._held[:, : samples - self._given]
        self._given += rest.shape[1]
        return rest

    @torch.inference_mode()
    def _stretch(self, run: _CausalDecoder) -> Tensor:
        codes, self._codes = torch.cat(self._codes, 2), []
        return run(codes)

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
            self._fade = Fade(made[0].shape[1], self._config.segment_stride)
        parts = [self._fade.push(piece) for piece in made] if self._fade else []
        # The group before may have ended with the signal's last segment.
        rest = [self._fade.rest()] if self._fade and last else []
        return torch.cat([self._held[:, :0], *parts, *rest], 1)

    def _decode(self, group: Iterable[tuple[Tensor, float | None]]) -> Tensor:
        codec = self._codec
        segments, scales = zip(*group, strict=True)
        codes = torch.cat(segments)
        volumes = torch.tensor([1.0 if scale is None else scale for scale in scales], device=codec.device)
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


class _CausalEncoder:
    """Stretches [C, n] of a signal, whole frames but for the last, -> codes [K, T]."""

    def __init__(self, codec: Codec, codebooks: int) -> None:
        self._codec, self._codebooks, self._config = codec, codebooks, codec.config
        layers = list(codec.model.encoder.layers.values())
        at = next(i for i, layer in enumerate(layers) if isinstance(layer, Lstm))
        self._before, self._lstm, self._after = layers[:at], layers[at], layers[at + 1 :]
        self._context = -(-_encoder_reach(self._config) // self._config.hop) * self._config.hop
        self._past: Tensor | None = None
        self._hidden: Tensor | None = None
        self._state = self._lstm.zero_state(1)

    def __call__(self, wav: Tensor) -> Codes:
        codec, config = self._codec, self._config
        x = wav[None].to(codec.device, codec.input_dtype)
        past = 0 if self._past is None else self._past.shape[2]
        x = x if self._past is None else torch.cat([self._past, x], 2)
        self._past = x[:, :, max(0, x.shape[2] - self._context) :]
        hidden = _through(self._before, x, codec.backend)[:, :, past // config.hop :]
        hidden = self._lstm(hidden, backend=codec.backend, state=self._state)
        known = 0 if self._hidden is None else self._hidden.shape[2]
        joined = hidden if self._hidden is None else torch.cat([self._hidden, hidden], 2)
        self._hidden = joined[:, :, max(0, joined.shape[2] - config.last_kernel_size + 1) :]
        z = _through(self._after, joined, codec.backend)[:, :, known:]
        return _numbers(codec.model.quantizer.encode(z, self._codebooks, None, codec.backend)[0])


class _CausalDecoder:
    """Codes [1, K, T] of a stretch -> samples [C, T * hop]."""

    def __init__(self, codec: Codec) -> None:
        self._codec, self._config = codec, codec.config
        layers = list(codec.model.decoder.layers.values())
        at = next(i for i, layer in enumerate(layers) if isinstance(layer, Lstm))
        self._before, self._lstm, self._after = layers[:at], layers[at], layers[at + 1 :]
        self._reach = _decoder_reach(self._config)
        self._past: Tensor | None = None
        self._hidden: Tensor | None = None
        self._state = self._lstm.zero_state(1)

    def __call__(self, codes: Tensor) -> Tensor:
        codec, config = self._codec, self._config
        known = 0 if self._past is None else self._past.shape[2]
        codes = codes if self._past is None else torch.cat([self._past, codes], 2)
        self._past = codes[:, :, max(0, codes.shape[2] - config.kernel_size + 1) :]
        x = _through(self._before, codec.model.latent(codes, None, codec.backend), codec.backend)
        hidden = self._lstm(x[:, :, known:], backend=codec.backend, state=self._state)
        known = 0 if self._hidden is None else self._hidden.shape[2]
        joined = hidden if self._hidden is None else torch.cat([self._hidden, hidden], 2)
        self._hidden = joined[:, :, max(0, joined.shape[2] - self._reach) :]
        wav = _through(self._after, joined, codec.backend)[0, :, known * config.hop :]
        return wav.float().cpu()


def _through(layers: list[Any], x: Tensor, backend: str | None) -> Tensor:
    for layer in layers:
        x = layer(x, None, backend)
    return x


def _numbers(codes: Tensor) -> Codes:
    return codes.cpu().numpy().astype(np.uint16)


def _stretch(config: EncodecConfig) -> int:
    """Frames that run together."""
    return max(1, int(STRETCH_SECONDS * config.frame_rate))


def _blocks_reach(config: EncodecConfig) -> int:
    """Steps that the residual blocks of a stage look back."""
    layers = range(config.n_residual_layers)
    return sum((config.residual_kernel_size - 1) * config.dilation_base**j for j in layers)


def _encoder_reach(config: EncodecConfig) -> int:
    """Samples before a frame that the convolutions in front of the LSTM look back."""
    reach, scale = config.kernel_size - 1, 1
    for ratio in reversed(config.ratios):
        reach += (_blocks_reach(config) + ratio) * scale
        scale *= ratio
    return reach


def _decoder_reach(config: EncodecConfig) -> int:
    """Frames before a frame that the layers behind the LSTM look back."""
    reach = config.last_kernel_size - 1
    for ratio in reversed(config.ratios):
        reach = -(-(reach + _blocks_reach(config)) // ratio) + 1
    return reach
