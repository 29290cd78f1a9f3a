"""Kokoro's decoder inside a `KModel` or a `KPipeline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.compat import kokoro
from fastvoc.compat.upstream import folded
from fastvoc.errors import ArgumentError
from fastvoc.loading import SkipInit
from fastvoc.models.kokoro_config import KokoroConfig
from fastvoc.patching.kinds import Kind, noise, take

_FRAMES = 12  # of the input on which both decoders must agree
_SINES = {"sine_amp": 0.1, "noise_std": 0.003, "voiced_threshold": 10}  # constants of Kokoro's source


def _config(decoder: Any) -> KokoroConfig:
    """The configuration of a decoder, read from its parts. Raises ArgumentError where they are not Kokoro's."""
    generator, first = decoder.generator, decoder.encode.conv1
    stages, blocks, sines = list(generator.ups), list(generator.resblocks), generator.m_source.l_sin_gen
    if type(generator.stft).__name__ == "CustomSTFT":
        raise ArgumentError("its model was made with disable_complex, a transform that gives other samples")
    for name, value in _SINES.items():
        if getattr(sines, name) != value:
            raise ArgumentError(f"{name} {getattr(sines, name)}, expected {value}")
    kinds = [list(block.convs1) for block in blocks[: len(blocks) // len(stages)]]
    return KokoroConfig(
        sample_rate=sines.sampling_rate,
        num_mels=decoder.asr_res[0].in_channels,
        asr_channels=decoder.asr_res[0].out_channels,
        channels=first.out_channels,
        style_dim=decoder.encode.norm1.fc.in_features,
        harmonics=sines.harmonic_num,
        upsample_initial_channel=stages[0].in_channels,
        upsample_rates=tuple(up.stride[0] for up in stages),
        upsample_kernel_sizes=tuple(up.kernel_size[0] for up in stages),
        resblock_kernel_sizes=tuple(convs[0].kernel_size[0] for convs in kinds),
        resblock_dilation_sizes=tuple(tuple(conv.dilation[0] for conv in convs) for convs in kinds),
        n_fft=generator.stft.filter_length,
        istft_hop=generator.stft.hop_length,
    )


def _make(decoder: nn.Module) -> nn.Module:
    """fastvoc's decoder with the weights of another. Raises ArgumentError where it is not built like Kokoro's."""
    try:
        with SkipInit():
            own = kokoro.Decoder.of(_config(decoder))
    except (AttributeError, IndexError, TypeError, ZeroDivisionError, ArgumentError) as error:
        raise ArgumentError(f"model: {type(decoder).__name__}: not built like Kokoro's ({error})") from error
    take(decoder, own, folded(decoder.state_dict()))
    return own


@contextmanager
def _replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of an object with other values, and then as they were."""
    before = {name: vars(owner)[name] for name in values if name in vars(owner)}
    vars(owner).update(values)
    try:
        yield
    finally:
        for name in values:
            del vars(owner)[name]
        vars(owner).update(before)


def _compare(decoder: Any, own: Any) -> list[tuple[Tensor, Tensor]]:
    """The source without noise, its transform, and the samples of random features with one and the same spectrum."""
    model, generator = own._model, decoder.generator
    config, like = model.config, generator.conv_post.weight
    asr, s = noise((1, config.num_mels, _FRAMES), like), noise((1, config.style_dim), like)
    f0 = 200 + 20 * noise((1, 2 * _FRAMES), like)
    n = noise(f0.shape, like)
    devices = [like.device] if like.is_cuda else []
    with torch.random.fork_rng(devices), _replaced(generator.m_source.l_sin_gen, noise_std=0.0):
        theirs = generator.m_source(generator.f0_upsamp(f0[:, None]).transpose(1, 2))[0].transpose(1, 2)
    silence = torch.zeros((1, config.harmonics + 1, theirs.shape[2]), dtype=like.dtype, device=like.device)
    ours = model.make_source(f0, noise=silence)
    # Beside pi rounding decides about an angle: what both networks get is one of the two.
    spectra = generator.stft.transform(theirs[:, 0]), model.stft(ours.float()).chunk(2, 1)
    waves = torch.cat(spectra[0], 1).to(like.dtype), torch.cat(tuple(spectra[1]), 1)
    with torch.random.fork_rng(devices), _replaced(generator.stft, transform=lambda _: spectra[0]):
        spoken = decoder(asr, f0, n, s)
    given = model(asr, f0=f0, n=n, style=s, har=waves[0])
    return [(theirs, ours), (_complex(*spectra[0]), _complex(*spectra[1])), (spoken, given)]


def _complex(magnitude: Tensor, angle: Tensor) -> Tensor:
    return torch.cat([magnitude * angle.cos(), magnitude * angle.sin()], 1)


KINDS = tuple(
    Kind(package, path, ("Decoder",), _make, _compare)
    for package, path in (("Kokoro's KModel", ("decoder",)), ("Kokoro's KPipeline", ("model", "decoder")))
)
