"""Mimi (Défossez et al. 2024, arXiv 2410.00037; github.com/kyutai-labs/moshi)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.models.encodec import SeanetLayer, SeanetStack
from fastvoc.models.mimi_config import MimiConfig
from fastvoc.nn.attention import AttentionBlock
from fastvoc.nn.depthwise_upsample import DepthwiseUpsample
from fastvoc.nn.model import Model
from fastvoc.nn.network import Network, Trace, Value
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.seanet import SeanetBlock, SeanetConv, SeanetStyle, SeanetUpsample
from fastvoc.nn.split_rvq import SplitQuantizer
from fastvoc.nn.streams import NetworkStream
from fastvoc.ops._checks import check_lengths
from fastvoc.ops.activation import elu


def _encoder(c: MimiConfig, style: SeanetStyle) -> SeanetStack:
    layers: dict[int, SeanetLayer] = {0: SeanetConv(c.channels, c.n_filters, c.kernel_size, style)}
    at, width = 1, c.n_filters
    for ratio in reversed(c.ratios):
        for j in range(c.n_residual_layers):
            layers[at] = _block(c, width, j, style)
            at += 1
        # Numbers that are left out are those of activations.
        layers[at + 1] = SeanetConv(width, 2 * width, 2 * ratio, style, stride=ratio, pre=elu())
        at, width = at + 2, 2 * width
    layers[at + 1] = SeanetConv(width, c.dimension, c.last_kernel_size, style, pre=elu())
    return SeanetStack(layers)


def _decoder(c: MimiConfig, style: SeanetStyle) -> SeanetStack:
    width = c.n_filters << len(c.ratios)
    layers: dict[int, SeanetLayer] = {0: SeanetConv(c.dimension, width, c.kernel_size, style)}
    at = 1
    for ratio in c.ratios:
        layers[at + 1] = SeanetUpsample(width, width // 2, ratio, style)
        at, width = at + 2, width // 2
        for j in range(c.n_residual_layers):
            layers[at] = _block(c, width, j, style)
            at += 1
    layers[at + 1] = SeanetConv(width, c.channels, c.last_kernel_size, style, pre=elu())
    return SeanetStack(layers)


def _block(c: MimiConfig, width: int, layer: int, style: SeanetStyle) -> SeanetBlock:
    return SeanetBlock(
        width,
        width // c.compress,
        c.residual_kernel_size,
        c.dilation_base**layer,
        causal=True,
        pad_mode=style.pad_mode,
        conv_shortcut=c.conv_shortcut,
    )


class _Transformer(nn.Module):
    """Layers that run one after the other."""

    def __init__(self, c: MimiConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AttentionBlock(
                c.dimension,
                c.hidden,
                c.heads,
                c.window,
                kv_heads=c.kv_heads,
                head_dim=c.head_dim,
                theta=c.theta,
                eps=c.norm_eps,
            )
            for _ in range(c.layers)
        )

    def network(self, run: Trace, x: Value) -> Value:
        """[B, C, T] -> [B, C, T]."""
        for layer in self.layers:
            assert isinstance(layer, AttentionBlock)
            x = run(layer, x)
        return x


class Mimi(Model):
    """The codec: samples to codes and back.

    Parameters carry the names of Transformers' files, with the weights of a block's convolutions as `EncodecModel` here
    has them, and the codebooks as `quantizer.semantic.rvq.codebooks.{k}` [bins, code_dimension], `quantizer.acoustic...`.
    """

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.config = config
        style, steps = SeanetStyle(True, False, config.pad_mode), config.downsample
        self.encoder = _encoder(config, style)
        self.encoder_transformer = _Transformer(config)
        self.downsample = SeanetConv(
            config.dimension,
            config.dimension,
            2 * steps,
            SeanetStyle(True, False, "replicate"),
            stride=steps,
            bias=False,
        )
        width = config.dimension if config.projected else None
        self.quantizer = SplitQuantizer(config.n_q, config.semantic, config.bins, config.code_dimension, width)
        self.upsample = DepthwiseUpsample(config.dimension, 2 * steps, steps)
        self.decoder_transformer = _Transformer(config)
        self.decoder = _decoder(config, style)

    def forward(
        self, wav: Tensor, n_q: int | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """Encodes and decodes [B, channels, S] with `n_q` codebooks, all when None -> [B, channels, S]."""
        segments, _ = self.encode(wav, n_q, lengths, backend)
        samples = [wav.shape[2]] * len(wav) if lengths is None else lengths.tolist()
        return self.decode(segments, None, [self.config.frames(s) for s in samples], backend)[:, :, : wav.shape[2]]

    def encode(
        self, wav: Tensor, n_q: int | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> tuple[list[Tensor], None]:
        """Samples to codes.

        Args:
            wav: [B, channels, S], real numbers of any type, which become the model's.
            n_q: codebooks to use, from the semantic ones on; all when None.
            lengths: [B] int64 on the CPU, valid samples of each item.
            backend: implementation to force for every op.

        Returns:
            Codes [B, n_q, T] int64 as the one segment, 0 beyond an item's own frames; and None: there are no volumes.

        Raises:
            ShapeError, DtypeError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        c = self.config
        if wav.dim() != 3 or wav.shape[1] != c.channels or 0 in wav.shape:
            raise ShapeError(f"wav: expected [B > 0, {c.channels}, S > 0], got {list(wav.shape)}")
        if wav.is_complex() or wav.dtype == torch.bool:
            raise DtypeError(f"wav: expected real samples, got {wav.dtype}")
        check_lengths("mimi", lengths, len(wav), wav.shape[2])
        network = self._encoding(c.n_q if n_q is None else n_q)
        return [self.run(network, wav.to(self.dtype), lengths=lengths, backend=backend)], None

    def decode(
        self,
        segments: list[Tensor],
        scale: Tensor | None = None,
        frames: list[list[int]] | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """Codes to samples.

        Args:
            segments: codes [B, K, T] int64 as the one segment, K at most `config.n_q`.
            scale: None: there are no volumes.
            frames: valid frames of each item's one segment, all when None.
            backend: implementation to force for every op.

        Returns:
            [B, channels, T * hop]; what lies beyond an item's own samples has no meaning.

        Raises:
            ShapeError, DtypeError, ArgumentError: a wrong argument.
            BackendError: the forced backend refuses.
        """
        if len(segments) != 1 or scale is not None:
            raise ArgumentError(f"segments, scale: expected one segment and None, got {len(segments)} segments")
        counts = [segments[0].shape[2]] * len(segments[0]) if frames is None else [row[0] for row in frames]
        valid = None if min(counts) == segments[0].shape[2] else torch.tensor(counts, device="cpu")
        return self.decode_segment(segments[0], None, valid, backend)

    def decode_segment(
        self,
        codes: Tensor,
        volume: Tensor | None = None,
        lengths: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """Codes [B, K, T] -> [B, channels, T * hop]; `lengths` are valid frames, `volume` None."""
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= self.config.n_q:
            raise ShapeError(f"codes: expected [B, 1..{self.config.n_q}, T], got {list(codes.shape)}")
        return self.run(self._decoding, codes, lengths=lengths, backend=backend)

    def _encode(self, run: Trace, wav: Value, *, n_q: int) -> Value:
        x = self.encoder_transformer.network(run, self.encoder.network(run, wav))
        return self.quantizer.encode(run, run(self.downsample, x), n_q)

    def _decode(self, run: Trace, codes: Value) -> Value:
        x = run(self.upsample, run(self.quantizer.decoding, codes))
        return self.decoder.network(run, self.decoder_transformer.network(run, x))

    def _encoding(self, n_q: int) -> Network:
        first, most = self.config.semantic, self.config.n_q
        if isinstance(n_q, bool) or not isinstance(n_q, int) or not first <= n_q <= most:
            raise ArgumentError(f"n_q: expected an integer in {first}..{most}, got {n_q!r}")
        return self.reading("_encode", (self.config.hop,), n_q=n_q)

    @property
    def _decoding(self) -> Network:
        return self.reading("_decode")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples and the networks; the codebooks are float32 at least."""
        weight: Tensor = next(self.decoder.parameters())
        return weight.dtype

    def decode_stream(self, backend: str | None = None) -> NetworkStream:
        """The decoder's state for codes [B, K, n] that arrive in chunks."""
        return NetworkStream(self._decoding, backend)

    def encode_stream(self, n_q: int, backend: str | None = None) -> NetworkStream:
        """The encoder's state for samples [B, channels, n] that arrive in chunks -> codes [B, n_q, m]."""
        return NetworkStream(self._encoding(n_q), backend)

    def layers(self) -> dict[str, Prepared]:
        return {**self._encoding(self.config.n_q).layers, **self._decoding.layers}
