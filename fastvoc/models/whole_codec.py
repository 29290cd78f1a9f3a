"""What codecs are to `fastvoc.codec`, and those that take a signal as a whole."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from math import log2
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import DtypeError, ShapeError
from fastvoc.models.families import Config, ModelConfig
from fastvoc.nn.model import Given, Model, Written
from fastvoc.nn.network import Network, Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.streams import ModelStream, NetworkStream
from fastvoc.ops._checks import check_lengths


class CodecConfig(ModelConfig, Protocol):
    """What every codec's configuration offers. A frame is what one step of the codes stands for."""

    @property
    def channels(self) -> int:
        """Audio channels."""

    @property
    def hop(self) -> int:
        """Samples per frame."""

    @property
    def frame_rate(self) -> float:
        """Frames per second."""

    @property
    def n_q(self) -> int:
        """Codebooks."""

    @property
    def bins(self) -> int:
        """Entries of a codebook."""

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """What `encode` offers, in kbit/s."""

    @property
    def normalize(self) -> bool:
        """Whether a signal is divided by its volume."""

    @property
    def segment_length(self) -> int | None:
        """Samples of a whole segment; None when signals are not cut."""

    @property
    def segment_stride(self) -> int | None:
        """Samples from the beginning of a segment to that of the next."""

    @property
    def rates(self) -> tuple[int, ...]:
        """Codes of every codebook in a frame, coarse first."""

    def codebooks(self, bandwidth: float) -> int:
        """Codebooks that a bandwidth in kbit/s pays for."""

    def frames(self, samples: int) -> list[int]:
        """Frames of codes in each segment of a signal."""

    def samples(self, frames: int) -> int:
        """Samples that a whole signal of so many frames decodes to."""


class WholeSignals(Config):
    """The part of a `CodecConfig` in which codecs are alike that take a mono signal as a whole and keep its volume."""

    channels: ClassVar[int] = 1
    normalize: ClassVar[bool] = False
    segment_length: ClassVar[int | None] = None
    segment_stride: ClassVar[int | None] = None
    sample_rate: int
    hop: int
    n_q: int
    bins: int

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def rates(self) -> tuple[int, ...]:
        """Codes of every codebook in a frame."""
        return (1,) * self.n_q

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """In kbit/s, of 1, 2, ... codebooks."""
        bits = log2(self.bins) * self.frame_rate / 1000
        return tuple(sum(self.rates[:count]) * bits for count in range(1, self.n_q + 1))

    def codebooks(self, bandwidth: float) -> int:
        """Codebooks that a bandwidth in kbit/s pays for, at least 1."""
        return max(1, sum(held <= bandwidth for held in self.bandwidths))

    def frames(self, samples: int) -> list[int]:
        """Frames of a signal, as its only segment."""
        return [-(-samples // self.hop)]

    def samples(self, frames: int) -> int:
        """Samples that so many frames decode to."""
        return frames * self.hop


class CodecModel(Model):
    """The module behind a `fastvoc.Codec`; `decode_inputs` are what its `decode` takes besides the codes.

    A model states `_encode(run, wav, *, n_q)` and `_decode(run, codes)`.
    """

    decode_inputs: tuple[str, ...] = ()
    config: CodecConfig

    def forward(
        self, wav: Tensor, n_q: int | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """Encodes and decodes [B, channels, S] with `n_q` codebooks, all when None -> [B, channels, S]."""
        segments, scale = self.encode(wav, n_q, lengths, backend)
        samples = [wav.shape[2]] * len(wav) if lengths is None else lengths.tolist()
        return self.decode(segments, scale, [self.config.frames(s) for s in samples], backend)[:, :, : wav.shape[2]]

    def encode(
        self, wav: Tensor, n_q: int | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Samples [B, channels, S] to codes [B, rows, T_i] of each segment, and volumes [B, segments] or None."""
        raise NotImplementedError

    def decode(
        self,
        segments: list[Tensor],
        scale: Tensor | None = None,
        frames: list[list[int]] | None = None,
        backend: str | None = None,
        **inputs: object,
    ) -> Tensor:
        """Codes of each segment, volumes and valid frames to samples [B, channels, S]."""
        raise NotImplementedError

    def decode_segment(
        self, codes: Tensor, volume: Tensor | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """Codes [B, rows, T] of one segment to samples; `lengths` are valid frames."""
        raise NotImplementedError

    def _decode(self, run: Trace, codes: Value) -> Value:
        raise NotImplementedError

    def encoding(self, n_q: int) -> Network:
        """The network from samples to the codes of so many codebooks."""
        return self.reading("_encode", (self.config.hop,), n_q=n_q)

    @property
    def decoding(self) -> Network:
        """The network from codes to samples."""
        return self.reading("_decode")

    def layers(self) -> dict[str, Prepared]:
        return {**self.encoding(self.config.n_q).layers, **self.decoding.layers}

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples and the networks; the codebooks are float32 at least."""
        weight: Tensor = next(self.parameters())
        return weight.dtype

    def decode_stream(self, backend: str | None = None, **inputs: object) -> ModelStream:
        """The decoder's state for codes that arrive in chunks. Raises ArgumentError where there is none."""
        raise NotImplementedError

    def encode_stream(self, n_q: int, backend: str | None = None) -> ModelStream:
        """The encoder's state for samples that arrive in chunks. Raises ArgumentError where there is none."""
        raise NotImplementedError

    @property
    def lookahead(self) -> tuple[int, int]:
        """Frames after a frame that its samples depend on, and samples after a frame that its codes depend on."""
        return 0, 0


class WholeCodec(CodecModel):
    """A codec that makes codes of a whole signal, with zeros up to whole frames unless its layers pad themselves."""

    pads_itself: ClassVar[bool] = False

    def encode(
        self, wav: Tensor, n_q: int | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Samples to codes.

        Args:
            wav: [B, 1, S], real numbers of any type, which become the model's.
            n_q: codebooks to use; all when None.
            lengths: [B] int64 on the CPU, valid samples of each item.
            backend: implementation to force for every op.

        Returns:
            Codes [B, rows, T] int64 in a list, 0 beyond an item's own frames; and None.

        Raises:
            ShapeError, DtypeError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        if wav.dim() != 3 or wav.shape[1] != 1 or 0 in wav.shape:
            raise ShapeError(f"wav: expected [B > 0, 1, S > 0], got {list(wav.shape)}")
        if wav.is_complex() or wav.dtype == torch.bool:
            raise DtypeError(f"wav: expected real samples, got {wav.dtype}")
        check_lengths(self.config.family, lengths, len(wav), wav.shape[2])
        wav, valid = (wav, lengths) if self.pads_itself else _whole_frames(wav, lengths, self.config.hop)
        n_q = self.config.n_q if n_q is None else n_q
        return [self.run(self.encoding(n_q), wav.to(self.dtype), lengths=valid, backend=backend)], None

    def decode(
        self,
        segments: list[Tensor],
        scale: Tensor | None = None,
        frames: list[list[int]] | None = None,
        backend: str | None = None,
        **inputs: object,
    ) -> Tensor:
        """Codes [B, rows, T] int64, the only segment, to samples [B, 1, S]; 0 beyond an item's own.

        frames: valid frames of each item, in a list of one; all when None. inputs: as `decode_segment`. Raises as
        `encode`.
        """
        (codes,) = segments
        counts = [codes.shape[2]] * len(codes) if frames is None else [row[0] for row in frames]
        whole = min(counts) == codes.shape[2]
        lengths = None if whole else torch.tensor(counts, device="cpu")
        return self.decode_segment(codes, None, lengths, backend, **inputs)

    def decode_segment(
        self, codes: Tensor, volume: Tensor | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """Codes [B, rows, T] -> [B, 1, S]; `lengths` are valid frames, `volume` is None."""
        return self.run(self.decoding, codes, lengths=lengths, backend=backend)

    def written(self, chosen: Collection[str] = ()) -> Written:
        """The decoder."""
        self._choose(chosen)
        return Written({"codes": Given(("batch", "codebooks", "frames"), whole=True)}, self._decode)

    def decode_stream(self, backend: str | None = None, **inputs: object) -> ModelStream:
        """The decoder's state for codes [B, rows, n] that arrive in chunks."""
        return NetworkStream(self.decoding, backend)

    def encode_stream(self, n_q: int, backend: str | None = None) -> ModelStream:
        """The encoder's state for samples [B, 1, n] that arrive in chunks -> codes [B, rows, m]."""
        if self.pads_itself:
            return NetworkStream(self.encoding(n_q), backend)
        return WholeFramesStream(self.encoding(n_q), backend, self.config.hop)

    @cached_property
    def lookahead(self) -> tuple[int, int]:
        hop = self.config.hop
        return self.decoding.reads(0, hop - 1)[1], self.encoding(self.config.n_q).reads(0, 0)[1] * hop


class _Count:
    """Samples given to a stream, as far as they do not make up whole frames."""

    def __init__(self, hop: int) -> None:
        self._hop, self._over = hop, 0

    @property
    def counters(self) -> tuple[int, ...]:
        return (self._over,)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        (self._over,) = counters

    def step(self, x: Tensor, final: bool) -> Tensor:
        """The chunk; the last one with the zeros that a whole frame lacks."""
        self._over = (self._over + x.shape[2]) % self._hop
        return F.pad(x, (0, self._hop - self._over)) if final and self._over else x


class WholeFramesStream(NetworkStream):
    """A batch of streams whose signals are padded with zeros to whole frames where they end."""

    def __init__(self, network: Network, backend: str | None, hop: int) -> None:
        super().__init__(network, backend)
        self._frames = _Count(hop)
        self.parts["frames"] = self._frames

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        return super().step(self._frames.step(x, final), final, **inputs)


def _whole_frames(wav: Tensor, lengths: Tensor | None, hop: int) -> tuple[Tensor, Tensor | None]:
    """Every item with zeros behind it up to whole frames, and its length with them."""
    steps = -(-wav.shape[2] // hop) * hop
    if lengths is None:
        return F.pad(wav, (0, steps - wav.shape[2])), None
    padded = wav.new_zeros((*wav.shape[:2], steps))
    for row, item, count in zip(padded, wav, lengths.tolist(), strict=True):
        row[:, :count] = item[:, :count]
    return padded, -(-lengths // hop) * hop
