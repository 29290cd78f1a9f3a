"""Vocos (Siuzdak 2023, arXiv 2306.00814; github.com/gemelo-ai/vocos): on mels, or on the codes of EnCodec."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.nn.conv import Conv1d
from fastvoc.nn.convnext import ConvNextBlock
from fastvoc.nn.layer import OfCodes
from fastvoc.nn.linear import Linear
from fastvoc.nn.model import Given, Model, Stated, Written
from fastvoc.nn.network import Network, Trace, Value, stacked
from fastvoc.nn.norm import LayerNorm
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.spectral import IstftHead, Stft
from fastvoc.nn.streams import NetworkStream
from fastvoc.nn.wide import Wide
from fastvoc.ops import convnext_stream, rvq_decode
from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.runtime.lengths import shortest
from fastvoc.runtime.whole import whole_numbers

# Keeps exp of the log-magnitudes finite, as upstream.
_MAGNITUDE_CLIP = 1e2
BandwidthId = int | Tensor | np.ndarray[Any, Any] | Sequence[int] | None


class CodebookFeatures(OfCodes, Wide):
    """rvq_decode with its codebooks stacked: codebook_weights [codebooks * entries, channels], float32 at least.

    Codes [B, K, T] int64, K up to the number of codebooks -> [B, channels, T].
    """

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

    def width(self) -> int:
        return self.codebook_weights.shape[1]


class VocosBackbone(Stated):
    """Features to hidden states: a convolution, ConvNeXt blocks, norms around them."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        rows, eps = config.adanorm_num_embeddings, config.layer_norm_eps
        self.embed = Conv1d(config.input_channels, config.dim, config.kernel_size)
        self.norm = LayerNorm(config.dim, rows, eps)
        self._blocks = [
            ConvNextBlock(
                config.dim,
                config.intermediate_dim,
                config.kernel_size,
                norm_rows=rows,
                norm_eps=eps,
                layer_scale=1.0 / config.num_layers if config.layer_scale else None,
            )
            for _ in range(config.num_layers)
        ]
        self.convnext = nn.ModuleList(self._blocks)
        self.final_layer_norm = LayerNorm(config.dim, eps=eps)

    def forward(
        self, x: Tensor, row: Tensor | None = None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """[B, input_channels, T] -> [B, dim, T]; `row` [B] int64 on the CPU for adaptive norms."""
        return self.reading(per_frame=(1, 0))(x, row, lengths=lengths, backend=backend)

    def network(self, run: Trace, x: Value, row: Value | None) -> Value:
        """The same in steps."""
        x = run(self.norm, run(self.embed, x), row)
        for block in self._blocks:
            x = run(block, x, row)
        return run(self.final_layer_norm, x)


class PhaseRound(Stated):
    """One round of Griffin and Lim's algorithm (1984): log-magnitudes as they are, the phases of the sound they make.

    [B, n_fft + 2, T] -> the same shape; every frame depends on those that overlap it.
    """

    def __init__(self, config: VocosConfig, beside: nn.Module) -> None:
        super().__init__()
        shape = config.n_fft, config.hop_length, beside
        self.istft = IstftHead(*shape, padding="none", clip=_MAGNITUDE_CLIP)
        self.stft = Stft(*shape, features="polar", padding="none")

    def network(self, run: Trace, x: Value) -> Value:
        """The round in steps."""
        return run.join(_with_phases, x, run(self.stft, run(self.istft, x)))


def _with_phases(x: Tensor, again: Tensor) -> Tensor:
    """The first half of one's channels, the second of the other's."""
    return stacked(x.chunk(2, 1)[0], again.chunk(2, 1)[1])


class VocosHead(Stated):
    """Hidden states, with `mel_skip` the mel below them, to log-magnitudes and phases, and those to samples."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.out = Linear(config.head_channels, config.n_fft + 2)
        self._rounds = [PhaseRound(config, self.out) for _ in range(config.phase_rounds)]
        self.rounds = nn.ModuleList(self._rounds)
        self.istft = IstftHead(config.n_fft, config.hop_length, self.out, padding=config.padding, clip=_MAGNITUDE_CLIP)

    def forward(self, x: Tensor, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        """[B, head_channels, T] -> [B, 1, S]."""
        return self.reading()(x, lengths=lengths, backend=backend)

    def network(self, run: Trace, x: Value) -> Value:
        """The same in steps."""
        x = run(self.out, x)
        for phases in self._rounds:
            x = phases.network(run, x)
        return run(self.istft, x)


class Vocos(Model):
    """Features to waveform, and for a model on codes also codes to features.

    Parameters carry the upstream names: `backbone.embed`, `backbone.norm`, `backbone.convnext.{i}.dwconv`, `.norm`,
    `.pwconv1`, `.pwconv2`, `.gamma`, `backbone.final_layer_norm`, `head.out`, `feature_extractor.codebook_weights`;
    an adaptive norm's `scale.weight` and `shift.weight` are `weight` and `bias` here.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.config = config
        self.min_frames, self.codebooks = config.min_frames, config.num_codebooks
        self.inputs = self.stream_options = () if config.adanorm_num_embeddings is None else ("bandwidth_id",)
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
        fewest = shortest(lengths, x.shape[2])
        if fewest < self.config.min_frames:
            raise ShapeError(f"{name}: expected at least {self.config.min_frames} frames, got {fewest}")

    def _decode(self, features: Tensor, row: Tensor | None, lengths: Tensor | None, backend: str | None) -> Tensor:
        return self.run(self._network, features, row, lengths=lengths, backend=backend)

    @property
    def _network(self) -> Network:
        return self.reading(per_frame=(1, 0))

    def network(self, run: Trace, features: Value, row: Value | None) -> Value:
        """The steps from features to the waveform; `row` as `rows` gives it."""
        hidden = self.backbone.network(run, features, row)
        return self.head.network(run, run.join(stacked, hidden, features) if self.config.mel_skip else hidden)

    def written(self, chosen: Collection[str] = ()) -> Written:
        config = self.config
        self._choose(chosen, *self.inputs)
        first = {"mel": Given(("batch", config.input_channels, "frames"))}
        if config.num_codebooks:
            first = {"codes": Given(("batch", "codebooks", "frames"), whole=True)}
        rows = {name: Given(("batch",), whole=True) for name in self.inputs}
        return Written({**first, **rows}, self._from_codes if config.num_codebooks else self._from_mel)

    def _from_mel(self, run: Trace, mel: Value, row: Value | None = None) -> Value:
        return self.network(run, mel, row)

    def _from_codes(self, run: Trace, codes: Value, row: Value | None = None) -> Value:
        return self.network(run, self._features(run, codes), row)

    def _features(self, run: Trace, codes: Value) -> Value:
        return run(self.feature_extractor, codes)

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
        return self.reading("_features")(codes, lengths=lengths, backend=backend)

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
        row = whole_numbers(bandwidth_id, "bandwidth_id").cpu()
        if row.numel() not in (1, batch):
            raise ShapeError(f"bandwidth_id: expected one number or {batch}, one per item, got {list(row.shape)}")
        row = row.reshape(-1).expand(batch).contiguous()
        low, high = int(row.min()), int(row.max())
        if low < 0 or high >= count:
            raise ArgumentError(f"bandwidth_id: expected {expected}, got {low if low < 0 else high}")
        return row

    def layers(self) -> dict[str, Prepared]:
        features = self.reading("_features").layers if self.config.num_codebooks else {}
        return {**features, **self._network.layers}

    def stream(
        self, backend: str | None = None, *, bandwidth_id: BandwidthId = None, exact: bool = True
    ) -> NetworkStream:
        """The model's state for features that arrive in chunks; `bandwidth_id` as in a call, one number.

        exact: as in `Vocoder.stream`.

        Raises ArgumentError as a call does.
        """
        row, fuse = self.rows(bandwidth_id, 1), partial(convnext_stream.joined, exact=exact)
        return NetworkStream(self._network, backend, exact=exact, items={"row": row}, fuse=fuse)
