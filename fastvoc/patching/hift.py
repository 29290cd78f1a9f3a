"""HiFT generators inside CosyVoice 1 to 3 and Chatterbox."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastvoc.compat import chatterbox, cosyvoice
from fastvoc.compat.upstream import folded
from fastvoc.errors import ArgumentError
from fastvoc.loading import SkipInit
from fastvoc.patching.kinds import Kind, names_of, noise, take

_FRAMES = 12  # of the input on which both generators must agree
_CLASSES = ("CausalHiFTGenerator", "HiFTGenerator")
_FIRST, _SECOND = "SineGen", "SineGen2"


def _class(generator: Any) -> type[cosyvoice.HiFTGenerator]:
    """The class that draws its sines as this one does. Raises ArgumentError where there is none."""
    sines, rate = type(generator.m_source.l_sin_gen).__name__, generator.sampling_rate
    if "CausalHiFTGenerator" in names_of(generator):
        cls: type[cosyvoice.HiFTGenerator] = cosyvoice.CausalHiFTGenerator
    else:
        cls = chatterbox.HiFTGenerator if sines == _FIRST else cosyvoice.HiFTGenerator
    drawn = {"sample": _FIRST}.get(cls.published(rate).source, _SECOND)
    if sines != drawn:
        raise ArgumentError(f"model: {type(generator).__name__}: sines of {sines} at {rate} Hz, expected {drawn}")
    return cls


def _rate(up: Any) -> int:
    return int(up.upsample.scale_factor) if hasattr(up, "upsample") else int(up.stride[0])


def _made(generator: Any) -> nn.Module:
    sines, blocks = generator.m_source.l_sin_gen, list(generator.resblocks)
    count = len(blocks) // len(generator.ups)
    first, sources = [list(b.convs1) for b in blocks[:count]], [list(b.convs1) for b in generator.source_resblocks]
    options: dict[str, Any] = {}
    if hasattr(generator, "conv_pre_look_right"):
        options["conv_pre_look_right"] = generator.conv_pre_look_right
    with SkipInit():
        own = _class(generator)(
            in_channels=generator.conv_pre.in_channels,
            base_channels=generator.conv_pre.out_channels,
            nb_harmonics=generator.nb_harmonics,
            sampling_rate=generator.sampling_rate,
            nsf_alpha=sines.sine_amp,
            nsf_sigma=sines.noise_std,
            nsf_voiced_threshold=sines.voiced_threshold,
            upsample_rates=[_rate(up) for up in generator.ups],
            upsample_kernel_sizes=[up.kernel_size[0] for up in generator.ups],
            istft_params=generator.istft_params,
            resblock_kernel_sizes=[convs[0].kernel_size[0] for convs in first],
            resblock_dilation_sizes=[[conv.dilation[0] for conv in convs] for convs in first],
            source_resblock_kernel_sizes=[convs[0].kernel_size[0] for convs in sources],
            source_resblock_dilation_sizes=[[conv.dilation[0] for conv in convs] for convs in sources],
            lrelu_slope=generator.lrelu_slope,
            audio_limit=generator.audio_limit,
            f0_predictor=generator.f0_predictor,
            **options,
        )
    take(generator, own, folded(generator.state_dict()))
    return own


def _make(generator: nn.Module) -> nn.Module:
    """fastvoc's generator with the weights of another. Raises ArgumentError where it is not built like a HiFT."""
    try:
        return _made(generator)
    except (AttributeError, IndexError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ArgumentError(f"model: {type(generator).__name__}: not built like a HiFT generator ({error})") from error


def _compare(generator: Any, own: Any) -> list[tuple[Tensor, Tensor]]:
    """F0 of a random mel, and its samples with a random source."""
    like = generator.conv_post.weight
    mel = noise((1, generator.conv_pre.in_channels, _FRAMES), like)
    source = 0.1 * noise((1, 1, _FRAMES * own._model.config.hop), like)
    # CosyVoice 3 computes F0 in float64 from its first use on.
    f0 = generator.f0_predictor(mel.to(generator.f0_predictor.classifier.weight.dtype))
    return [(f0, own.f0_predictor(mel)), (generator.decode(mel, source), own.decode(mel, source))]


KINDS = tuple(
    Kind(package, path, _CLASSES, _make, _compare)
    for package, path in (
        ("CosyVoice", ("model", "hift")),
        ("CosyVoice's model", ("hift",)),
        ("Chatterbox", ("s3gen", "mel2wav")),
        ("Chatterbox's S3Gen", ("mel2wav",)),
    )
)
