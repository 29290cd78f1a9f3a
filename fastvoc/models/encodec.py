"""EnCodec (Défossez et al. 2022, arXiv 2210.13438; github.com/facebookresearch/encodec)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.models.encodec_stream import EncodecStream
from fastvoc.models.mimi_config import MimiConfig
from fastvoc.models.segments import Blend, Segment, cut
from fastvoc.models.whole_codec import CodecModel
from fastvoc.nn.lstm import Lstm
from fastvoc.nn.model import Given, Stated, Written
from fastvoc.nn.network import Trace, Value
from fastvoc.nn.rvq import ResidualVectorQuantizer
from fastvoc.nn.seanet import SeanetBlock, SeanetConv, SeanetStyle, SeanetUpsample
from fastvoc.ops._checks import check_lengths
from fastvoc.ops.activation import elu

SeanetLayer = SeanetConv | SeanetUpsample | SeanetBlock | Lstm

# Segments that go through the network together.
_TOGETHER = 16


class SeanetStack(Stated):
    """Layers that run one after the other, under the numbers that the published files give them."""

    def __init__(self, layers: dict[int, SeanetLayer]) -> None:
        super().__init__()
        self._numbered = list(layers.values())
        self._down = prod(layer.stride for layer in self._numbered if isinstance(layer, SeanetConv))
        self.layers = nn.ModuleDict({str(number): layer for number, layer in layers.items()})

    def network(self, run: Trace, x: Value) -> Value:
        """[B, in, T] -> [B, out, T_out]."""
        for layer in self._numbered:
            x = run(layer, x)
        return x

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, in, T] -> [B, out, T_out]; `x` is cast to the type of the weights."""
        return self.run(self.reading(per_frame=(self._down,)), x, lengths=lengths, backend=backend)


def seanet_encoder(c: EncodecConfig | MimiConfig, style: SeanetStyle, channels: int, lstm: int = 0) -> SeanetStack:
    """From samples to the latent; lstm: layers of one in front of the last convolution."""
    layers: dict[int, SeanetLayer] = {0: SeanetConv(channels, c.n_filters, c.kernel_size, style)}
    at, width = 1, c.n_filters
    for ratio in reversed(c.ratios):
        for j in range(c.n_residual_layers):
            layers[at] = _block(c, width, j, style)
            at += 1
        # Numbers that are left out are those of activations.
        layers[at + 1] = SeanetConv(width, 2 * width, 2 * ratio, style, stride=ratio, pre=elu())
        at, width = at + 2, 2 * width
    if lstm:
        layers[at] = Lstm(width, width, lstm, skip=True)
        at += 1
    layers[at + 1] = SeanetConv(width, c.dimension, c.last_kernel_size, style, pre=elu())
    return SeanetStack(layers)


def seanet_decoder(c: EncodecConfig | MimiConfig, style: SeanetStyle, channels: int, lstm: int = 0) -> SeanetStack:
    """From the latent to samples; lstm: layers of one behind the first convolution."""
    width = c.n_filters << len(c.ratios)
    layers: dict[int, SeanetLayer] = {0: SeanetConv(c.dimension, width, c.kernel_size, style)}
    if lstm:
        layers[1] = Lstm(width, width, lstm, skip=True)
    at = len(layers)
    for ratio in c.ratios:
        layers[at + 1] = SeanetUpsample(width, width // 2, ratio, style)
        at, width = at + 2, width // 2
        for j in range(c.n_residual_layers):
            layers[at] = _block(c, width, j, style)
            at += 1
    layers[at + 1] = SeanetConv(width, channels, c.last_kernel_size, style, pre=elu())
    return SeanetStack(layers)


def _block(c: EncodecConfig | MimiConfig, width: int, layer: int, style: SeanetStyle) -> SeanetBlock:
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


class Encodec(CodecModel):
    """The codec: samples to codes and back.

    Parameters carry the numbers of the published files with weight norm folded: `encoder.layers.{n}`,
    `decoder.layers.{n}`, `quantizer.codebooks.{k}` [bins, dimension].
    """

    config: EncodecConfig

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        style = SeanetStyle(config.causal, config.norm != "weight_norm", config.pad_mode, config.trim_right_ratio)
        self.encoder = seanet_encoder(config, style, config.channels, config.lstm)
        self.quantizer = ResidualVectorQuantizer(config.n_q, config.bins, config.dimension)
        self.decoder = seanet_decoder(config, style, config.channels, config.lstm)

    def encode(
        self, wav: Tensor, n_q: int | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Samples to codes, segment by segment; all segments of the batch run together.

        Args:
            wav: [B, channels, S], real numbers of any type, which become the model's.
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
        if wav.is_complex() or wav.dtype == torch.bool:
            raise DtypeError(f"wav: expected real samples, got {wav.dtype}")
        check_lengths("encodec", lengths, len(wav), wav.shape[2])
        n_q = self.config.n_q if n_q is None else n_q
        length, stride = self.config.segment_length, self.config.segment_stride
        if length is None or stride is None:
            codes, volume = self.encode_segment(wav, n_q, lengths, backend)
            return [codes], None if volume is None else volume[:, None]
        samples = [wav.shape[2]] * len(wav) if lengths is None else lengths.tolist()
        pieces = cut(samples, length, stride)
        longest: dict[int, int] = {}
        for piece in pieces:
            longest[piece.index] = max(longest.get(piece.index, 0), -(-piece.size // self.config.hop))
        out = [wav.new_zeros((len(wav), n_q, longest[i]), dtype=torch.int64) for i in range(len(longest))]
        scale = wav.new_ones((len(wav), len(out)), dtype=torch.float32) if self.config.normalize else None
        for group in _groups(pieces, length):
            sizes = torch.tensor([piece.size for piece in group], device="cpu")
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
        **inputs: object,
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
            counts = [row[0] for row in frames]
            volume = None if scale is None else scale[:, 0]
            valid = None if min(counts) == segments[0].shape[2] else torch.tensor(counts, device="cpu")
            return self.decode_segment(segments[0], volume, valid, backend)
        pieces = [Segment(b, i, 0, size) for b, row in enumerate(frames) for i, size in enumerate(row)]
        blend = Blend([[size * hop for size in row] for row in frames], stride, segments[0].device)
        for group in _groups(pieces, max(piece.size for piece in pieces)):
            sizes = torch.tensor([piece.size for piece in group], device="cpu")
            codes = segments[0].new_zeros((len(group), segments[0].shape[1], int(sizes.max())))
            for row, piece in zip(codes, group, strict=True):
                row[:, : piece.size] = segments[piece.index][piece.item, :, : piece.size]
            volume = None if scale is None else torch.stack([scale[p.item, p.index] for p in group])
            whole = int(sizes.min()) == codes.shape[2]
            wav = self.decode_segment(codes, volume, None if whole else sizes, backend)
            for row, piece in zip(wav, group, strict=True):
                blend.add(piece.item, piece.index, row[:, : piece.size * hop])
        return blend.whole()

    def encode_segment(
        self, wav: Tensor, n_q: int, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, channels, S] -> codes [B, n_q, ceil(S / hop)] and volumes [B], None without normalisation."""
        volume = _volume(wav, lengths) if self.config.normalize else None
        if volume is not None:
            wav = wav / volume[:, None, None]
        return self.run(self.encoding(n_q), wav.to(self.dtype), lengths=lengths, backend=backend), volume

    def decode_segment(
        self,
        codes: Tensor,
        volume: Tensor | None = None,
        lengths: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """Codes [B, K, T] and volumes [B] -> [B, channels, T * hop]; `lengths` are valid frames."""
        wav = self.run(self.decoding, codes, lengths=lengths, backend=backend)
        return wav if volume is None else (wav * volume[:, None, None]).to(wav.dtype)

    def _encode(self, run: Trace, wav: Value, *, n_q: int) -> Value:
        return run(self.quantizer.encoding(n_q), self.encoder.network(run, wav))

    def _decode(self, run: Trace, codes: Value) -> Value:
        return self.decoder.network(run, run(self.quantizer.decoding, codes))

    def written(self, chosen: Collection[str] = ()) -> Written:
        """The decoder of one segment."""
        self._choose(chosen)
        codes = {"codes": Given(("batch", "codebooks", "frames"), whole=True)}
        if not self.config.normalize:
            return Written(codes, self._decode)
        return Written({**codes, "scale": Given(("batch",))}, self._decode_scaled)

    def _decode_scaled(self, run: Trace, codes: Value, scale: Value) -> Value:
        return run.join(_scaled, self._decode(run, codes), scale)

    def decode_stream(self, backend: str | None = None, **inputs: object) -> EncodecStream:
        """The decoder's state for codes [B, K, n] that arrive in chunks. Raises ArgumentError unless it is causal."""
        self._check_causal()
        return EncodecStream(
            self.decoding,
            backend,
            least=self.config.kernel_size,
            whole=lambda codes: self.decode_segment(codes, None, None, backend),
        )

    def encode_stream(self, n_q: int, backend: str | None = None) -> EncodecStream:
        """The encoder's state for samples [B, channels, n] that arrive in chunks -> codes [B, n_q, m].

        Raises ArgumentError unless it is causal.
        """
        self._check_causal()
        return EncodecStream(
            self.encoding(n_q),
            backend,
            least=self.config.last_kernel_size * self.config.hop,
            whole=lambda wav: self.encode_segment(wav, n_q, None, backend)[0],
        )

    def _check_causal(self) -> None:
        c = self.config
        if not c.causal or c.norm != "weight_norm" or c.normalize or c.trim_right_ratio != 1.0:
            instead = (
                "fastvoc.streams.pieces runs it segment by segment" if c.segment else "it takes signals as a whole"
            )
            raise ArgumentError(
                f"stream: this model looks ahead or at whole segments (as EnCodec at 48 kHz); {instead}"
            )


def _scaled(wav: Tensor, volume: Tensor) -> Tensor:
    return wav * volume[:, None, None]


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
