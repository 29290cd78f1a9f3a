"""Codecs on live signals: codes to samples and samples to codes, chunk by chunk, as in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.model import Array
from fastvoc.nn.streams import ModelStream
from fastvoc.sound.formats import Format
from fastvoc.streams.delivery import Delivery
from fastvoc.streams.saved import facts_of
from fastvoc.streams.stream import Check, Chunk, Latency, Stream


class _Side:
    """One direction of a codec, for `Stream` and `fastvoc.Streams`; `Decoding` and `Encoding` say which."""

    hop: int
    latency: Latency
    entries: int | None = None

    def __init__(self, codec: Any, codebooks: int) -> None:
        self._codec, self._codebooks = codec, codebooks
        self.device, self.dtype = codec.device, codec.input_dtype
        self.sample_rate, self.stats = int(codec.sample_rate), codec.stats

    def facts(self, options: dict[str, Any]) -> dict[str, object]:
        found = facts_of(self._codec.model, self._codec.config, options, self._codec.backend)
        return {"direction": type(self).__name__.lower(), **found, "codebooks": self._codebooks}

    def lookahead(self, state: ModelStream) -> int:
        return self.latency.frames

    def _only_chunk(self, options: dict[str, Any]) -> None:
        if options:
            raise ArgumentError(f"stream: a codec's stream knows no {next(iter(options))!r}")


class Decoding(_Side):
    """Codes [K, n] or [B, K, n] -> samples [C, m] or [B, C, m], `hop` for each frame.

    Of a model with codes of several rates (SNAC) a chunk is the list of levels [n * rate_k] or [B, n * rate_k] of n
    whole frames, or the same in one tensor as `Codec.packed` makes it.
    EnCodec's first samples come with the seventh frame (the first convolution reflects that far), later ones at once;
    those of other models `latency` later.
    """

    def __init__(self, codec: Any, codebooks: int) -> None:
        super().__init__(codec, codebooks)
        self.hop, self.entries = int(codec.hop), int(codec.config.bins)
        self.rate, self.step = float(codec.sample_rate / codec.hop), "frame"
        self._rows = sum(codec.config.rates[:codebooks])
        ahead = codec.model.lookahead[0]
        self.latency = Latency(ahead, ahead * self.hop, 1000 * ahead / self.rate)

    def stream(
        self,
        *,
        check: bool | None = None,
        seed: int | None = None,
        noise: int | None = None,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
    ) -> Stream:
        """A stream of its own. Raises ArgumentError for a model that works on whole segments (EnCodec at 48 kHz).

        seed, noise: as in `Codec.decode`, noise only 0; `fastvoc.Streams.open` takes them, too.
        check: look at the codes of every chunk: one outside the codebooks raises before the stream changes. None: True
        on the CPU; elsewhere such a code counts as the nearest one, and `codec.check()` tells of it. rate, format,
        dither: as `Vocoder.stream` has them.
        """
        given = {name: value for name, value in (("seed", seed), ("noise", noise)) if value is not None}
        return Stream(self, given, check=check, delivery=Delivery.of(self.sample_rate, rate, format, dither))

    def streamable(self) -> Decoding:
        """Itself: what `fastvoc.Streams` asks for."""
        return self

    def samples(self, frames: int) -> int:
        return int(self._codec.config.samples(frames))

    def new_stream(self, options: dict[str, Any]) -> ModelStream:
        self._codec.check_decode_inputs(options)
        stream: ModelStream = self._codec.model.decode_stream(self._codec.backend, **options)
        return stream

    def chunk(
        self, value: Chunk, inputs: dict[str, Array], batch: int | None
    ) -> tuple[Tensor, bool, dict[str, Tensor]]:
        self._only_chunk(inputs)
        count = self._rows
        if value is None:
            return torch.zeros((batch or 1, count, 0), dtype=torch.int64, device=self.device), False, {}
        if isinstance(value, list | tuple) and self._codec.has_levels:
            value = self._codec.packed(value)
        codes = self._codec._integers(value, "chunk")
        if codes.dim() not in (2, 3) or codes.shape[-2] != count or (codes.dim() == 3 and not len(codes)):
            raise ShapeError(f"chunk: expected [{count}, n] or [B, {count}, n], got {list(codes.shape)}")
        batched = codes.dim() == 3
        return codes if batched else codes[None], batched, {}

    def nothing(self, batch: int) -> Tensor:
        return torch.zeros((batch, self._codec.channels, 0), dtype=torch.float32, device=self.device)

    def result(self, y: Tensor, batched: bool) -> Tensor:
        return (y if batched else y[0]).float().clone()


class Encoding(_Side):
    """Samples [n] (mono), [C, n] or [B, C, n] -> codes int64 [K, m] or [B, K, m].

    EnCodec's first codes come with the seventh frame of samples, since the last convolution reflects that far; those of
    other models `latency` later, or a little earlier.
    """

    hop = 1

    def __init__(self, codec: Any, codebooks: int) -> None:
        super().__init__(codec, codebooks)
        self.rate, self.step = float(codec.sample_rate), "sample"
        self._rows = sum(codec.config.rates[:codebooks])
        ahead = codec.model.lookahead[1]
        self.latency = Latency(ahead, ahead, 1000 * ahead / self.rate)

    def stream(self, *, check: Check = None) -> Stream:
        """A stream of its own. Raises ArgumentError for a model that works on whole segments (EnCodec at 48 kHz).

        check: look at the samples of every chunk, as `Vocoder.stream` has it.
        """
        return Stream(self, {}, check=check)

    def streamable(self) -> Encoding:
        """Itself: what `fastvoc.Streams` asks for."""
        return self

    def samples(self, frames: int) -> int:
        return -(-frames // int(self._codec.hop))

    def new_stream(self, options: dict[str, Any]) -> ModelStream:
        self._only_chunk(options)
        stream: ModelStream = self._codec.model.encode_stream(self._codebooks, self._codec.backend)
        return stream

    def chunk(
        self, value: Chunk, inputs: dict[str, Array], batch: int | None
    ) -> tuple[Tensor, bool, dict[str, Tensor]]:
        self._only_chunk(inputs)
        channels = self._codec.channels
        if value is None:
            return torch.zeros((batch or 1, channels, 0), dtype=self.dtype, device=self.device), False, {}
        wav = self._codec._floats(value, "chunk")
        wav = wav[None] if wav.dim() == 1 and channels == 1 else wav
        if wav.dim() not in (2, 3) or wav.shape[-2] != channels or (wav.dim() == 3 and not len(wav)):
            raise ShapeError(f"chunk: expected [{channels}, n] or [B, {channels}, n], got {list(wav.shape)}")
        batched = wav.dim() == 3
        return (wav if batched else wav[None]).to(self.dtype), batched, {}

    def nothing(self, batch: int) -> Tensor:
        return torch.zeros((batch, self._rows, 0), dtype=torch.int64, device=self.device)

    def result(self, y: Tensor, batched: bool) -> Tensor:
        return (y if batched else y[0]).clone()
