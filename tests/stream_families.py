"""The models that stream, small and with random weights, by family, and how many chunkings of them are tried."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from examples import examples
from hypothesis import HealthCheck, settings

from fastvoc.models.bigvgan import BigVganConfig
from fastvoc.models.families import build
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.hift_config import HiftConfig
from fastvoc.models.nsf_hifigan import NsfHifiGan, NsfHifiGanConfig
from fastvoc.models.univnet import UnivNetConfig
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.sound.mel import MelConfig
from fastvoc.vocoder import Vocoder

QUICK = examples(
    15,
    least=2,  # the first one is the simplest that there is
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = settings(QUICK, max_examples=1000, derandomize=False)


def randomised(config: Any, made: Callable[[Any], Any] = build) -> Vocoder:
    """A vocoder of a configuration with weights that keep signals lively; `made` makes its model."""
    generator = torch.Generator().manual_seed(1)
    model = made(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(fan, 1) ** 0.5 * 0.5)
    return Vocoder(model, config)


def _hifigan(**values: Any) -> Vocoder:
    base: dict[str, Any] = {"num_mels": 6, "upsample_initial_channel": 32}
    return randomised(HifiGanConfig(**{**base, **values}))


def _bigvgan(**values: Any) -> Vocoder:
    base: dict[str, Any] = {
        "num_mels": 6,
        "upsample_initial_channel": 16,
        "upsample_rates": (3, 2),
        "upsample_kernel_sizes": (6, 4),
        "resblock_kernel_sizes": (3, 5),
        "resblock_dilation_sizes": ((1, 2), (3, 1)),
    }
    return randomised(BigVganConfig(**{**base, **values}))


MAKERS: dict[str, Callable[[], Vocoder]] = {
    "bigvgan-1": _bigvgan,
    "bigvgan-2": lambda: _bigvgan(resblock="2", activation="snake", use_tanh_at_final=True, use_bias_at_final=True),
    "hifigan-1": lambda: _hifigan(upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4)),
    "hifigan-2": lambda: _hifigan(
        upsample_rates=(3, 2),
        upsample_kernel_sizes=(6, 4),
        resblock="2",
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 2), (2, 6)),
        normalize_before=True,
    ),
    "hifigan-rounds": lambda: _hifigan(
        upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), mel=MelConfig(8000, 32, 32, 8, 6, norm=None), mel_rounds=3
    ),
    "hifigan-odd": lambda: _hifigan(
        upsample_rates=(5, 3),
        upsample_kernel_sizes=(11, 4),
        resblock_kernel_sizes=(3, 11),
        resblock_dilation_sizes=((1, 3), (1, 5)),
    ),
    "vits": lambda: _hifigan(
        upsample_rates=(4, 2),
        upsample_kernel_sizes=(8, 4),
        post_bias=False,
        latent=True,
        gin_channels=5,
        num_speakers=3,
    ),
}


def _univnet(**values: Any) -> Vocoder:
    base: dict[str, Any] = {
        "num_mels": 6,
        "model_in_channels": 5,
        "model_hidden_channels": 4,
        "kernel_predictor_hidden_channels": 5,
        "kernel_predictor_num_blocks": 2,
        "resblock_kernel_sizes": (3, 3),
        "resblock_stride_sizes": (4, 3),
        "resblock_dilation_sizes": ((1, 3), (1, 9)),
    }
    return randomised(UnivNetConfig(**{**base, **values}))


class SungAt150(NsfHifiGan):
    """A generator whose F0 is 150 Hz where a call or a stream says nothing of it, for tests that know of no F0."""

    def forward(self, *args: Any, **inputs: Any) -> torch.Tensor:
        return super().forward(*args, **{"f0": 150.0, **inputs})

    def stream(self, *args: Any, **options: Any) -> Any:
        return super().stream(*args, **{"f0": 150.0, **options})


def nsf(made: Callable[[Any], Any] = NsfHifiGan, **values: Any) -> Vocoder:
    """A small generator of RVC's kind."""
    base: dict[str, Any] = {
        "sample_rate": 4000,
        "num_mels": 6,
        "upsample_initial_channel": 32,
        "upsample_rates": (5, 2, 2),
        "upsample_kernel_sizes": (9, 4, 4),
        "resblock_kernel_sizes": (3, 5),
        "resblock_dilation_sizes": ((1, 2), (1, 3)),
        "post_bias": False,
        "latent": True,
        "gin_channels": 5,
        "num_speakers": 3,
    }
    return randomised(NsfHifiGanConfig(**{**base, **values}), made)


def _vocos(**values: Any) -> Vocoder:
    base: dict[str, Any] = {"input_channels": 6, "dim": 24, "intermediate_dim": 40, "num_layers": 3}
    return randomised(VocosConfig(**{**base, **values}))


def _hift(**values: Any) -> Vocoder:
    base: dict[str, Any] = {
        "num_mels": 6,
        "base_channels": 32,
        "upsample_rates": (3, 2),
        "upsample_kernel_sizes": (7, 4),
        "resblock_kernel_sizes": (3, 5),
        "resblock_dilation_sizes": ((1, 2), (1, 3)),
        "source_resblock_kernel_sizes": (3, 5),
        "source_resblock_dilation_sizes": ((1, 2), (1, 3)),
        "f0_channels": 8,
    }
    voc = randomised(HiftConfig(**{**base, **values}))
    model = voc.model
    model.f0_predictor.classifier.bias.fill_(150.0)  # Hz, so that there is a voice
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.abs_().add_(0.5)
    return voc


MAKERS |= {
    "hift-sample": _hift,
    "hift-linear": lambda: _hift(source="frame_linear"),
    "hift-causal": lambda: _hift(
        source="frame_nearest", source_noise="uniform", causal=True, f0_network="causal_conv", f0_dtype="float64"
    ),
    "rvc": lambda: nsf(SungAt150),
    "xtts": lambda: _hifigan(
        upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), post_bias=False, latent=True, gin_channels=5, conds=True
    ),
    "univnet": _univnet,
    "univnet-odd": lambda: _univnet(
        resblock_kernel_sizes=(3, 5, 7),
        resblock_stride_sizes=(1, 3, 2),
        resblock_dilation_sizes=((2,), (1, 4), (3,)),
        kernel_predictor_conv_size=5,
    ),
    "vocos-center": lambda: _vocos(n_fft=64, hop_length=16, padding="center"),
    "vocos-same": lambda: _vocos(n_fft=80, hop_length=20, padding="same"),
    "vocos-skip": lambda: _vocos(n_fft=64, hop_length=16, padding="same", mel_skip=True),
    "vocos-rounds": lambda: _vocos(n_fft=64, hop_length=32, padding="same", phase_rounds=1),
}
FAMILIES = sorted(MAKERS)


PUBLISHED_STEPS: dict[str, Callable[[], Vocoder]] = {  # the published strides and kernels, few channels
    "bigvgan": lambda: randomised(BigVganConfig(num_mels=6, upsample_initial_channel=128)),
    "hifigan": lambda: _hifigan(upsample_initial_channel=64),
    "hift": lambda: _hift(**_HIFT_STEPS),
    "hift-causal": lambda: _hift(
        **_HIFT_STEPS,
        source="frame_nearest",
        source_noise="uniform",
        causal=True,
        f0_network="causal_conv",
        f0_dtype="float64",
    ),
    "univnet": lambda: randomised(UnivNetConfig(num_mels=6, model_hidden_channels=8)),
    "vocos": _vocos,
}
_HIFT_STEPS: dict[str, Any] = {
    "sample_rate": 24000,
    "upsample_rates": (8, 5, 3),
    "upsample_kernel_sizes": (16, 11, 7),
    "resblock_kernel_sizes": (3, 7, 11),
    "resblock_dilation_sizes": ((1, 3, 5),) * 3,
    "source_resblock_kernel_sizes": (7, 7, 11),
    "source_resblock_dilation_sizes": ((1, 3, 5),) * 3,
}


@cache
def vocoder(family: str, backend: str | None = None) -> Vocoder:
    """One vocoder of a family for all tests, which change nothing in it."""
    voc = (MAKERS | PUBLISHED_STEPS)[family]()
    voc.backend = backend
    voc.model.prepare(backend=backend)
    return voc


def mel_of(voc: Vocoder, frames: int, seed: int = 0) -> torch.Tensor:
    """A lively spectrogram [n_mels, frames]."""
    return torch.randn(voc.n_mels, frames, generator=torch.Generator().manual_seed(seed))
