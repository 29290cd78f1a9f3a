"""The `snac` package (1.2): `SNAC`, codes in a list, the coarse ones first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.snac import canonical_name, module_names
from fastvoc.compat import keywords
from fastvoc.compat.dac import without_ones
from fastvoc.compat.encodec import whole_codes
from fastvoc.compat.pretrained import folder_of, read_json, weights_of
from fastvoc.compat.upstream import Upstream, folded
from fastvoc.errors import LoadError
from fastvoc.loading import SkipInit
from fastvoc.models.levels import packed, unpacked
from fastvoc.models.snac import Snac, SnacConfig

__all__ = ["SNAC"]

_FREQUENCIES = ".rel_pos.inv_freq"
_PROJECTIONS = (".to_qkv.weight", ".to_out.weight")


class _Quantizer(Upstream):
    """`quantizer` with `from_codes`."""

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes [B, T_k] of every codebook -> [B, D, T]. Raises ShapeError or DtypeError for those that do not fit."""
        steps, strides = self._model.steps, self._model.strides
        frames = packed(
            [whole_codes(level, f"codes[{i}]") for i, level in enumerate(codes)],
            [steps // stride for stride in strides],
        )
        z: Tensor = self._model.decoding(frames)
        return z


class SNAC(Upstream):
    """The codec under the package's names and signatures; random weights when made by its constructor.

    As in the package, the decoder's noise is drawn by torch's own generator in every call, a signal for each stage;
    `fastvoc.load` gives a codec whose noise is decided by a seed. Raises ArgumentError naming an illegal argument.
    """

    def __init__(
        self,
        sampling_rate: int = 44100,
        encoder_dim: int = 64,
        encoder_rates: Sequence[int] = (3, 3, 7, 7),
        latent_dim: int | None = None,
        decoder_dim: int = 1536,
        decoder_rates: Sequence[int] = (7, 7, 3, 3),
        attn_window_size: int | None = 32,
        codebook_size: int = 4096,
        codebook_dim: int = 8,
        vq_strides: Sequence[int] = (8, 4, 2, 1),
        noise: bool = True,
        depthwise: bool = True,
    ) -> None:
        config = SnacConfig(
            sampling_rate,
            encoder_dim,
            tuple(encoder_rates),
            latent_dim,
            decoder_dim,
            tuple(decoder_rates),
            attn_window_size,
            codebook_size,
            codebook_dim,
            tuple(vq_strides),
            noise,
            depthwise,
        )
        super().__init__(Snac(config))
        self.quantizer = _Quantizer(self._model.quantizer)
        for name, value in asdict(config).items():
            if name not in ("sample_rate", "noise", "depthwise"):
                setattr(self, name, list(value) if isinstance(value, tuple) else value)
        self.sampling_rate, self.n_codebooks = sampling_rate, config.n_q
        self.hop_length = config.hop // config.steps

    @classmethod
    def from_config(cls, config_path: str | os.PathLike[str]) -> SNAC:
        """Random weights in the shape that a `config.json` says. Raises LoadError or ArgumentError."""
        path = Path(config_path)
        return cls(**read_json(path.parent, path.name))

    @classmethod
    def from_pretrained(cls, repo_id: str | os.PathLike[str], **kwargs: object) -> SNAC:
        """The model of a folder or hub id, in eval mode with its weights frozen.

        kwargs: keywords of loading (`fastvoc.compat.keywords`). Raises LoadError naming the file and what is wrong with
        it, ArgumentError for an option that does not exist or cannot be honoured.
        """
        given = keywords.loading(dict[str, Any](kwargs)).plain()
        folder = folder_of(repo_id, given.files)
        checkpoint = detect_and_load(weights_of(folder, given.files))
        if checkpoint.config.family != "snac":
            raise LoadError(f"{folder}: a {checkpoint.config.family} model, expected snac")
        values = asdict(checkpoint.config)
        with SkipInit():
            model = cls(sampling_rate=values.pop("sample_rate"), **values)
        model._model.load_state_dict(checkpoint.state, assign=True)
        return given.ready(model, given.saved_dtype(checkpoint.stored))

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        places = dict(module_names(self._model.config))
        kept = {canonical_name(n, places): t for n, t in state.items() if not n.endswith(_FREQUENCIES)}
        return {
            n: t[:, :, None] if n.endswith(_PROJECTIONS) and t.dim() == 2 else t
            for n, t in without_ones(folded(kept)).items()
        }

    def preprocess(self, audio_data: Tensor) -> Tensor:
        """[B, 1, S] with zeros behind it up to whole frames of all codebooks."""
        return torch.nn.functional.pad(audio_data, (0, -audio_data.shape[-1] % self._model.config.hop))

    def encode(self, audio_data: Tensor) -> list[Tensor]:
        """[B, 1, S] -> codes [B, T_k] int64 of every codebook, the coarse one first. Raises ShapeError, DtypeError."""
        (codes,), _ = self._model.encode(audio_data)
        return unpacked(codes, self._model.config.rates)

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes [B, T_k] of every codebook -> [B, 1, S], S of whole frames.

        Raises ShapeError for codes that do not fit together, DtypeError for those that are no whole numbers,
        ArgumentError for one outside the codebooks.
        """
        config = self._model.config
        frames = packed([whole_codes(level, f"codes[{i}]") for i, level in enumerate(codes)], config.rates)
        shape = len(frames), 1
        drawn = [
            torch.randn(*shape, n * frames.shape[2], dtype=self._model.dtype, device=frames.device)
            for n in config.noise_steps
        ]
        wav: Tensor = self._model.decode([frames], noise=drawn or 0)
        return wav

    def forward(self, audio_data: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encodes and decodes: the sound, as long as the input, and the codes."""
        codes = self.encode(audio_data)
        return self.decode(codes)[..., : audio_data.shape[-1]], codes
