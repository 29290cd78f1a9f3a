"""Reading published checkpoints: the dialect is recognised from the file, and nothing in the file is executed.

A reader gives the whole state or a LoadError that names the first tensor that does not fit; never a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol

import torch

from fastvoc.checkpoints import (
    bigvgan,
    chatterbox,
    coqui,
    cosyvoice,
    dac,
    encodec,
    encodec_lm,
    hiftnet,
    hiftnet_transformers,
    jik876,
    kokoro,
    mimi,
    native,
    nemo,
    onnx_file,
    parallel_wavegan,
    rvc,
    snac,
    speechbrain,
    transformers,
    univnet,
    vits,
    vocos,
    vocos_trained,
)
from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, refuse
from fastvoc.checkpoints.source import Source, open_source
from fastvoc.errors import LoadError
from fastvoc.runtime.io import given_path

__all__ = ["Checkpoint", "Origin", "describe", "detect_and_load", "save"]

describe, save = native.describe, native.save


class _Format(Protocol):
    """What a module of this package offers."""

    def detect(self, source: Source) -> bool: ...
    def load(self, source: Source) -> Checkpoint: ...


# The plainest names come last: the other dialects extend them.
_FORMATS: tuple[_Format, ...] = (
    native,
    onnx_file,
    nemo,
    kokoro,
    chatterbox,
    hiftnet_transformers,
    cosyvoice,
    hiftnet,
    parallel_wavegan,
    speechbrain,
    transformers,
    mimi,
    snac,
    dac,
    encodec,
    encodec_lm,
    univnet,
    vocos,
    vocos_trained,
    bigvgan,
    rvc,
    vits,
    coqui,
    jik876,
)


def detect_and_load(path: str | os.PathLike[str], texts: Mapping[str, bytes] | None = None) -> Checkpoint:
    """Reads a weights file, or a folder with one, in any of the supported dialects.

    texts: take the place of the files of these names beside the weights.

    Raises LoadError naming the file and what is wrong with it: missing, damaged, unsafe, of an unknown dialect, or with
    tensors that are not exactly those its configuration calls for.
    """
    path = given_path(path)
    try:
        source = open_source(path)
        source = replace(source, texts={**source.texts, **(texts or {})})
        for module in _FORMATS:
            if module.detect(source):
                checkpoint = module.load(source)
                return replace(checkpoint, stored=checkpoint.stored or _stored(source))
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror or error}") from error
    if any(name.startswith(("mpd.", "msd.")) for name in source.entries):
        raise refuse(source.path, "discriminators of a training; the generator is in the g_ file beside it")
    names = ", ".join(islice(source.entries, 4)) or "none"
    raise refuse(source.path, f"no known vocoder in this {source.container} file; its tensors begin with: {names}")


def _stored(source: Source) -> torch.dtype | None:
    floats = [entry.dtype for entry in source.entries.values() if entry.dtype.is_floating_point]
    return min(floats, key=lambda dtype: dtype.itemsize, default=None)
