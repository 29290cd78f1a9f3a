"""HiFi-GAN decoders of VITS models: Transformers' `VitsModel`, Coqui's `Vits`, the original and its kin."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.compat.upstream import Upstream, folded
from fastvoc.errors import ArgumentError
from fastvoc.loading import SkipInit
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.patching.kinds import Kind, noise, take

_FRAMES = 12  # of the input on which both decoders must agree


class _Decoder(Upstream):
    """A decoder from latents [B, C, T], and a speaker's vector [B, G, 1] where the model knows speakers."""

    def __init__(self, model: HifiGan, names: dict[str, str], padding: int = 0) -> None:
        super().__init__(model, names)
        self.inference_padding = padding

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        """Samples [B, 1, S]; under autocast computed in the type of the weights."""
        if torch.is_autocast_enabled(x.device.type):  # where a model hands on what is narrower
            dtype = self._model.conv_post.weight.dtype
            x, g = x.to(dtype), None if g is None else g.to(dtype)
        wav: Tensor = self._model(x, speaker=g)
        return wav

    @torch.inference_mode()
    def inference(self, c: Tensor) -> Tensor:
        """As Coqui's: the latents' ends repeated on both sides, where its configuration says so."""
        pads = (self.inference_padding, self.inference_padding)
        return self.forward(nn.functional.pad(c, pads, "replicate"))


class VitsHifiGan(_Decoder):
    """In the place of the class of this name in Transformers."""

    def forward(self, spectrogram: Tensor, global_conditioning: Tensor | None = None) -> Tensor:
        """Samples [B, 1, S]."""
        return super().forward(spectrogram, global_conditioning)


class HifiganGenerator(_Decoder):
    """In the place of the class of this name in Coqui."""


class Generator(_Decoder):
    """In the place of the class of this name in the original VITS, Piper's trainer and MeloTTS."""


def _config(decoder: Any, ups: str) -> HifiGanConfig:
    """The configuration of a decoder, read from its parts. Raises ArgumentError where they are not a HiFi-GAN's."""
    try:
        stages, blocks = list(getattr(decoder, ups)), list(decoder.resblocks)
        count = len(blocks) // len(stages)
        first = [_convs(block) for block in blocks[:count]]
        settings = getattr(decoder, "config", None)
        return HifiGanConfig(
            num_mels=decoder.conv_pre.in_channels,
            upsample_rates=tuple(up.stride[0] for up in stages),
            upsample_kernel_sizes=tuple(up.kernel_size[0] for up in stages),
            upsample_paddings=tuple(up.padding[0] for up in stages),
            upsample_output_paddings=tuple(up.output_padding[0] for up in stages),
            upsample_initial_channel=decoder.conv_pre.out_channels,
            resblock="1" if hasattr(blocks[0], "convs1") else "2",
            resblock_kernel_sizes=tuple(convs[0].kernel_size[0] for convs in first),
            resblock_dilation_sizes=tuple(tuple(conv.dilation[0] for conv in convs) for convs in first),
            leaky_relu_slope=getattr(settings, "leaky_relu_slope", _slope(decoder)),
            pre_kernel_size=decoder.conv_pre.kernel_size[0],
            post_kernel_size=decoder.conv_post.kernel_size[0],
            post_bias=decoder.conv_post.bias is not None,
            latent=True,
            gin_channels=next((getattr(decoder, n).in_channels for n in _COND if hasattr(decoder, n)), 0),
        )
    except (AttributeError, IndexError, TypeError, ZeroDivisionError, ArgumentError) as error:
        raise ArgumentError(f"model: {type(decoder).__name__}: not built like a HiFi-GAN ({error})") from error


_COND = ("cond", "cond_layer")


def _convs(block: Any) -> list[Any]:
    return list(block.convs1 if hasattr(block, "convs1") else block.convs)


def _slope(decoder: nn.Module) -> float:
    """A constant of the decoder's module, 0.1 in all that are known."""
    return float(getattr(sys.modules.get(type(decoder).__module__), "LRELU_SLOPE", 0.1))


def _made(cls: type[_Decoder], ups: str, cond: str, decoder: nn.Module) -> _Decoder:
    with SkipInit():
        own = HifiGan(_config(decoder, ups))
    state = folded(decoder.state_dict())
    renamed = {"ups." + n.removeprefix(f"{ups}.") if n.startswith(f"{ups}.") else n: t for n, t in state.items()}
    renamed = {"cond." + n.removeprefix(f"{cond}.") if n.startswith(f"{cond}.") else n: t for n, t in renamed.items()}
    take(decoder, own, renamed)
    return cls(own, {"ups": ups, "cond": cond}, getattr(decoder, "inference_padding", 0))


def _compare(decoder: Any, own: Any) -> list[tuple[Tensor, Tensor]]:
    """Samples of a random latent for a random speaker."""
    like = decoder.conv_post.weight
    given = [noise((1, decoder.conv_pre.in_channels, _FRAMES), like)]
    cond = next((getattr(decoder, name) for name in _COND if hasattr(decoder, name)), None)
    if cond is not None:
        given.append(noise((1, cond.in_channels, 1), like))
    return [(decoder(*given), own(*given))]


KINDS = (
    Kind(
        "transformers' VitsModel",
        ("decoder",),
        ("VitsHifiGan",),
        lambda decoder: _made(VitsHifiGan, "upsampler", "cond", decoder),
        _compare,
    ),
    Kind(
        "Coqui's Vits",
        ("waveform_decoder",),
        ("HifiganGenerator",),
        lambda decoder: _made(HifiganGenerator, "ups", "cond_layer", decoder),
        _compare,
    ),
    Kind(
        "the original VITS and its kin",
        ("dec",),
        ("Generator",),
        lambda decoder: _made(Generator, "ups", "cond", decoder),
        _compare,
    ),
)
