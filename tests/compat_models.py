"""One small model with random weights of every class in `fastvoc.compat`, and how each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from codec_models import MONO, STEREO
from torch import Tensor, nn

from fastvoc.codec import Codec
from fastvoc.compat import bigvgan, chatterbox, cosyvoice, dac, encodec, hifigan, kokoro, snac, transformers, vocos
from fastvoc.models.encodec import Encodec
from fastvoc.models.vocos import Vocos
from fastvoc.models.vocos_config import VocosConfig

BANDS = 6
_RATES: dict[str, Any] = {"upsample_rates": [3, 2], "upsample_kernel_sizes": [6, 4]}
_BLOCKS: dict[str, Any] = {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 2], [1, 3]]}
_GAN: dict[str, Any] = {**_RATES, **_BLOCKS, "resblock": "1", "num_mels": BANDS, "sampling_rate": 24000}
_HIFT: dict[str, Any] = {
    **{**_RATES, "upsample_kernel_sizes": [7, 4]},
    **_BLOCKS,
    "base_channels": 16,
    "in_channels": BANDS,
    "sampling_rate": 24000,
    "source_resblock_kernel_sizes": [3, 5],
    "source_resblock_dilation_sizes": [[1, 2], [1, 3]],
}
_ISTFT = {"istft_params": {"n_fft": 16, "hop_len": 4}}
_VOCOS: dict[str, Any] = {"n_fft": 64, "hop_length": 16, "num_layers": 2}
_MEL = (2, BANDS, 12)
_FRAMES = (2, 12, BANDS)
_WAV = (2, 1, 2000)


@dataclass(frozen=True)
class Model:
    """`call(model, x)` takes an x of `shape`, samples, log-mel, or codes below `codes`, and returns what came out."""

    make: Callable[[], nn.Module]
    call: Callable[[Any, Tensor], Any]
    shape: tuple[int, ...]
    codes: int = 0

    def made(self) -> Any:
        """The model, the same one every time."""
        torch.manual_seed(3)
        model = self.make().eval().requires_grad_(False)
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape) * (p[0].numel() ** -0.5 if p.dim() > 1 else 0.3))
            if name.endswith("alpha"):
                p.abs_().add_(0.5)
        return model

    def input(self) -> Tensor:
        """Whole numbers, which every floating-point type holds; int64 for codes."""
        generator = torch.Generator().manual_seed(4)
        low, high = (0, self.codes) if self.codes else (-5, 6)
        x = torch.randint(low, high, self.shape, generator=generator)
        return x if self.codes else x.float()

    def run(self, model: Any, x: Tensor) -> Any:
        """What comes out, with the same noise every time."""
        torch.manual_seed(5)
        with torch.no_grad():
            return self.call(model, x)


def _predictor(kind: Any) -> Any:
    return kind(in_channels=BANDS, cond_channels=8)


def _hift(kind: Any, predictor: Any) -> Any:
    return kind(**_HIFT, **_ISTFT, f0_predictor=_predictor(predictor))


def _draft(kind: Any) -> Any:
    config = transformers.HiFTNetConfig(**_HIFT, f0_predictor_in_channels=BANDS, f0_predictor_cond_channels=8)
    return kind(config)


class SmallKokoro(kokoro.Decoder):
    """Of fewer channels than upstream's constants."""

    channels, asr_channels = 8, 3


def _kokoro() -> Any:
    shape = {**_BLOCKS, "upsample_rates": [3, 2], "upsample_kernel_sizes": [7, 4], "upsample_initial_channel": 16}
    return SmallKokoro(BANDS, 5, 80, **shape, gen_istft_n_fft=16, gen_istft_hop_size=4)


def _spoken(decoder: Any, asr: Tensor) -> Tensor:
    wav: Tensor = decoder(asr, torch.full((2, 24), 150.0), torch.ones(2, 24), torch.ones(2, 5))
    return wav


def _codec_config(config: Any) -> Any:
    return transformers.EncodecConfig.of_codec(config)


def _gan_config(kind: Any) -> Any:
    return kind(**_RATES, **_BLOCKS, model_in_dim=BANDS, upsample_initial_channel=16)


def _univnet() -> Any:
    return transformers.UnivNetModel(
        transformers.UnivNetConfig(
            num_mel_bins=BANDS,
            model_in_channels=5,
            model_hidden_channels=4,
            kernel_predictor_hidden_channels=5,
            resblock_kernel_sizes=(3, 3),
            resblock_stride_sizes=(4, 3),
            resblock_dilation_sizes=((1, 3), (1, 9)),
        )
    )


def _with_encodec() -> Any:
    config = transformers.VocosWithEncodecConfig(
        **_VOCOS, n_mels=8, hidden_size=24, intermediate_size=40, num_quantizers=4, codebook_size=64
    )
    return transformers.VocosWithEncodecModel(config)


def _on_codes() -> Any:
    config = VocosConfig(
        **_VOCOS,
        input_channels=8,
        dim=24,
        intermediate_dim=40,
        adanorm_num_embeddings=2,
        num_codebooks=4,
        codebook_size=64,
        bandwidths=(1.5, 3.0),
    )
    return vocos.Vocos(Vocos(config))


def _round_trip(model: Any, wav: Tensor) -> Any:
    encoded = model.encode(wav)
    frames = encoded if isinstance(encoded, list) else [encoded]
    return frames, model.decode(encoded) if isinstance(encoded, list) else model(wav)


def _dac() -> Any:
    return dac.DAC(4, (2, 3), None, 16, (3, 2), 3, 32, 4, sample_rate=24000)


def _transformers_dac() -> Any:
    return transformers.DacModel(
        transformers.DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=[2, 3],
            decoder_hidden_size=16,
            n_codebooks=3,
            codebook_size=32,
            codebook_dim=4,
        )
    )


def _snac(**more: Any) -> Any:
    shape = {"encoder_dim": 4, "encoder_rates": [2, 3], "decoder_dim": 16, "decoder_rates": [3, 2]}
    books = {"codebook_size": 32, "codebook_dim": 4, "vq_strides": [4, 2, 1], "attn_window_size": None}
    return snac.SNAC(**{**shape, **books, **more})


def _mimi() -> Any:
    return transformers.MimiModel(
        transformers.MimiConfig(
            hidden_size=24,
            num_filters=4,
            upsampling_ratios=[3, 2],
            codebook_size=32,
            codebook_dim=12,
            vector_quantization_hidden_dimension=12,
            num_quantizers=4,
            upsample_groups=24,
            num_hidden_layers=1,
            intermediate_size=40,
            num_attention_heads=3,
            num_key_value_heads=3,
            sliding_window=5,
        )
    )


def _levels(frames: Tensor) -> list[Tensor]:
    """Codes [B, T] of SNAC's finest codebook as those of all three."""
    return [frames[:, ::4], frames[:, ::2], frames]


MODELS: dict[str, Model] = {
    "bigvgan.BigVGAN": Model(
        lambda: bigvgan.BigVGAN(
            {**_GAN, "upsample_initial_channel": 16, "activation": "snakebeta", "snake_logscale": True}
        ),
        lambda m, x: m(x),
        _MEL,
    ),
    "hifigan.Generator": Model(
        lambda: hifigan.Generator({**_GAN, "upsample_initial_channel": 16}), lambda m, x: m(x), _MEL
    ),
    "transformers.SpeechT5HifiGan": Model(
        lambda: transformers.SpeechT5HifiGan(_gan_config(transformers.SpeechT5HifiGanConfig)),
        lambda m, x: m(x),
        _FRAMES,
    ),
    "transformers.FastSpeech2ConformerHifiGan": Model(
        lambda: transformers.FastSpeech2ConformerHifiGan(_gan_config(transformers.FastSpeech2ConformerHifiGanConfig)),
        lambda m, x: m(x),
        _FRAMES,
    ),
    "transformers.UnivNetModel": Model(_univnet, lambda m, x: m(x, torch.randn(2, 12, 5)).waveforms, _FRAMES),
    "transformers.HiFTNetModel": Model(lambda: _draft(transformers.HiFTNetModel), lambda m, x: m(x), _FRAMES),
    "transformers.HiFTNetVocoder": Model(lambda: _draft(transformers.HiFTNetVocoder), lambda m, x: m(x), _MEL),
    "transformers.VocosModel": Model(
        lambda: transformers.VocosModel(
            transformers.VocosConfig(**_VOCOS, n_mels=BANDS, hidden_size=24, intermediate_size=40)
        ),
        lambda m, x: m(x).audio,
        _MEL,
    ),
    "transformers.VocosWithEncodecModel": Model(
        _with_encodec, lambda m, x: m(bandwidth_id=1, codes=x), (4, 2, 12), codes=64
    ),
    "transformers.EncodecModel": Model(
        lambda: transformers.EncodecModel(_codec_config(MONO)), lambda m, x: _round_trip(m, x), _WAV
    ),
    "transformers.EncodecModel stereo": Model(
        lambda: transformers.EncodecModel(_codec_config(STEREO)), lambda m, x: _round_trip(m, x), (2, 2, 7840)
    ),
    "transformers.EncodecModel codes": Model(
        lambda: transformers.EncodecModel(_codec_config(MONO)),
        lambda m, x: m.decode(x, [None]).audio_values,
        (1, 2, 4, 9),
        codes=64,
    ),
    "encodec.EncodecModel": Model(lambda: encodec.EncodecModel(Encodec(MONO)), _round_trip, _WAV),
    "encodec.EncodecModel stereo": Model(lambda: encodec.EncodecModel(Encodec(STEREO)), _round_trip, (2, 2, 9000)),
    "encodec.EncodecModel codes": Model(
        lambda: encodec.EncodecModel(Encodec(MONO)), lambda m, x: m.decode([(x, None)]), (2, 4, 9), codes=64
    ),
    "dac.DAC": Model(_dac, lambda m, x: m(x), _WAV),
    "dac.DAC latent": Model(_dac, lambda m, x: m.decode(x), (2, 16, 9)),
    "dac.DAC codes": Model(_dac, lambda m, x: m.decode(m.quantizer.from_codes(x)[0]), (2, 3, 9), codes=32),
    "snac.SNAC": Model(_snac, lambda m, x: m(x), _WAV),
    "snac.SNAC dense": Model(lambda: _snac(depthwise=False, noise=False), lambda m, x: m(x), _WAV),
    "snac.SNAC codes": Model(_snac, lambda m, x: m.decode(_levels(x)), (2, 12), codes=32),
    "transformers.DacModel": Model(_transformers_dac, lambda m, x: m(x), _WAV),
    "transformers.DacModel latent": Model(_transformers_dac, lambda m, x: m.decode(x), (2, 16, 9)),
    "transformers.DacModel codes": Model(_transformers_dac, lambda m, x: m.decode(audio_codes=x), (2, 3, 9), codes=32),
    "transformers.MimiModel": Model(_mimi, lambda m, x: m(x), _WAV),
    "transformers.MimiModel codes": Model(_mimi, lambda m, x: m.decode(x), (2, 4, 9), codes=32),
    "encodec.Quantizer": Model(
        lambda: encodec.EncodecModel(Encodec(MONO)), lambda m, x: m.quantizer.decode(x), (4, 2, 9), codes=64
    ),
    "kokoro.Decoder": Model(_kokoro, _spoken, _MEL),
    "vocos.Vocos": Model(
        lambda: vocos.Vocos(Vocos(VocosConfig(**_VOCOS, input_channels=BANDS, dim=24, intermediate_dim=40))),
        lambda m, x: m.decode(x),
        _MEL,
    ),
    "vocos.Vocos codes": Model(
        _on_codes, lambda m, x: m.decode(m.codes_to_features(x), bandwidth_id=1), (4, 2, 12), codes=64
    ),
    "chatterbox.HiFTGenerator": Model(
        lambda: _hift(chatterbox.HiFTGenerator, chatterbox.ConvRNNF0Predictor), lambda m, x: m.inference(x), _MEL
    ),
    "cosyvoice.HiFTGenerator": Model(
        lambda: _hift(cosyvoice.HiFTGenerator, cosyvoice.ConvRNNF0Predictor), lambda m, x: m.inference(x), _MEL
    ),
    "cosyvoice.CausalHiFTGenerator": Model(
        lambda: _hift(cosyvoice.CausalHiFTGenerator, cosyvoice.CausalConvRNNF0Predictor),
        lambda m, x: m.inference(x),
        _MEL,
    ),
    "cosyvoice.ConvRNNF0Predictor": Model(lambda: _predictor(cosyvoice.ConvRNNF0Predictor), lambda m, x: m(x), _MEL),
    "cosyvoice.CausalConvRNNF0Predictor": Model(
        lambda: _predictor(cosyvoice.CausalConvRNNF0Predictor), lambda m, x: m(x), _MEL
    ),
}


def codec(stereo: bool = False) -> Codec:
    """One of fastvoc's own codecs."""
    config = STEREO if stereo else MONO
    torch.manual_seed(6)
    return Codec(Encodec(config).eval().requires_grad_(False), config)


def tensors(value: Any) -> list[Tensor]:
    """All tensors in what came out."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    return [t for v in value for t in tensors(v)] if isinstance(value, list | tuple) else []
