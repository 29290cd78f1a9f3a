"""github.com/NVIDIA/BigVGAN: `BigVGAN` of its `bigvgan.py`, with what its examples import beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.bigvgan import FILTER_ERROR, canonical_name, filter_owner, generator_config
from fastvoc.checkpoints.constants import off_by
from fastvoc.checkpoints.source import read_small
from fastvoc.checkpoints.text import Fields, parse_json
from fastvoc.compat import keywords
from fastvoc.compat.hifigan import mel_spectrogram
from fastvoc.compat.pretrained import folder_of, weights_of
from fastvoc.compat.upstream import Attributes, WeightNormed, attributes
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.loading import SkipInit
from fastvoc.models.bigvgan import BigVgan
from fastvoc.ops.snake_aa import TAPS, kaiser_sinc

__all__ = ["AttrDict", "BigVGAN", "get_mel_spectrogram", "load_hparams_from_json", "mel_spectrogram"]

AttrDict = Attributes


class BigVGAN(WeightNormed):
    """BigVGAN's generator. `load_state_dict` takes `torch.load(...)["generator"]`; weight norm is folded there.

    Args:
        h: `AttrDict` or any object with the fields of `config.json`.
        use_cuda_kernel: accepted and kept in `h`; fastvoc chooses its implementation itself.

    Raises ArgumentError naming a field that is missing or illegal.
    """

    def __init__(self, h: Any, use_cuda_kernel: bool = False) -> None:
        own = attributes(h)
        try:
            config = generator_config(Fields(own, Path("h")))
        except LoadError as error:
            raise ArgumentError(str(error)) from None
        super().__init__(BigVgan(config))
        self.h = own
        self.h["use_cuda_kernel"] = use_cuda_kernel
        self.num_kernels = len(config.resblock_kernel_sizes)
        self.num_upsamples = len(config.upsample_rates)
        self.use_bias_at_final, self.use_tanh_at_final = config.use_bias_at_final, config.use_tanh_at_final

    def forward(self, x: Tensor) -> Tensor:
        """[B, num_mels, T] log-mel -> [B, 1, S] samples in -1..1."""
        wav: Tensor = self._model(x)
        return wav

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Takes upstream's names and its filters, which must be the published one, or the names of `state_dict`.

        Raises ArgumentError for another filter.
        """
        own = {}
        for name, tensor in state.items():
            owner = filter_owner(name)
            if owner is None or f"{owner}.act.alpha" not in state:
                own[canonical_name(name)] = tensor
            elif tensor.numel() != TAPS or off_by(tensor.flatten(), kaiser_sinc(), FILTER_ERROR) is not None:
                raise ArgumentError(f"state_dict: {name} is not the published filter")
        return super()._own_state(own)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        use_cuda_kernel: bool = False,
        **options: Any,
    ) -> BigVGAN:
        """The generator of a folder or hub id, in eval mode with its weights frozen.

        Args:
            pretrained_model_name_or_path: folder with `config.json` and `bigvgan_generator.pt`, or `owner/name`.
            use_cuda_kernel: as in the constructor.
            options: keywords of loading (`fastvoc.compat.keywords`), among them `map_location`, where the weights go.

        Raises LoadError naming the file and what is wrong with it, ArgumentError for an option that does not exist or
        cannot be honoured.
        """
        given = keywords.loading(options).plain()
        folder = folder_of(pretrained_model_name_or_path, given.files)
        checkpoint = detect_and_load(weights_of(folder, given.files))
        if checkpoint.format != "bigvgan":
            raise LoadError(f"{folder}: a {checkpoint.config.family} model, expected bigvgan")
        with SkipInit():
            model = cls(load_hparams_from_json(folder / "config.json"), use_cuda_kernel)
        model._model.load_state_dict(checkpoint.state, assign=True)
        return given.ready(model, given.saved_dtype(checkpoint.stored))


def load_hparams_from_json(path: str | os.PathLike[str]) -> Attributes:
    """The fields of a `config.json`. Raises LoadError for a file that is none."""
    file = Path(path)
    try:
        return Attributes(parse_json(read_small(file), file))
    except OSError as error:
        raise LoadError(f"{file}: {error.strerror or error}") from error


def get_mel_spectrogram(wav: Tensor, h: Any) -> Tensor:
    """[B, L] samples in -1..1 -> [B, num_mels, L // hop_size], the front end that `h` describes."""
    h = attributes(h)
    return mel_spectrogram(wav, h.n_fft, h.num_mels, h.sampling_rate, h.hop_size, h.win_size, h.fmin, h.fmax)
