"""Vocos (Siuzdak 2023, arXiv 2306.00814; github.com/gemelo-ai/vocos): on mels, or on the codes of EnCodec."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.convnext import ConvNextBlock
from fastvoc.nn.linear import Linear
from fastvoc.nn.norm import LayerNorm
from fastvoc.nn.pieces import Pieces, cuttable
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.spectral import IstftHead
from fastvoc.nn.streams import Constant, LayerStreams, ModelStream
from fastvoc.nn.wide import Wide
from fastvoc.ops import convnext_stream, rvq_decode
from fastvoc.ops.rvq_decode import RvqParams

# Keeps exp of the log-magnitudes finite, as upstream.
_MAGNITUDE_CLIP = 1e2
BandwidthId = int | Tensor | np.ndarray[Any, Any] | Sequence[int] | None


class CodebookFeatures(Wide):
    """rvq_decode with its codebooks stacked: codebook_weights [codebooks * entries, channels], float32 at least."""

    def __init__(self, num_codebooks: int, entries: int, channels: int) -> None:
        super().__init__()
        self.codebook_weights = nn.Parameter(torch.empty(num_codebooks * entries, channels))
        self._entries = entries
        self.prepared = Prepared(rvq_decode.OP, self.params, self._tensors)
        nn.init.normal_(self.codebook_weights)

    def params(self) -> RvqParams:
        """The op's view of the codebooks."""
        return RvqParams(self.codebook_weights.unflatten(0, (-1, self._entries)))

    def _tensors(self) -> list[Tensor]:
        return [self.codebook_weights]

    def forward(self, codes: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """Codes [B, K, T] int64, K up to the number of codebooks -> [B, channels, T]."""
        return self.prepared(codes, lengths, backend=backend)


class VocosBackbone(nn.Module):
    """Features to hidden states: a convolution, ConvNeXt blocks, norms around them."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        rows, eps = config.adanorm_num_embeddings, config.layer_norm_eps
        self.embed = Conv1d(config.input_channels, config.dim, config.kernel_size)
        self.norm = LayerNorm(config.dim, rows, eps)
        self.convnext = nn.ModuleList(
            ConvNextBlock(
                config.dim,
                config.intermediate_dim,
                config.kernel_size,
                norm_rows=rows,
                norm_eps=eps,
                layer_scale=1.0 / config.num_layers if config.layer_scale else None,
            )
            for _ in range(config.num_layers)
        )
        self.final_layer_norm = LayerNorm(config.dim, eps=eps)

    def forward(
        self,
        x: Tensor,
        row: Tensor | None = None,
        lengths: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """[B, input_channels, T] -> [B, dim, T]; `row` [B] int64 on the CPU for adaptive norms."""
        x = self.embed(x.to(self.embed.weight.dtype), lengths, backend=backend)
        x = self.norm(x, row, lengths, backend)
        for block in self.convnext:
            x = block(x, row, lengths, backend)
        y: Tensor = self.final_layer_norm(x, None, lengths, backend)
        return y


class VocosHead(nn.Module):
    """Hidden states to log-magnitudes and phases, and those to samples."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.out = Linear(config.dim, config.n_fft + 2)
        self.istft = IstftHead(config.n_fft, config.hop_length, self.out, padding=config.padding, clip=_MAGNITUDE_CLIP)

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, dim, T] -> [B, 1, S]."""
        wav: Tensor = self.istft(self.out(x, lengths, backend), lengths, backend)
        return wav


class Vocos(nn.Module):
    """Features to waveform, and for a model on codes also codes to features.

    Parameters carry the upstream names: `backbone.embed`, `backbone.norm`, `backbone.convnext.{i}.dwconv`, `.norm`,
    `.pwconv1`, `.pwconv2`, `.gamma`, `backbone.final_layer_norm`, `head.out`, `feature_extractor.codebook_weights`;
    an adaptive norm's `scale.weight` and `shift.weight` are `weight` and `bias` here.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.config = config
        self.inputs = self.STREAM_OPTIONS = () if config.adanorm_num_embeddings is None else ("bandwidth_id",)
        self.warmup_inputs = dict.fromkeys(self.inputs, 0)
        if config.num_codebooks:
            books = config.num_codebooks, config.codebook_size, config.input_channels
            self.feature_extractor = CodebookFeatures(*books)
        self.backbone = VocosBackbone(config)
        self.head = VocosHead(config)

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        bandwidth_id: BandwidthId = None,
    ) -> Tensor:
        """Features to waveform.

        Args:
            mel: [B, input_channels, T] log-mel of the checkpoint's own front end, or features of codes.
            lengths: [B] int64 on the CPU, valid frames of each item; all T when None. The waveform is 0 beyond them.
            backend: implementation to force for every op.
            bandwidth_id: for a model with adaptive norms, and only there: which of its bandwidths made the codes, one
                number for all items or one for each.

        Returns:
            [B, 1, S] samples; S = T * hop, or (T - 1) * hop for padding center.

        Raises:
            ShapeError, DtypeError, ArgumentError: a wrong argument, before any computation.
            BackendError: the forced backend refuses.
        """
        if mel.dim() != 3 or mel.shape[1] != self.config.input_channels or mel.shape[2] == 0:
            raise ShapeError(f"mel: expected [B, {self.config.input_channels}, T > 0], got {list(mel.shape)}")
        self._check_frames("mel", mel, lengths)
        return self._decode(mel, self.rows(bandwidth_id, mel.shape[0]), lengths, backend)

    def decode_codes(
        self,
        codes: Tensor,
        lengths: Tensor | None = None,
        backend: str | None = None,
        *,
        bandwidth_id: BandwidthId = None,
    ) -> Tensor:
        """EnCodec's codes [B, K, T] int64 to waveform [B, 1, S]: `codes_to_features`, then a call; errors as there."""
        if not isinstance(codes, Tensor) or codes.dim() != 3:
            got = list(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise ShapeError(f"codes: expected a tensor [B, K, T], got {got}")
        self._check_frames("codes", codes, lengths)
        row = self.rows(bandwidth_id, codes.shape[0])
        return self._decode(self.codes_to_features(codes, lengths, backend), row, lengths, backend)

    def _check_frames(self, name: str, x: Tensor, lengths: Tensor | None) -> None:
        fewest = x.shape[2] if lengths is None else int(lengths.min())
        if fewest < self.config.min_frames:
            raise ShapeError(f"{name}: expected at least {self.config.min_frames} frames, got {fewest}")

    def _decode(self, features: Tensor, row: Tensor | None, lengths: Tensor | None, backend: str | None) -> Tensor:
        if self._pieces.fit(features.shape[0], features.shape[2]) or not cuttable(features, backend):
            return self._whole(features, row, lengths, backend)

        def run(rows: slice | Tensor, low: int, high: int, valid: Tensor | None) -> Tensor:
            return self._whole(features[rows, :, low:high], None if row is None else row[rows], valid, backend)

        return self._pieces.run(features.shape[0], features.shape[2], lengths, self.config.samples, run)

    @cached_property
    def _pieces(self) -> Pieces:
        bandwidth_id = None if self.config.adanorm_num_embeddings is None else 0
        widest = max(self.config.n_fft + 2, self.config.dim)
        return Pieces.of(self.stream("torch", bandwidth_id=bandwidth_id).reads, (), self.config.hop, widest)

    def _whole(self, features: Tensor, row: Tensor | None, lengths: Tensor | None, backend: str | None) -> Tensor:
        wav: Tensor = self.head(self.backbone(features, row, lengths, backend), lengths, backend)
        return wav

    def codes_to_features(self, codes: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """The features of EnCodec's codes, the sum of the entries that they name.

        Args:
            codes: [B, K, T] int64, K from 1 to `num_codebooks`.
            lengths: [B] int64 on the CPU, valid frames of each item; the features are 0 beyond them.
            backend: implementation to force.

        Returns:
            [B, input_channels, T].

        Raises:
            ArgumentError: a code outside the codebooks, or a model on mels.
            ShapeError, DtypeError, DeviceError: a wrong argument.
        """
        if not self.config.num_codebooks:
            raise ArgumentError("codes: this model takes mels; it has no codebooks")
        features: Tensor = self.feature_extractor(codes, lengths, backend)
        return features

    def rows(self, bandwidth_id: BandwidthId, batch: int) -> Tensor | None:
        """The adaptive norms' row for each item, [B] int64; None for a model without. Errors as in a call."""
        count = self.config.adanorm_num_embeddings
        if count is None:
            if bandwidth_id is not None:
                raise ArgumentError("bandwidth_id: this model has no adaptive norms, expected None")
            return None
        known = ", ".join(f"{b:g}" for b in self.config.bandwidths)
        expected = f"0..{count - 1}" + (f" for {known} kbit/s" if known else "")
        if bandwidth_id is None:
            raise ArgumentError(f"bandwidth_id: expected one of {expected}, got None")
        try:
            row = torch.as_tensor(bandwidth_id).cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise DtypeError(f"bandwidth_id: expected whole numbers ({error})") from None
        if row.is_floating_point() or row.is_complex() or row.dtype == torch.bool:
            raise DtypeError(f"bandwidth_id: expected whole numbers, got {row.dtype}")
        if row.numel() not in (1, batch):
            raise ShapeError(f"bandwidth_id: expected one number or {batch}, one per item, got {list(row.shape)}")
        row = row.long().reshape(-1).expand(batch).contiguous()
        low, high = int(row.min()), int(row.max())
        if low < 0 or high >= count:
            raise ArgumentError(f"bandwidth_id: expected {expected}, got {low if low < 0 else high}")
        return row

    def layers(self) -> dict[str, Prepared]:
        """The layers by name, in order of use."""
        backbone, head = self.backbone, self.head
        named: dict[str, Prepared] = {}
        if self.config.num_codebooks:
            named["feature_extractor"] = self.feature_extractor.prepared
        named |= {"embed": backbone.embed.prepared, "norm": backbone.norm.prepared}
        for i, block in enumerate(backbone.convnext):
            assert isinstance(block, ConvNextBlock)
            named[f"convnext.{i}"] = block.prepared
        named["final_layer_norm"] = backbone.final_layer_norm.prepared
        return {**named, "head.out": head.out.prepared, "head.istft": head.istft.prepared}

    def prepare(self, backend: str | None = None) -> None:
        """Chooses every layer's implementation and packs its weights, so that the first call is as fast as the rest."""
        for layer in self.layers().values():
            weight = layer.weight()
            layer.prepare(weight.device, weight.dtype, backend)

    def stream(
        self, backend: str | None = None, *, bandwidth_id: BandwidthId = None, exact: bool = True
    ) -> VocosStream:
        """The model's state for features that arrive in chunks; `bandwidth_id` as in a call, one number.

        exact: as in `Vocoder.stream`.

        Raises ArgumentError as a call does.
        """
        return VocosStream(self, backend, self.rows(bandwidth_id, 1), exact=exact)


class VocosStream(ModelStream):
    """A batch of streams through a Vocos, all at the same point."""

    def __init__(self, model: Vocos, backend: str | None, row: Tensor | None, *, exact: bool) -> None:
        self._model = model
        used = {name: layer for name, layer in model.layers().items() if name != "feature_extractor"}
        self._layers, self._row = LayerStreams(used, backend, exact=exact), Constant(row)
        network = [name for name in used if name != "head.istft"]
        joined = partial(convnext_stream.joined, exact=exact)
        self._joined = self._layers.join("network", network, joined)
        self._names = ["network"] if self._joined else network
        self.parts = {"layers": self._layers, "row": self._row}

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        run, backbone, head = self._layers, self._model.backbone, self._model.head
        run.final = final
        row = self._row.value
        if row is not None and len(row) != len(x):
            row = self._row.value = row.expand(len(x)).contiguous()
        x = x.to(backbone.embed.weight.dtype)
        if self._joined:
            return run(head.istft, run.stream("network").step(x, final, row))
        x = run(backbone.norm, run(backbone.embed, x), row)
        for block in backbone.convnext:
            assert isinstance(block, ConvNextBlock)
            x = run(block, x, row)
        x = run(backbone.final_layer_norm, x)
        return run(head.istft, run(head.out, x))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        for name in ("head.istft", *reversed(self._names)):
            first, last = self._layers.reads(name, first, last)
        return first, last
