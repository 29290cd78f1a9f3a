"""Training checkpoints in the published layout: `g_XXXXXXXX` {"generator"} and `do_XXXXXXXX` {"mpd", "msd", "optim_g", ...}."""

from __future__ import annotations

import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.errors import LoadError
from fastvoc.io import atomic_path

_REQUIRED = ("mpd", "msd", "optim_g", "optim_d", "steps", "epoch")


@dataclass
class TrainState:
    """Everything a run needs to go on.

    generator: published names with g and v. optim_g covers the generator's parameters in their order, optim_d those of
    the multi-scale, then the multi-period discriminator. steps: updates made; epoch: the running epoch, and batches of
    it that are done. ema: averaged generator, or None. The last two are fastvoc's; the original trainer ignores them.
    """

    generator: dict[str, Tensor]
    mpd: dict[str, Tensor]
    msd: dict[str, Tensor]
    optim_g: dict[str, Any]
    optim_d: dict[str, Any]
    steps: int
    epoch: int
    epoch_batches: int = 0
    ema: dict[str, Tensor] | None = None


def write(folder: Path, state: TrainState) -> tuple[Path, Path]:
    """Writes both files, each atomically, and returns their paths. A pair is complete once `do_` is there."""
    paths = folder / f"g_{state.steps:08d}", folder / f"do_{state.steps:08d}"
    training = {name: getattr(state, name) for name in (*_REQUIRED, "epoch_batches", "ema")}
    for path, content in zip(paths, ({"generator": state.generator}, training), strict=True):
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    return paths


def newest(folder: Path) -> tuple[Path, Path] | None:
    """The pair of the highest step number of which both files exist."""
    steps = [p.name[2:] for p in folder.glob("g_*") if re.fullmatch(r"g_\d{8}", p.name)]
    pairs = [(folder / f"g_{s}", folder / f"do_{s}") for s in sorted(steps, reverse=True)]
    return next((pair for pair in pairs if pair[1].is_file()), None)


def read(generator: Path, training: Path) -> TrainState:
    """Reads a pair, also one that the original trainer wrote. Raises LoadError naming the file and what it lacks."""
    g, do = _load(generator), _load(training)
    if "generator" not in g:
        raise LoadError(f"{generator}: no 'generator' inside")
    for name in _REQUIRED:
        if name not in do:
            raise LoadError(f"{training}: no {name!r} inside")
    own = {name: do[name] for name in ("epoch_batches", "ema") if name in do}
    return TrainState(g["generator"], *(do[name] for name in _REQUIRED), **own)


def prune(folder: Path, keep: int) -> None:
    """Removes all complete pairs but the newest `keep`."""
    steps = sorted(p.name[3:] for p in folder.glob("do_*") if re.fullmatch(r"do_\d{8}", p.name))
    for step in steps[:-keep]:
        for prefix in ("do_", "g_"):
            (folder / f"{prefix}{step}").unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise LoadError(f"{path}: not a readable torch checkpoint ({error})") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path}: expected a dictionary, got {type(content).__name__}")
    return content
