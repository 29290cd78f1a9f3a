"""github.com/gemelo-ai/vocos (0.1.0): `Vocos` and its feature extractors under their own signatures.

`from fastvoc.compat.vocos import Vocos` takes the place of `from vocos import Vocos`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.source import read_small
from fastvoc.checkpoints.text import Fields, parse_yaml
from fastvoc.checkpoints.vocos import (
    CONSTANTS,
    EMBEDDED_CODEC,
    canonical_name,
    constant_problem,
    read_config,
)
from fastvoc.codec import Codec
from fastvoc.compat import keywords
from fastvoc.compat.pretrained import folder_of, weights_of
from fastvoc.compat.upstream import Upstream
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.loading import SkipInit
from fastvoc.models.vocos import Vocos as VocosModel
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.sound.mel import MelConfig, MelSpectrogram

__all__ = ["EncodecFeatures", "MelSpectrogramFeatures", "Vocos"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class MelSpectrogramFeatures:
    """Upstream's front end of a model on mels."""

    def __init__(self, config: MelConfig) -> None:
        self._mel = MelSpectrogram(config)
        self.padding = "center" if config.pad == "center" else "same"

    def __call__(self, audio: Tensor, **kwargs: Any) -> Tensor:
        """[B, S] samples -> [B, n_mels, T] natural log-mel; `kwargs` have no effect."""
        return self._mel(audio)


class EncodecFeatures:
    """Upstream's front end of a model on codes. EnCodec is needed, and loaded, only when audio comes.

    `encodec` may be set to a `fastvoc.Codec`, an `EncodecModel` of `fastvoc.compat.encodec`, or upstream's own.
    """

    def __init__(self, model: VocosModel, encodec: Any = None) -> None:
        self._model = model
        self.encodec = encodec
        self.local_files_only = False  # whether EnCodec may be fetched
        self.bandwidths = list(model.config.bandwidths)
        self.num_q = model.config.num_codebooks

    @property
    def codebook_weights(self) -> Tensor:
        """[num_codebooks * codebook_size, channels]."""
        return self._model.feature_extractor.codebook_weights

    def get_encodec_codes(self, audio: Tensor, bandwidth: float | None = None) -> Tensor:
        """[B, S] samples -> codes [K, B, T] int64 at `bandwidth` in kbit/s, the highest when None.

        Raises ShapeError for other audio, LoadError when EnCodec cannot be had, and EnCodec's own errors.
        """
        _check_audio(audio)
        bandwidth = self.bandwidths[-1] if bandwidth is None else bandwidth
        if self.encodec is None:
            self.encodec = _published_encodec(self._model.config.sample_rate, self.local_files_only).to(audio.device)
        if isinstance(self.encodec, Codec):
            return self.encodec.encode(audio[:, None], bandwidth).codes.transpose(0, 1)
        latent = self.encodec.encoder(audio[:, None])
        codes: Tensor = self.encodec.quantizer.encode(latent, self.encodec.frame_rate, bandwidth)
        return codes

    def __call__(self, audio: Tensor, **kwargs: Any) -> Tensor:
        """[B, S] samples -> [B, channels, T]; `kwargs` must have `bandwidth_id`, one number or one for each item."""
        _check_audio(audio)
        row = self._model.rows(kwargs.get("bandwidth_id"), len(audio))
        if row is None or not self.bandwidths:
            raise ArgumentError("audio: the checkpoint does not say which bandwidths the model knows; pass codes")
        parts: list[Tensor] = [audio] * len(row)
        for i in set(row.tolist()):
            items = (row == i).nonzero().flatten().tolist()
            codes = self.get_encodec_codes(audio[items], self.bandwidths[i])
            for item, features in zip(items, self._model.codes_to_features(codes.transpose(0, 1)), strict=True):
                parts[item] = features
        return torch.stack(parts)


class Vocos(Upstream):
    """Upstream's model: waveforms or features in, waveforms out, [B, S].

    `load_state_dict` takes upstream's names and those that `state_dict` gives: the same but for adaptive norms, whose
    `scale.weight` and `shift.weight` are `weight` and `bias`, and the codebooks, `codebooks.codebook_weights`.
    """

    def __init__(self, model: VocosModel, encodec: Any = None) -> None:
        super().__init__(model, {"feature_extractor": "codebooks"})
        self.config = model.config
        self.feature_extractor: MelSpectrogramFeatures | EncodecFeatures | None = None
        if model.config.num_codebooks:
            self.feature_extractor = EncodecFeatures(model, encodec)
        elif model.config.mel is not None:
            self.feature_extractor = MelSpectrogramFeatures(model.config.mel)

    @classmethod
    def from_hparams(cls, config_path: str | os.PathLike[str], *, encodec: Any = None) -> Vocos:
        """A model with random weights, as a `config.yaml` describes it. Raises LoadError."""
        path = Path(config_path)
        try:
            values = parse_yaml(read_small(path), path)
        except OSError as error:
            raise LoadError(f"{path}: {error.strerror or error}") from error
        return cls(VocosModel(read_config(Fields(values, path))), encodec)

    @classmethod
    def from_pretrained(
        cls, repo_id: str | os.PathLike[str], revision: str | None = None, *, encodec: Any = None, **options: Any
    ) -> Vocos:
        """The model of a folder or hub id, in eval mode with its weights frozen.

        Args:
            repo_id: folder with `config.yaml` and `pytorch_model.bin`, or `owner/name`.
            revision: branch, tag or commit on the hub.
            encodec: what makes codes of audio, for a model on codes; the published EnCodec when None, loaded when audio
                first comes, of local files only where this model is. Codes need none.
            options: further keywords of loading (`fastvoc.compat.keywords`).

        Raises LoadError naming the file and what is wrong with it, ArgumentError for an option that does not exist or
        cannot be honoured.
        """
        given = keywords.loading({"revision": revision, **options}).plain()
        folder = folder_of(repo_id, given.files)
        checkpoint = detect_and_load(weights_of(folder, given.files))
        if not isinstance(checkpoint.config, VocosConfig):
            raise LoadError(f"{folder}: a {checkpoint.config.family} model, expected vocos")
        with SkipInit():
            model = VocosModel(checkpoint.config)
        model.load_state_dict(checkpoint.state, assign=True)
        vocos = given.ready(cls(model, encodec), given.saved_dtype(checkpoint.stored))
        if isinstance(vocos.feature_extractor, EncodecFeatures):
            vocos.feature_extractor.local_files_only = given.files.local_files_only
        return vocos

    @torch.inference_mode()
    def forward(self, audio_input: Tensor, **kwargs: Any) -> Tensor:
        """Copy synthesis: [B, S] samples -> [B, S'].

        Raises ArgumentError when the front end is not known, and the errors of `decode`.
        """
        if self.feature_extractor is None:
            raise ArgumentError("audio_input: the checkpoint does not say which front end it was trained with")
        return self.decode(self.feature_extractor(audio_input, **kwargs), **kwargs)

    @torch.inference_mode()
    def decode(self, features_input: Tensor, **kwargs: Any) -> Tensor:
        """Features to waveform.

        Args:
            features_input: [B, channels, T] log-mel, or what `codes_to_features` returned.
            kwargs: `bandwidth_id` for a model on codes, a number, a tensor [1], or one for each item [B]. Others have
                no effect.

        Returns:
            [B, S] samples.

        Raises ShapeError, DtypeError or ArgumentError naming a wrong argument.
        """
        if not isinstance(features_input, Tensor):
            raise DtypeError(f"features_input: expected a torch.Tensor, got {type(features_input).__name__}")
        chosen = {name: kwargs[name] for name in self._model.inputs if name in kwargs}
        wav: Tensor = self._model(features_input, **chosen)
        return wav[:, 0]

    @torch.inference_mode()
    def codes_to_features(self, codes: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """EnCodec's codes [K, T] or [K, B, T], of any integer type, to features [1, channels, T] or [B, channels, T].

        K may be less than the model's codebooks. Raises ArgumentError for a code outside the codebooks and for a model
        on mels, ShapeError and DtypeError for other codes.
        """
        batch = codes_tensor(codes, next(self.parameters()).device)
        features: Tensor = self._model.codes_to_features(batch)
        return features

    def _own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A whole EnCodec is left out.

        Raises ArgumentError for windows or filters that are not those of the configuration.
        """
        return model_state(state, self.config)


def model_state(state: Mapping[str, Tensor], config: VocosConfig) -> dict[str, Tensor]:
    """A state under any of the names that files have, under those of an Upstream whose codebooks are called so.

    EnCodec and the constants of the transforms are left out. Raises ArgumentError for other constants than the model's.
    """
    result = {}
    for given, tensor in state.items():
        name = canonical_name(given)
        if problem := constant_problem(name, tensor, config):
            raise ArgumentError(f"state_dict: {given} {problem}")
        if name not in CONSTANTS and not name.startswith(EMBEDDED_CODEC):
            result[name.replace("feature_extractor.", "codebooks.")] = tensor
    return result


def codes_tensor(codes: Tensor | np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """Codes [K, T] or [K, B, T] of any integer type as [B, K, T] int64. Raises DtypeError or ShapeError for others."""
    if isinstance(codes, np.ndarray) and codes.dtype.kind in "iu":
        codes = torch.from_numpy(codes.astype(np.int64))
    if not isinstance(codes, Tensor) or codes.dtype not in _INTEGERS:
        got = codes.dtype if isinstance(codes, Tensor | np.ndarray) else type(codes).__name__
        raise DtypeError(f"codes: expected a tensor or numpy array of whole numbers, got {got}")
    if codes.dim() not in (2, 3):
        raise ShapeError(f"codes: expected [K, T] or [K, B, T], got {list(codes.shape)}")
    batch = codes[:, None] if codes.dim() == 2 else codes
    return batch.transpose(0, 1).long().to(device)


def _check_audio(audio: Tensor) -> None:
    if not isinstance(audio, Tensor) or not audio.is_floating_point():
        got = audio.dtype if isinstance(audio, Tensor) else type(audio).__name__
        raise DtypeError(f"audio: expected a floating-point tensor, got {got}")
    if audio.dim() != 2 or 0 in audio.shape:
        raise ShapeError(f"audio: expected [B > 0, S > 0], got {list(audio.shape)}")


def _published_encodec(sample_rate: int, local_files_only: bool) -> Any:
    from fastvoc.compat.encodec import EncodecModel
    from fastvoc.hub import published

    name = published.CODECS[sample_rate]
    if local_files_only and not published.place(name).is_file():
        raise LoadError(f"{name}: not in {published.place(name).parent}, and local_files_only forbids fetching it")
    made = EncodecModel.encodec_model_24khz if sample_rate == 24000 else EncodecModel.encodec_model_48khz
    return made()
