"""What `fastvoc.load` returns for a neural codec: waveforms to codes and back, with the checks before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import log2
from operator import index
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.graphs.graphed import Graphed, GraphOptions
from fastvoc.graphs.requests import DecodingGraphable
from fastvoc.loaded import Lengths, LoadedModel, whole_lengths
from fastvoc.models.levels import packed, unpacked
from fastvoc.models.whole_codec import CodecConfig, CodecModel
from fastvoc.nn.model import Array
from fastvoc.runtime.stats import clock
from fastvoc.runtime.values import wrong_values
from fastvoc.sound.formats import Format
from fastvoc.streams.codec import Decoding, Encoding
from fastvoc.streams.delivery import Delivery

if TYPE_CHECKING:
    from typing_extensions import Unpack

_USUAL = 6.0  # kbit/s


@dataclass(frozen=True, eq=False)
class Codes:
    """What `Codec.encode` made of a waveform; `Codec.decode` takes it as it is.

    `segments` are codes [B, K, T_i] int64, one for a model that takes a signal as a whole, as EnCodec at 24 kHz;
    `scale` their volumes [B, segments] float32, None where the model does not normalise. `lengths` are the samples of
    each item; codes beyond an item's own frames are 0. `bandwidth` is in kbit/s, `rank` the number of dimensions of the
    waveform. `rates` are the codes of each codebook in a frame: where they are more than one, as in SNAC, a frame's
    codes lie one below the other in `segments`, coarse first, and `levels` tells them apart. `family` and `hop`, the
    samples of a frame, tell whose codes they are; a model refuses those of others, but asks nothing of None.
    """

    segments: tuple[Tensor, ...]
    scale: Tensor | None
    lengths: tuple[int, ...]
    bandwidth: float
    sample_rate: int
    rank: int = 3
    rates: tuple[int, ...] = ()
    family: str | None = None
    hop: int | None = None

    @property
    def levels(self) -> list[Tensor]:
        """The codes [B, T_k] of every codebook in order of time, the coarse one first."""
        return unpacked(self.codes, self.rates or (1,) * self.codes.shape[1])

    @property
    def codes(self) -> Tensor:
        """[B, K, T]: the segments one after the other."""
        return self.segments[0] if len(self.segments) == 1 else torch.cat(self.segments, 2)

    @property
    def length(self) -> int:
        """Samples of the longest item."""
        return max(self.lengths)

    def to(self, device: str | torch.device) -> Codes:
        """The same codes on another device."""
        scale = None if self.scale is None else self.scale.to(device)
        return replace(self, segments=tuple(s.to(device) for s in self.segments), scale=scale)

    def __repr__(self) -> str:
        shapes = ", ".join(str(list(s.shape)) for s in self.segments)
        return f"Codes({shapes}, {self.bandwidth:g} kbit/s, {self.length} samples at {self.sample_rate} Hz)"


class Codec(LoadedModel):
    """Waveforms in, codes out, and back.

    backend: the implementation to force for every op, None to choose.
    """

    model: CodecModel
    config: CodecConfig

    def __init__(self, model: CodecModel, config: CodecConfig, *, backend: str | None = None) -> None:
        super().__init__(model, config, backend=backend)

    def __repr__(self) -> str:
        kind, rates = type(self.model).__name__, ", ".join(f"{b:g}" for b in self.bandwidths)
        sound = f"{self.channels} channel{'s' if self.channels > 1 else ''}, {self.sample_rate} Hz"
        return f"Codec({kind}, {sound}, {rates} kbit/s, {self.dtype}, {self.device})"

    @property
    def channels(self) -> int:
        """Audio channels."""
        return int(self.config.channels)

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """What `encode` offers, in kbit/s."""
        return tuple(self.config.bandwidths)

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.config.frame_rate

    @property
    def has_levels(self) -> bool:
        """Whether the codebooks have codes of several rates, as in SNAC."""
        return len(set(self.config.rates)) > 1

    def packed(self, levels: Sequence[Array]) -> Tensor:
        """The codes [B, rows, T] or [rows, T] of levels [B, T_k] or [T_k] of several rates, the coarse one first.

        Raises ShapeError for levels that do not fit together, DtypeError and DeviceError as `decode`.
        """
        return packed([self._integers(level, "codes") for level in levels], self.config.rates)

    def check_decode_inputs(self, inputs: Mapping[str, object]) -> None:
        """Raises ArgumentError for what `decode` takes besides the codes of other models only."""
        if inputs and (unknown := sorted(set(inputs) - set(self.model.decode_inputs))):
            raise ArgumentError(f"{unknown[0]}: {type(self.model).__name__} takes none")

    def check_bandwidth(self, bandwidth: float) -> None:
        """Raises ArgumentError unless `encode` offers this bandwidth, in kbit/s."""
        self._offered(bandwidth)

    def _offered(self, bandwidth: float) -> float:
        """The model's own bandwidth that is meant, of which a message has six digits."""
        if isinstance(bandwidth, SupportsFloat):
            near = min(self.bandwidths, key=lambda own: abs(own - float(bandwidth)))
            if abs(near - float(bandwidth)) <= 1e-4 * near:
                return near
        known = ", ".join(f"{b:g}" for b in self.bandwidths)
        raise ArgumentError(f"bandwidth: expected one of {known} kbit/s, got {bandwidth!r}")

    def check_wav(self, wav: Array) -> Tensor:
        """One waveform as [C, S]. Raises ShapeError, DtypeError or DeviceError as `encode`."""
        batch = self._batch(self._floats(wav, "wav"))
        if len(batch) != 1:
            raise ShapeError(f"wav: expected one waveform, got a batch of {len(batch)}")
        return batch[0]

    def warmup(self, seconds: float = 1.0) -> Codec:
        """Encodes and decodes silence once, so that the first real call is as fast as the rest."""
        samples = max(1, int(seconds * self.sample_rate))
        silence = torch.zeros((self.channels, samples), dtype=torch.float32, device=self.device)
        self.decode(self.encode(silence, codebooks=1, check=False))
        return self

    def __call__(
        self, wav: Array, bandwidth: float | None = None, lengths: Lengths = None, *, codebooks: int | None = None
    ) -> Tensor:
        """Encodes and decodes: the waveform as it sounds after the codec, in the shape it came in."""
        return self.decode(self.encode(wav, bandwidth, lengths, codebooks=codebooks))

    def encode(
        self,
        wav: Array,
        bandwidth: float | None = None,
        lengths: Lengths = None,
        *,
        codebooks: int | None = None,
        exact: bool = False,
        check: bool | None = None,
    ) -> Codes:
        """Makes codes of a waveform.

        Args:
            wav: [S] (mono models), [C, S] or [B, C, S] samples at `sample_rate`, any floating-point type, on the
                model's device (numpy: anywhere).
            bandwidth: one of `bandwidths`, in kbit/s; it decides how many codebooks are used. 6 when None, or the
                greatest where the model has no 6.
            codebooks: so many codebooks, in the place of a bandwidth.
            exact: compute as a stream does (`fastvoc.use_exact`): slower, most of all for DAC and SNAC, and on the C++
                CPU implementation equal to it; otherwise codes between which there is next to nothing may differ.
            lengths: [B] whole numbers, the valid samples of each item of a batch.
            check: also look at the values: NaN and infinity inside the lengths raise. None: True on the CPU.

        Raises:
            ShapeError, DtypeError, DeviceError: the argument that does not fit, before any computation.
            ArgumentError: a bandwidth or a number of codebooks that the model does not have, lengths outside 1..S, NaN
                or infinity.
        """
        stats = self.stats
        start = stats.begin()
        try:
            wav = self._floats(wav, "wav")
            n_q, bandwidth = self._wanted(bandwidth, codebooks)
            batch, samples, sizes = self._checked_wav(wav, lengths, check)
            checked = clock()
            with torch.inference_mode(), self.computing(len(batch), batch.shape[2], exact):
                segments, scale = self.model.encode(batch.to(self.input_dtype), n_q, samples, self.backend)
            computed = clock()
            # Ordinary tensors, which may be changed in place.
            own = tuple(segment.clone() for segment in segments), None if scale is None else scale.clone()
            rates = tuple(self.config.rates[:n_q])
            codes = Codes(*own, tuple(sizes), bandwidth, self.sample_rate, wav.dim(), rates, *self._origin)
        except BaseException as error:
            stats.failed("encode", start, error)
            raise
        frames = len(batch) * sum(segment.shape[2] for segment in codes.segments)
        if samples is not None:
            frames = sum(sum(self.config.frames(size)) for size in sizes)
        stats.made("encode", start, checked, computed, frames)
        return codes

    def _checked_wav(
        self, wav: Tensor, lengths: Lengths, check: bool | None
    ) -> tuple[Tensor, Tensor | None, list[int]]:
        """The arguments of `encode` as the model takes them, [B, C, S], and the samples of each item."""
        batch = self._batch(wav)
        if lengths is not None and wav.dim() != 3:
            raise ShapeError(f"lengths: only for a batch [B, C, S], got a wav of shape {list(wav.shape)}")
        samples = whole_lengths(lengths, len(batch), batch.shape[2])
        sizes = [batch.shape[2]] * len(batch) if samples is None else samples.tolist()
        if self._checks(check):
            for i, (item, size) in enumerate(zip(batch, sizes, strict=True)):
                if wrong := wrong_values(item[:, :size]):
                    where = "" if len(batch) == 1 else f" in item {i}"
                    raise ArgumentError(f"wav: holds {wrong}{where}")
        return batch, samples, sizes

    def decode(
        self,
        codes: Codes | Array | Sequence[Array],
        scale: Array | None = None,
        lengths: Lengths = None,
        *,
        seed: int | Sequence[int] | Tensor | None = None,
        noise: Sequence[Tensor] | int | None = None,
        exact: bool = False,
        check: bool | None = None,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
    ) -> Tensor:
        """Makes the waveform of codes.

        Args:
            codes: what `encode` returned; or codes [B, K, T] or [K, T] of any integer type, K from 1 to all codebooks;
                or, for a model that cuts signals into segments (EnCodec at 48 kHz), a sequence of those, one of each
                segment; or, for one of several rates (SNAC), the levels [B, T_k] or [T_k] of the codebooks, the coarse
                one first. On the model's device (numpy: anywhere).
            scale: with plain codes, the volumes [B, segments] or [segments]; 1 when None.
            lengths: with plain codes, the samples [B] of each item, to which the result is cut; when None it is as long
                as the codes make it.
            seed: of a model with noise (SNAC): an int, or one per item, 0 when None. Equal seeds give an item the same
                noise in any batch and in a stream.
            noise: of such a model: 0 for none, or standard normal noise [B, 1, T_i] for every stage of its decoder.
            exact: compute as a stream does (`fastvoc.use_exact`): slower, most of all for DAC and SNAC, and equal to it
                bit for bit on the C++ CPU implementation.
            check: also look at the values, for which the host waits. None: True on the CPU; elsewhere a code outside
                the codebooks counts as the nearest one, and `codec.check()` tells of it.
            rate, format, dither: of the samples, as `Vocoder` has them in a call.

        Returns:
            Samples, float32 unless another format is asked for, [B, C, S], or [C, S] for codes [K, T]; for `Codes` in
            the shape that was encoded. DAC's odd rates make a few samples less than the codes stand for: then the last
            ones of a signal are missing.

        Raises:
            ShapeError, DtypeError, DeviceError: the argument that does not fit, before any computation.
            ArgumentError: codes of another model; a seed or noise for a model that has none; with `check` a code
                outside the codebooks, a volume that is not finite and positive; no such rate or format, dither of
                another format than s16.
        """
        stats, clipped = self.stats, None
        start = stats.begin()
        try:
            delivery = None
            if rate is not None or format != "f32" or dither is not None:
                delivery = Delivery.of(self.sample_rate, rate, format, dither)
            inputs = {name: value for name, value in (("seed", seed), ("noise", noise)) if value is not None}
            self.check_decode_inputs(inputs)
            segments, volumes, frames, finish = self.checked(codes, scale, lengths, values=self._checks(check))
            checked = clock()
            with torch.inference_mode(), self.computing(len(frames), max(map(sum, frames)) * self.hop, exact):
                wav = self.model.decode(segments, volumes, frames, self.backend, **inputs).float()
            computed = clock()
            wav = finish(wav)
            if delivery is not None:
                sizes = codes.lengths if isinstance(codes, Codes) else lengths
                wav, clipped = self._delivered(delivery, wav, sizes)
        except BaseException as error:
            stats.failed("decode", start, error)
            raise
        stats.made("decode", start, checked, computed, sum(map(sum, frames)), clipped)
        return wav

    @torch.inference_mode()
    def _delivered(self, delivery: Delivery, wav: Tensor, sizes: Lengths) -> tuple[Tensor, int | Tensor | None]:
        """Samples of any shape in another rate and format, and how many were clipped."""
        counts = None if sizes is None else torch.as_tensor(sizes, device="cpu").tolist()
        out, clipped = delivery.whole(wav if counts is None or wav.dim() == 3 else wav[None], counts)
        with torch.inference_mode(False):
            return out.view(*wav.shape[:-1], out.shape[-1]).clone(), clipped

    def checked(
        self,
        codes: Codes | Array | Sequence[Array],
        scale: Array | None,
        lengths: Lengths,
        *,
        values: bool = True,
    ) -> tuple[list[Tensor], Tensor | None, list[list[int]], Callable[[Tensor], Tensor]]:
        """The arguments of `decode` as the model takes them: segments, volumes, valid frames of each item's segments.

        And what makes the user's view of the samples [B, C, S]. Raises as `decode`; `values` also
        looks at the codes and volumes, for which the host waits.
        """
        rank = 3
        if isinstance(codes, Codes):
            if scale is not None or lengths is not None:
                raise ArgumentError("scale, lengths: only with plain codes, `Codes` have their own")
            if codes.sample_rate != self.sample_rate:
                raise ArgumentError(f"codes: made at {codes.sample_rate} Hz, this model is for {self.sample_rate} Hz")
            family, hop = self._origin
            if codes.family not in (None, family) or codes.hop not in (None, hop):
                made = f"made by {codes.family or 'a model'} with {codes.hop or hop} samples a frame"
                raise ArgumentError(f"codes: {made}, this model is {family} with {hop}")
            rank, lengths = codes.rank, codes.lengths
            segments, scale = [self._codes(s, 3) for s in codes.segments], codes.scale
        else:
            parts = [codes] if isinstance(codes, Tensor | np.ndarray) else codes
            if not isinstance(parts, Sequence) or not parts:
                raise DtypeError(f"codes: expected codes or a sequence of them, got {type(codes).__name__}")
            if parts is codes and self.has_levels:
                parts = [self.packed(parts)]
            rank = 2 if getattr(parts[0], "ndim", 0) == 2 else 3
            segments = [self._codes(part, rank) for part in parts]
        frames = self._frames(segments, lengths)
        volumes = self._volumes(scale, segments)
        if values:
            self._check_values(segments, volumes, frames)
        sizes = None if lengths is None else torch.as_tensor(lengths, device="cpu").tolist()

        def finish(wav: Tensor) -> Tensor:
            wav = wav if sizes is None else wav[:, :, : max(sizes)]
            wav = wav.clone() if wav.is_inference() else wav.contiguous()  # an ordinary tensor
            if sizes is not None:
                for row, size in zip(wav, sizes, strict=True):
                    row[:, size:] = 0.0
            return wav if rank == 3 else wav[0] if rank == 2 else wav[0, 0]

        return segments, volumes, frames, finish

    def graphs(self, max_mb: float = 1024.0, **options: Unpack[GraphOptions]) -> Graphed:
        """`decode` run from CUDA graphs, whose memory keeps within `max_mb`; see `fastvoc.Graphed`.

        Codes out of range raise when its `check` is called. Raises ArgumentError for a model that cuts signals into
        segments (EnCodec at 48 kHz).
        """
        return Graphed(self, max_mb, **options)

    def graphable(self) -> DecodingGraphable:
        """`decode` as `fastvoc.graphs.graphed` sees it."""
        return DecodingGraphable(self)

    def decoding(self, codebooks: int | None = None) -> Decoding:
        """Live decoding of so many codebooks, all when None: `.stream()` for one signal, `fastvoc.Streams` for many.

        Raises ArgumentError for a number of codebooks that the model does not have.
        """
        return Decoding(self, self.config.n_q if codebooks is None else self._count(codebooks))

    def encoding(self, bandwidth: float | None = None, *, codebooks: int | None = None) -> Encoding:
        """Live encoding at a bandwidth in kbit/s, or with so many codebooks, as `encode` has them.

        Raises ArgumentError for what the model does not have.
        """
        return Encoding(self, self._wanted(bandwidth, codebooks)[0])

    def codebooks(self, bandwidth: float | None = None, codebooks: int | None = None) -> int:
        """Codebooks that `encode` uses for these arguments. Raises ArgumentError for what the model does not have."""
        return self._wanted(bandwidth, codebooks)[0]

    @property
    def _origin(self) -> tuple[str, int]:
        """What tells its codes from those of other models."""
        return str(self.config.family), int(self.hop)

    def _count(self, codebooks: int) -> int:
        whole = not isinstance(codebooks, bool) and hasattr(codebooks, "__index__")
        if not whole or not 1 <= index(codebooks) <= self.config.n_q:
            raise ArgumentError(f"codebooks: expected 1..{self.config.n_q}, got {codebooks!r}")
        return index(codebooks)

    def _wanted(self, bandwidth: float | None, codebooks: int | None) -> tuple[int, float]:
        """Codebooks and kbit/s of an encoding."""
        if codebooks is not None:
            if bandwidth is not None:
                raise ArgumentError("bandwidth, codebooks: expected one of them")
            count = self._count(codebooks)
            return count, sum(self.config.rates[:count]) * log2(self.config.bins) * self.frame_rate / 1000
        if bandwidth is None:
            bandwidth = _USUAL if _USUAL in self.bandwidths else max(self.bandwidths)
        bandwidth = self._offered(bandwidth)
        return self.config.codebooks(bandwidth), float(bandwidth)

    def _batch(self, wav: Tensor) -> Tensor:
        """[B, C, S] of a waveform of any rank."""
        channels, shape = self.channels, list(wav.shape)
        forms = "[S], [1, S] or [B, 1, S]" if channels == 1 else f"[{channels}, S] or [B, {channels}, S]"
        if wav.dim() == 1 and channels == 1 and wav.numel():
            return wav[None, None]
        fits = wav.dim() in (2, 3) and wav.shape[-2] == channels and wav.numel()
        if not fits:
            hint = ""
            if wav.dim() in (2, 3) and shape[-1] == channels != shape[-2]:
                hint = ": it is transposed; pass wav.transpose(-1, -2)"
            elif wav.dim() == 1 and wav.numel():
                hint = f": a mono signal; pass wav.expand({channels}, -1)"
            raise ShapeError(f"wav: expected {forms}, got {shape}{hint}")
        return wav if wav.dim() == 3 else wav[None]

    def _codes(self, value: Any, rank: int) -> Tensor:
        """Codes as int64 [B, K, T] on the model's device."""
        codes = self._integers(value, "codes")
        rows, shape = list(accumulate(self.config.rates)), list(codes.shape)
        if codes.dim() != rank or 0 in shape or codes.shape[-2] not in rows:
            books = f"1..{len(rows)}" if rows[-1] == len(rows) else ", ".join(map(str, rows))
            form = f"[B, K, T] with K in {books}, B, T > 0" if rank == 3 else f"[K, T] with K in {books}, T > 0"
            raise ShapeError(f"codes: expected {form}, got {shape}")
        return codes if rank == 3 else codes[None]

    def _frames(self, segments: list[Tensor], lengths: Lengths) -> list[list[int]]:
        """Valid frames of each item's segments; raises where the segments do not make up a signal."""
        batch, books = segments[0].shape[:2]
        for i, segment in enumerate(segments):
            if segment.shape[:2] != (batch, books):
                expected, got = f"[{batch}, {books}, T]", list(segment.shape)
                raise ShapeError(f"codes: segment {i}: expected {expected} like the first one, got {got}")
        sizes = [segment.shape[2] for segment in segments]
        if lengths is not None:
            samples = whole_lengths(lengths, batch, 1 << 62)
            frames = [self.config.frames(int(n)) for n in ([] if samples is None else samples)]
            needed = max(frames, key=len)
            most = [max(row[i] for row in frames if i < len(row)) for i in range(len(needed))]
            if len(sizes) != len(most) or any(size < m for size, m in zip(sizes, most, strict=True)):
                raise ShapeError(f"codes: the lengths call for segments of {most} frames, got {sizes}")
            return frames
        stride = self.config.segment_stride
        if stride is None and len(sizes) > 1:
            raise ShapeError(f"codes: this model does not cut signals into segments, got {len(sizes)} of them")
        if stride is not None and self.config.segment_length is not None:
            full = -(-self.config.segment_length // self.hop)
            if max(sizes) > min(full, sizes[0]) or any(size * self.hop < stride for size in sizes[:-1]):
                expected = f"{-(-stride // self.hop)}..{full} frames, the last no more than the first"
                raise ShapeError(f"codes: expected segments of {expected}, got {sizes}")
        return [sizes] * batch

    def _volumes(self, scale: Array | None, segments: list[Tensor]) -> Tensor | None:
        if scale is None:
            return None
        volumes = self._floats(scale, "scale").float()
        if not self.config.normalize:
            raise ArgumentError("scale: this model does not normalise its input, expected None")
        shape = (len(segments[0]), len(segments))
        if volumes.shape != shape and not (shape[0] == 1 and volumes.shape == shape[1:]):
            raise ShapeError(f"scale: expected {list(shape)}, [items, segments], got {list(volumes.shape)}")
        return volumes.reshape(shape)

    def _check_values(self, segments: list[Tensor], volumes: Tensor | None, frames: list[list[int]]) -> None:
        """Codes must be in the codebooks, volumes finite and above 0."""
        last = int(self.config.bins) - 1
        low, high = torch.cat([segment.flatten() for segment in segments]).aminmax()
        if int(low) >= 0 and int(high) <= last and (volumes is None or bool(_audible(volumes).all())):
            return
        # What is wrong may still lie in padding.
        for item, row in enumerate(frames):
            for i, size in enumerate(row):
                low, high = segments[i][item, :, :size].aminmax()
                if int(low) < 0 or int(high) > last:
                    got = f"{int(low)}..{int(high)} in item {item}"
                    raise ArgumentError(f"codes: expected values in 0..{last}, got {got}")
                if volumes is not None and not bool(_audible(volumes[item, i])):
                    raise ArgumentError(f"scale: expected finite volumes above 0, got {float(volumes[item, i])}")


def _audible(volumes: Tensor) -> Tensor:
    return (volumes > 0) & volumes.isfinite()
