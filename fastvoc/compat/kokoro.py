"""github.com/hexgrad/kokoro: `Decoder` of its `istftnet`, in whose place it may stand in a `KModel`.

What upstream draws from torch's generator follows torch's generator here, too: `torch.manual_seed` decides the noise.
The numbers themselves are fastvoc's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.compat.upstream import Upstream, folded
from fastvoc.errors import ArgumentError
from fastvoc.models.kokoro import Kokoro
from fastvoc.models.kokoro_config import KOKORO, KokoroConfig

__all__ = ["Decoder"]

_BEFORE = ("encode", "decode", "F0_conv", "N_conv", "asr_res")  # the parts that are not upstream's `generator`
_ALPHA, _SNAKE = re.compile(r"\.alpha([12])\.(\d+)$"), re.compile(r"\.adain([12])\.(\d+)\.snake\.alpha$")
_MERGE = re.compile(r"(^|\.)m_source\.(weight|bias)$")


class Decoder(Upstream):
    """Kokoro's decoder, with upstream's arguments, of which `dim_out` is of no consequence.

    `load_state_dict` takes the `decoder` of a published file, weight norm in either of torch's namings or folded, and
    `state_dict` has upstream's names, folded.

    Raises ArgumentError naming an argument that is illegal, and for `disable_complex`, whose transform gives other
    samples.
    """

    channels, asr_channels = KOKORO.channels, KOKORO.asr_channels  # upstream's constants

    def __init__(
        self,
        dim_in: int,
        style_dim: int,
        dim_out: int,
        resblock_kernel_sizes: Sequence[int],
        upsample_rates: Sequence[int],
        upsample_initial_channel: int,
        resblock_dilation_sizes: Sequence[Sequence[int]],
        upsample_kernel_sizes: Sequence[int],
        gen_istft_n_fft: int,
        gen_istft_hop_size: int,
        disable_complex: bool = False,
    ) -> None:
        if disable_complex:
            raise ArgumentError("disable_complex: expected False, since that transform gives other samples, got True")
        config = KokoroConfig(
            num_mels=dim_in,
            style_dim=style_dim,
            resblock_kernel_sizes=tuple(resblock_kernel_sizes),
            upsample_rates=tuple(upsample_rates),
            upsample_initial_channel=upsample_initial_channel,
            resblock_dilation_sizes=tuple(map(tuple, resblock_dilation_sizes)),
            upsample_kernel_sizes=tuple(upsample_kernel_sizes),
            n_fft=gen_istft_n_fft,
            istft_hop=gen_istft_hop_size,
            channels=self.channels,
            asr_channels=self.asr_channels,
        )
        self._build(config)

    def _build(self, config: KokoroConfig) -> None:
        nn.Module.__init__(self)
        model, generator = Kokoro(config), nn.Module()
        for name, part in model.named_children():
            (self if name in _BEFORE else generator).add_module(name, part)
        self.generator = generator
        object.__setattr__(self, "_model", model)
        self.register_load_state_dict_pre_hook(_take)
        self.register_state_dict_post_hook(_give)

    @classmethod
    def of(cls, config: KokoroConfig) -> Decoder:
        """One of any configuration, also of other widths than upstream's constants."""
        decoder = cls.__new__(cls)
        decoder._build(config)
        return decoder

    def forward(self, asr: Tensor, F0_curve: Tensor, N: Tensor, s: Tensor) -> Tensor:
        """Samples [B, 1, T * hop] of text features [B, dim_in, T], F0 and energy [B, 2 * T], style [B, style_dim]."""
        model = self._model
        seed = torch.randint(1 << 62, (len(asr),), device="cpu")
        wav: Tensor = model(asr.to(model.encode.conv1.weight.dtype), f0=F0_curve, n=N, style=s, seed=seed)
        return wav


def _take(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before a state is loaded: weight norm is folded, upstream's names become the module's."""
    own = {name[len(prefix) :]: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for name, tensor in folded(own).items():
        name, snakes = _ALPHA.subn(r".adain\1.\2.snake.alpha", name)
        merging = ".m_source.l_linear." in f".{name}"
        flat = snakes or (merging and name.endswith("weight"))
        state[prefix + name.replace("m_source.l_linear.", "m_source.")] = tensor.flatten() if flat else tensor


def _give(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """After a state is made: the module's names become upstream's."""
    own = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for name, tensor in own.items():
        name, snakes = _SNAKE.subn(r".alpha\1.\2", name)
        name, merging = _MERGE.subn(r"\1m_source.l_linear.\2", name)
        if snakes:
            tensor = tensor[None, :, None]
        elif merging and name.endswith("weight"):
            tensor = tensor[None]
        state[name] = tensor
