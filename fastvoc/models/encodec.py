"""EnCodec (Défossez et al. 2022, arXiv 2210.13438; github.com/facebookresearch/encodec)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from math import ceil, floor, log2, prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.models.families import meta_tensors
from fastvoc.models.segments import Segment, cut, frames_of, overlap_add
from fastvoc.nn.lstm import Lstm
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.rvq import ResidualVectorQuantizer
from fastvoc.nn.seanet import SeanetBlock, SeanetConv, SeanetStyle, SeanetUpsample
from fastvoc.ops.activation import elu

_NORMS = ("weight_norm", "time_group_norm")
# The published sizes are a hundredth of these; beyond them lies only a file made to exhaust memory.
_MOST_LAYERS, _MOST_CHANNELS = 16, 1 << 14
# Segments that go through the network together.
_TOGETHER = 16


@dataclass(frozen=True)
class EncodecConfig:
    """The codec's shape, in the names of the original constructors.

    `ratios` are those of the decoder, first to last. `segment` is the length in seconds of the pieces that a signal is
    cut into, None for whole signals; `overlap` is the part of a piece that the next one repeats. `normalize` divides
    every piece by its volume. `bandwidths` are in kbit/s. `conv_shortcut`: a block's shortcut is a convolution.
    """

    family: ClassVar[str] = "encodec"

    sample_rate: int = 24000
    channels: int = 1
    bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    causal: bool = True
    norm: str = "weight_norm"
    normalize: bool = False
    segment: float | None = None
    overlap: float = 0.01
    n_filters: int = 32
    dimension: int = 128
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    n_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    conv_shortcut: bool = True
    lstm: int = 2
    pad_mode: str = "reflect"
    trim_right_ratio: float = 1.0
    n_q: int = 32
    bins: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", tuple(self.ratios))
        object.__setattr__(self, "bandwidths", tuple(float(b) for b in self.bandwidths))
        _validate(self)

    @property
    def name(self) -> str:
        """What .ecdc files call the model, `encodec_24khz` for example."""
        return f"encodec_{self.sample_rate // 1000}khz"

    @property
    def hop(self) -> int:
        """Samples per frame of codes."""
        return prod(self.ratios)

    @property
    def frame_rate(self) -> int:
        """Frames of codes per second."""
        return ceil(self.sample_rate / self.hop)

    @property
    def segment_length(self) -> int | None:
        """Samples of a whole segment; None when signals are not cut."""
        return None if self.segment is None else int(self.segment * self.sample_rate)

    @property
    def segment_stride(self) -> int | None:
        """Samples from the beginning of a segment to that of the next."""
        return None if self.segment_length is None else max(1, int((1 - self.overlap) * self.segment_length))

    def frames(self, samples: int) -> list[int]:
        """Frames of codes in each segment of a signal."""
        if self.segment_length is None or self.segment_stride is None:
            return [-(-samples // self.hop)]
        return frames_of(samples, self.segment_length, self.segment_stride, self.hop)

    def codebooks(self, bandwidth: float) -> int:
        """Codebooks that a bandwidth in kbit/s pays for, at least 1."""
        return max(1, floor(bandwidth * 1000 / (log2(self.bins) * self.frame_rate)))

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of the model's state, in its order."""
        return meta_tensors(self)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncodecConfig:
        """Reads what `to_dict` wrote. Raises ArgumentError naming an unknown or bad field."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ArgumentError(f"EncodecConfig: unknown field {unknown[0]!r}")
        return cls(**values)


def _validate(c: EncodecConfig) -> None:
    def require(ok: bool, field: str, expected: str) -> None:
        if not ok:
            raise ArgumentError(f"EncodecConfig.{field}: got {getattr(c, field)!r}, expected {expected}")

    def integer(field: str, most: int) -> None:
        value = getattr(c, field)
        ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
        require(ok, field, f"an integer from 1 to {most}")

    integer("sample_rate", 1 << 20)
    integer("channels", 2)
    for field in ("n_filters", "dimension", "compress"):
        integer(field, _MOST_CHANNELS)
    for field in ("n_residual_layers", "lstm"):
        integer(field, _MOST_LAYERS)
    for field in ("kernel_size", "last_kernel_size", "residual_kernel_size"):
        integer(field, 1 << 10)
    integer("dilation_base", 16)
    integer("n_q", 1 << 10)
    integer("bins", 1 << 20)
    require(c.bins > 1, "bins", "at least 2")
    for field in ("causal", "normalize", "conv_shortcut"):
        require(isinstance(getattr(c, field), bool), field, "true or false")
    require(c.norm in _NORMS, "norm", f"one of {', '.join(_NORMS)}")
    require(c.pad_mode in ("reflect", "replicate", "zeros"), "pad_mode", "reflect, replicate or zeros")
    ratios = all(isinstance(r, int) and 1 <= r <= 1 << 10 for r in c.ratios)
    require(ratios and 1 <= len(c.ratios) <= 8, "ratios", "1 to 8 integers from 1 to 1024")
    require(c.n_filters << len(c.ratios) <= _MOST_CHANNELS, "n_filters", f"no layer of over {_MOST_CHANNELS} channels")
    require(c.compress <= c.n_filters, "compress", f"at most the {c.n_filters} filters")
    require(0.0 <= c.trim_right_ratio <= 1.0, "trim_right_ratio", "a number from 0 to 1")
    require(c.causal or c.trim_right_ratio == 1.0, "trim_right_ratio", "1 for a network that is not causal")
    dilated = c.dilation_base ** (c.n_residual_layers - 1) * (c.residual_kernel_size - 1)
    require(dilated <= 1 << 16, "dilation_base", "a block that spans at most 65536 steps")
    require(c.segment is None or 0 < c.segment <= 3600, "segment", "seconds up to 3600, or None")
    require(c.segment_length is None or c.segment_length > 0, "segment", "at least one sample")
    require(0.0 <= c.overlap < 1.0, "overlap", "a number from 0, below 1")
    rates = all(0 < b < 1e6 for b in c.bandwidths) and list(c.bandwidths) == sorted(set(c.bandwidths))
    require(rates and bool(c.bandwidths), "bandwidths", "positive numbers, the smallest first")
    most = c.codebooks(c.bandwidths[-1])
    require(most <= c.n_q, "n_q", f"at least the {most} that {c.bandwidths[-1]} kbit/s takes")


ENCODEC_24K = EncodecConfig()
ENCODEC_48K = EncodecConfig(
    sample_rate=48000,
    channels=2,
    bandwidths=(3.0, 6.0, 12.0, 24.0),
    causal=False,
    norm="time_group_norm",
    normalize=True,
    segment=1.0,
    n_q=16,
)


class SeanetStack(nn.Module):
    """Layers that run one after the other, under the numbers that the published files give them."""

    def __init__(self, layers: dict[int, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(number): layer for number, layer in layers.items()})

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, in, T] -> [B, out, T_out]."""
        for layer in self.layers.values():
            x = layer(x, lengths, backend)
            if isinstance(layer, SeanetConv | SeanetUpsample):
                lengths = layer.output_lengths(lengths)
        return x

    def named(self, name: str) -> dict[str, Prepared]:
        """The layers by name, in order of use."""
        rows: dict[str, Prepared] = {}
        for number, layer in self.layers.items():
            if isinstance(layer, Lstm):
                rows[f"{name}.{number}"] = layer.prepared
            elif isinstance(layer, SeanetConv | SeanetUpsample | SeanetBlock):
                rows |= {f"{name}.{number}.{part}": prepared for part, prepared in layer.layers().items()}
        return rows


def _encoder(c: EncodecConfig, style: SeanetStyle) -> SeanetStack:
    layers: dict[int, nn.Module] = {0: SeanetConv(c.channels, c.n_filters, c.kernel_size, style)}
    at, width = 1, c.n_filters
    for ratio in reversed(c.ratios):
        for j in range(c.n_residual_layers):
            layers[at] = _block(c, width, j, style)
            at += 1
        # Numbers that are left out are those of activations.
        layers[at + 1] = SeanetConv(width, 2 * width, 2 * ratio, style, stride=ratio, pre=elu())
        at, width = at + 2, 2 * width
    layers[at] = Lstm(width, width, c.lstm, skip=True)
    layers[at + 2] = SeanetConv(width, c.dimension, c.last_kernel_size, style, pre=elu())
    return SeanetStack(layers)


def _decoder(c: EncodecConfig, style: SeanetStyle) -> SeanetStack:
    width = c.n_filters << len(c.ratios)
    layers: dict[int, nn.Module] = {0: SeanetConv(c.dimension, width, c.kernel_size, style)}
    layers[1] = Lstm(width, width, c.lstm, skip=True)
    at = 2
    for ratio in c.ratios:
        layers[at + 1] = SeanetUpsample(width, width // 2, ratio, style)
        at, width = at + 2, width // 2
        for j in range(c.n_residual_layers):
            layers[at] = _block(c, width, j, style)
            at += 1
    layers[at + 1] = SeanetConv(width, c.channels, c.last_kernel_size, style, pre=elu())
    return SeanetStack(layers)


def _block(c: EncodecConfig, width: int, layer: int, style: SeanetStyle) -> SeanetBlock:
    hidden, dilation = width // c.compress, c.dilation_base**layer
    return SeanetBlock(
        width,
        hidden,
        c.residual_kernel_size,
        dilation,
        causal=style.causal,
        pad_mode=style.pad_mode,
        conv_shortcut=c.conv_shortcut,
        norm=style.norm,
    )


class Encodec(nn.Module):
    """The codec: samples to codes and back.

    Parameters carry the numbers of the published files with weight norm folded: `encoder.layers.{n}`,
    `decoder.layers.{n}`, `quantizer.codebooks.{k}` [bins, dimension].
    """

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        style = SeanetStyle(config.causal, config.norm != "weight_norm", config.pad_mode, config.trim_right_ratio)
        self.encoder = _encoder(config, style)
        self.quantizer = ResidualVectorQuantizer(config.n_q, config.bins, config.dimension)
        self.decoder = _decoder(config, style)

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
        """Samples to codes, segment by segment; all segments of the batch run together.

        Args:
            wav: [B, channels, S].
            n_q: codebooks to use; all when None.
            lengths: [B] int64 on the CPU, valid samples of each item.
            backend: implementation to force for every op.

        Returns:
            Codes [B, n_q, T_i] int64 of each segment (one when the configuration does not cut), 0 beyond an item's own
            frames, and the volumes [B, segments] float32 that they are to be multiplied with, 1 where an item has no
            such segment; None when the configuration does not normalise.

        Raises:
            ShapeError, DtypeError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        if wav.dim() != 3 or wav.shape[1] != self.config.channels or 0 in wav.shape:
            raise ShapeError(f"wav: expected [B > 0, {self.config.channels}, S > 0], got {list(wav.shape)}")
        n_q = self.config.n_q if n_q is None else n_q
        length, stride = self.config.segment_length, self.config.segment_stride
        if length is None or stride is None:
            codes, volume = self.encode_segment(wav, n_q, lengths, backend)
            return [codes], None if volume is None else volume[:, None]
        samples = [wav.shape[2]] * len(wav) if lengths is None else lengths.tolist()
        pieces = cut(samples, length, stride)
        count = max(piece.index for piece in pieces) + 1
        longest = [max(-(-p.size // self.config.hop) for p in pieces if p.index == i) for i in range(count)]
        out = [wav.new_zeros((len(wav), n_q, frames), dtype=torch.int64) for frames in longest]
        scale = wav.new_ones((len(wav), count), dtype=torch.float32) if self.config.normalize else None
        for group in _groups(pieces, length):
            sizes = torch.tensor([piece.size for piece in group])
            batch = wav.new_zeros((len(group), wav.shape[1], int(sizes.max())))
            for row, piece in zip(batch, group, strict=True):
                row[:, : piece.size] = wav[piece.item, :, piece.start : piece.start + piece.size]
            whole = int(sizes.min()) == batch.shape[2]
            codes, volume = self.encode_segment(batch, n_q, None if whole else sizes, backend)
            for i, piece in enumerate(group):
                frames = -(-piece.size // self.config.hop)
                out[piece.index][piece.item, :, :frames] = codes[i, :, :frames]
                if scale is not None and volume is not None:
                    scale[piece.item, piece.index] = volume[i]
        return out, scale

    def decode(
        self,
        segments: list[Tensor],
        scale: Tensor | None = None,
        frames: list[list[int]] | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """Codes to samples; the segments are faded into each other.

        Args:
            segments: codes [B, K, T_i] int64 of each segment, K at most `config.n_q`.
            scale: volumes [B, segments]; None leaves the segments as they are.
            frames: valid frames of each item's segments, all T_i of all when None.
            backend: implementation to force for every op.

        Returns:
            [B, channels, S] with S of the longest item, as a rule a little longer than what was encoded; 0 beyond an
            item's own samples.

        Raises:
            ShapeError, DtypeError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        if frames is None:
            frames = [[segment.shape[2] for segment in segments]] * len(segments[0])
        stride, hop = self.config.segment_stride, self.config.hop
        if stride is None:
            counts = torch.tensor([row[0] for row in frames])
            whole = int(counts.min()) == segments[0].shape[2]
            volume = None if scale is None else scale[:, 0]
            return self.decode_segment(segments[0], volume, None if whole else counts, backend)
        pieces = [Segment(b, i, 0, size) for b, row in enumerate(frames) for i, size in enumerate(row)]
        made: dict[tuple[int, int], Tensor] = {}
        for group in _groups(pieces, max(piece.size for piece in pieces)):
            sizes = torch.tensor([piece.size for piece in group])
            codes = segments[0].new_zeros((len(group), segments[0].shape[1], int(sizes.max())))
            for row, piece in zip(codes, group, strict=True):
                row[:, : piece.size] = segments[piece.index][piece.item, :, : piece.size]
            volume = None if scale is None else torch.stack([scale[p.item, p.index] for p in group])
            whole = int(sizes.min()) == codes.shape[2]
            wav = self.decode_segment(codes, volume, None if whole else sizes, backend)
            for row, piece in zip(wav, group, strict=True):
                made[piece.item, piece.index] = row[:, : piece.size * hop]
        rows = [overlap_add([made[b, i] for i in range(len(row))], stride) for b, row in enumerate(frames)]
        longest = max(row.shape[1] for row in rows)
        return torch.stack([nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows])

    def encode_segment(
        self, wav: Tensor, n_q: int, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, channels, S] -> codes [B, n_q, ceil(S / hop)] and volumes [B], None without normalisation."""
        volume = _volume(wav, lengths) if self.config.normalize else None
        if volume is not None:
            wav = (wav / volume[:, None, None]).to(wav.dtype)
        z = self.encoder(wav, lengths, backend)
        frames = None if lengths is None else -(-lengths // self.config.hop)
        return self.quantizer.encode(z, n_q, frames, backend), volume

    def decode_segment(
        self,
        codes: Tensor,
        volume: Tensor | None = None,
        lengths: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """Codes [B, K, T] and volumes [B] -> [B, channels, T * hop]; `lengths` are valid frames."""
        wav: Tensor = self.decoder(self.quantizer.decode(codes, lengths, backend), lengths, backend)
        return wav if volume is None else (wav * volume[:, None, None]).to(wav.dtype)

    def layers(self) -> dict[str, Prepared]:
        """The layers by name, in order of use."""
        quantizer = {"quantizer.encode": self.quantizer.encoder, "quantizer.decode": self.quantizer.decoder}
        return {**self.encoder.named("encoder"), **quantizer, **self.decoder.named("decoder")}

    def prepare(self, backend: str | None = None) -> None:
        """Chooses every layer's implementation and packs its weights, so that the first call is as fast as the rest."""
        weight = self.quantizer.codebooks[0]
        for layer in self.layers().values():
            layer.prepare(weight.device, weight.dtype, backend)


def _groups(pieces: list[Segment], whole: int) -> Iterator[list[Segment]]:
    """Whole pieces and shorter ones apart, in groups that fit into memory."""
    for chosen in ([p for p in pieces if p.size == whole], [p for p in pieces if p.size != whole]):
        for i in range(0, len(chosen), _TOGETHER):
            yield chosen[i : i + _TOGETHER]


def _volume(wav: Tensor, lengths: Tensor | None) -> Tensor:
    """Root mean square [B] of the channels' mean, plus 1e-8.

    .ecdc streams hold it as it is: it is rounded as upstream rounds it, on one thread.
    """
    if lengths is not None:
        return torch.cat([_volume(row[None, :, :n], None) for row, n in zip(wav, lengths.tolist(), strict=True)])
    # A single long row would be shared out among the threads, which changes its sum.
    rows = wav.float().expand(2, -1, -1) if len(wav) == 1 else wav.float()
    mean = rows.mean(dim=1, keepdim=True).pow(2).mean(dim=2)
    return (mean.sqrt() + 1e-8)[: len(wav), 0]
