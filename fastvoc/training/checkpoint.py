"""Training checkpoints in the published layout.

`g_XXXXXXXX` holds {"generator"}, `do_XXXXXXXX` {"mpd", "msd", "optim_g", "optim_d", "steps", "epoch"}. An averaged
generator goes into a third file, `ema_XXXXXXXX`, with the layout of `g_`.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import LoadError
from fastvoc.runtime.io import atomic_path

_REQUIRED = ("mpd", "msd", "optim_g", "optim_d", "steps", "epoch")
_OURS = ("epoch_batches", "mrd")

# What torch's restricted unpickler raises on files that are cut, foreign or want code to run.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    pickle.UnpicklingError,
)


@dataclass
class TrainState:
    """Everything a run needs to go on.

    generator: published names, HiFi-GAN's with g and v. optim_g covers the generator's parameters in their order,
    optim_d those of the multi-scale, the multi-period, then the multi-resolution discriminator, which the original does
    not have. steps: updates made; epoch: the running epoch, of which epoch_batches (0 in files of the original trainer,
    which ignores it) are done. ema: averaged generator, or None.
    """

    generator: dict[str, Tensor]
    mpd: dict[str, Tensor]
    msd: dict[str, Tensor]
    optim_g: dict[str, Any]
    optim_d: dict[str, Any]
    steps: int
    epoch: int
    epoch_batches: int = 0
    mrd: dict[str, Tensor] = field(default_factory=dict)
    ema: dict[str, Tensor] | None = None


def write(folder: Path, state: TrainState) -> Path:
    """Writes a state's files, each atomically, and returns the path of `do_`: once it is there, the set is complete."""
    ema = {} if state.ema is None else {"ema_": {"generator": state.ema}}
    training = {name: getattr(state, name) for name in (*_REQUIRED, *_OURS)}
    path = folder
    for prefix, content in {"g_": {"generator": state.generator}, **ema, "do_": training}.items():
        path = folder / f"{prefix}{state.steps:08d}"
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    return path


def newest(folder: Path) -> Path | None:
    """The `do_` file of the highest step number that has its `g_` file."""
    files = [p for p in folder.glob("do_*") if re.fullmatch(r"do_\d{8}", p.name) and _beside(p, "g_").is_file()]
    return max(files, default=None)


def read(path: Path) -> TrainState:
    """Reads a `do_` file and those beside it, also of the original trainer. Raises LoadError naming file and lack."""
    training, g = _load(path), _beside(path, "g_")
    for name in _REQUIRED:
        if name not in training:
            raise LoadError(f"{path}: no {name!r} inside")
    ema = _beside(path, "ema_")
    state = {name: training[name] for name in (*_REQUIRED, *_OURS) if name in training}
    return TrainState(generator=_generator(g), ema=_generator(ema) if ema.is_file() else None, **state)


def prune(folder: Path, keep: int) -> None:
    """Removes all sets but the newest `keep`."""
    for path in sorted(p for p in folder.glob("do_*") if re.fullmatch(r"do_\d{8}", p.name))[:-keep]:
        for prefix in ("do_", "g_", "ema_"):
            _beside(path, prefix).unlink(missing_ok=True)


def _beside(path: Path, prefix: str) -> Path:
    return path.with_name(prefix + path.name.removeprefix("do_"))


def _generator(path: Path) -> dict[str, Tensor]:
    content = _load(path)
    if "generator" not in content:
        raise LoadError(f"{path}: no 'generator' inside")
    state: dict[str, Tensor] = content["generator"]
    return state


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise LoadError(f"{path}: not a readable torch checkpoint ({error})") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path}: expected a dictionary, got {type(content).__name__}")
    return content
