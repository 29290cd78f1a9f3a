"""Mimi (Défossez et al. 2024, arXiv 2410.00037; github.com/kyutai-labs/moshi)."""

from __future__ import annotations

from torch import nn

from fastvoc.errors import ArgumentError
from fastvoc.models.encodec import seanet_decoder, seanet_encoder
from fastvoc.models.mimi_config import MimiConfig
from fastvoc.models.whole_codec import WholeCodec
from fastvoc.nn.attention import AttentionBlock
from fastvoc.nn.depthwise_upsample import DepthwiseUpsample
from fastvoc.nn.network import Network, Trace, Value
from fastvoc.nn.quantized import Stage
from fastvoc.nn.seanet import SeanetConv, SeanetStyle
from fastvoc.nn.split_rvq import SplitQuantizer


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


class Mimi(WholeCodec):
    """The codec: samples to codes and back, both of them causal.

    Parameters carry the names of Transformers' files, with the weights of a block's convolutions as `EncodecModel` here
    has them, and the codebooks as `quantizer.{semantic,acoustic}.rvq.codebooks.{k}` [bins, code_dimension].
    """

    config: MimiConfig
    pads_itself = True

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.config = config
        style, steps = SeanetStyle(True, False, config.pad_mode), config.downsample
        self.encoder = seanet_encoder(config, style, 1)
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
        self.decoder = seanet_decoder(config, style, 1)

    def _encode(self, run: Trace, wav: Value, *, n_q: int) -> Value:
        x = self.encoder_transformer.network(run, self.encoder.network(run, wav))
        return self.quantizer.encode(run, run(self.downsample, x), n_q)

    def _decode(self, run: Trace, codes: Value) -> Value:
        x = run(self.upsample, run(self.quantizer.decoding, codes))
        return self.decoder.network(run, self._transformed(run, x))

    def _transformed(self, run: Trace, x: Value) -> Value:
        return self.decoder_transformer.network(run, x)

    def encoding(self, n_q: int) -> Network:
        most = self.config.n_q
        if isinstance(n_q, bool) or not isinstance(n_q, int) or not 1 <= n_q <= most:
            raise ArgumentError(f"n_q: expected an integer in 1..{most}, got {n_q!r}")
        return super().encoding(n_q)

    def int8_stages(self) -> dict[str, Stage]:
        """The layers of the decoder's transformer: codes stay those of float32, and convolutions add to nothing."""
        return self._parts_in_stages(self.reading("_transformed"))

    @property
    def lookahead(self) -> tuple[int, int]:
        return 0, 0
