"""What of a checkpoint was read, what its caller says, and what is assumed: a warning for the last."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin
from fastvoc.errors import ArgumentError, AssumptionWarning
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.sound.mel import MelConfig

_HOW = {
    "sample_rate": "load(..., sample_rate=...) or `fastvoc convert --sample-rate` says another rate",
    "mel": "load(..., mel=...) says another front end",
}
_CALLER = Origin("caller", "an argument")


def with_given(checkpoint: Checkpoint, sample_rate: int | None = None, mel: MelConfig | None = None) -> Checkpoint:
    """The checkpoint with a rate in Hz and a front end that its files leave open.

    Raises ArgumentError when they state another, and for a rate or front end that the model cannot have.
    """
    if sample_rate is not None:
        _check_rate(checkpoint, sample_rate)
        checkpoint = _at_rate(checkpoint, sample_rate)
    if mel is not None:
        if sample_rate is None and "sample_rate" in checkpoint.assumed and isinstance(mel, MelConfig):
            checkpoint = _at_rate(checkpoint, mel.sample_rate)
        _check_mel(checkpoint, mel)
        origins = {**checkpoint.origins, "mel": _CALLER}
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, mel=mel), origins=origins)
    return checkpoint


def warn_assumed(name: str | os.PathLike[str], checkpoint: Checkpoint, stacklevel: int) -> None:
    """Warns, once for all, of what is assumed; `stacklevel` as for `warnings.warn` in the calling function."""
    if not (assumed := checkpoint.assumed):
        return
    facts = [f"{field} {shown(getattr(checkpoint.config, field))} is assumed: {why}" for field, why in assumed.items()]
    how = [_HOW[field] for field in assumed if field in _HOW]
    text = f"{os.fspath(name)}: {'; '.join([*facts, *how])}"
    warnings.warn(text, AssumptionWarning, stacklevel=stacklevel + 1)


def shown(value: object) -> str:
    """A field of a configuration in a few words."""
    if not isinstance(value, MelConfig):
        return str(value)
    high = value.sample_rate / 2 if value.f_max is None else value.f_max
    return (
        f"{value.n_mels} bands of {value.f_min:g} to {high:g} Hz, n_fft {value.n_fft}, window {value.win_length}, "
        f"hop {value.hop_length}, {value.log}, floor {value.floor:g}"
    )


def _check_rate(checkpoint: Checkpoint, rate: int) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
        raise ArgumentError(f"sample_rate: expected a positive integer in Hz, got {rate!r}")
    stated = checkpoint.config.sample_rate
    if rate != stated and "sample_rate" not in checkpoint.assumed:
        origin = checkpoint.origins.get("sample_rate")
        where = "its files say so" if origin is None else origin.why
        raise ArgumentError(f"sample_rate: got {rate}, the checkpoint has {stated} Hz ({where})")


def _at_rate(checkpoint: Checkpoint, rate: int) -> Checkpoint:
    config = checkpoint.config
    given = ["sample_rate"]
    if isinstance(config, EncodecConfig):
        config = config.fitted(rate, config.n_q)
        given.append("bandwidths")  # they follow from the rate
    else:
        mel = getattr(config, "mel", None)
        config = replace(config, sample_rate=rate, **({} if mel is None else {"mel": _mel_at(mel, rate)}))
    return replace(checkpoint, config=config, origins={**checkpoint.origins, **dict.fromkeys(given, _CALLER)})


def _mel_at(mel: MelConfig, rate: int) -> MelConfig | None:
    """The assumed front end at another rate, None where its bands would lie above half of it."""
    if mel.sample_rate == rate:
        return mel
    if mel.f_min >= rate / 2:
        return None
    return replace(mel, sample_rate=rate, f_max=None if mel.f_max is None else min(mel.f_max, rate / 2))


def _check_mel(checkpoint: Checkpoint, mel: MelConfig) -> None:
    config = checkpoint.config
    if not isinstance(mel, MelConfig):
        raise ArgumentError(f"mel: expected a fastvoc.sound.mel.MelConfig, got {type(mel).__name__}")
    if not hasattr(config, "mel") or getattr(config, "num_codebooks", False):
        raise ArgumentError(f"mel: a {config.family} model has no mel front end")
    for name, got, expected in (
        ("sample_rate", mel.sample_rate, config.sample_rate),
        ("hop_length", mel.hop_length, config.hop),
        ("n_mels", mel.n_mels, config.num_mels),
    ):
        if got != expected:
            raise ArgumentError(f"mel.{name}: got {got}, the model has {expected}")
    if config.mel not in (None, mel) and "mel" not in checkpoint.assumed:
        raise ArgumentError(f"mel: got {shown(mel)}, the checkpoint has {shown(config.mel)}")
