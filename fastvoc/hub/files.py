"""Which files of a folder or a repository make up a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch

INDEX = ".index.json"  # ends the name of the file that says which shards weights lie in
# The first pattern with a match wins: published names before any.
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "*.nemo",
    "generator.ckpt",
    "s3gen.safetensors",
    "s3gen.pt",
    "hift.pt",
    "bigvgan_generator.pt",
    "g_[0-9]*",
    "generator_v[0-9]*",
    "checkpoint-*steps.pkl",
    "*.pth.tar.zip",
    "*.pth.tar",
    "*.th",
    "*.pth",
    "*.pt",
    "*.ckpt",
    "*.pkl",
    "*.safetensors",
    "*.onnx",
)
TEXTS = (
    "config.json",
    "config.yml",
    "config.yaml",
    "preprocessor_config.json",
    "hyperparams.yaml",
    "cosyvoice.yaml",
    "cosyvoice2.yaml",
    "cosyvoice3.yaml",
    "stats.npy",
    "stats.h5",
)
# EnCodec's language models lie beside their codecs, and are asked for by name.
_OTHERS = ("encodec_lm*", "encodec_*_lm*")
# Counted up by training; upstream resumes from the last.
_NUMBERED = ("g_[0-9]*", "checkpoint-*steps.pkl")


def weights_among(names: Iterable[str], *, safetensors: bool | None = None, variant: str | None = None) -> list[str]:
    """The weights files that the first matching pattern finds: one, or several that nothing tells apart, or none.

    safetensors: True for files of that kind only, False for the others only.
    variant: the word that Transformers puts before the ending, as in `model.fp16.safetensors`; none when None.
    """
    names = sorted(name for name in names if not any(fnmatch(name, other) for other in _OTHERS))
    if safetensors is not None:
        names = [name for name in names if name.removesuffix(INDEX).endswith(".safetensors") == safetensors]
    if variant is not None:
        return [name for name in _variants(variant) if name in names][:1]
    for pattern in WEIGHTS:
        found = [name for name in names if fnmatch(name, pattern)]
        if found:
            return [max(found, key=_number)] if pattern in _NUMBERED else found
    return []


def shards_among(weights: str, names: Iterable[str]) -> list[str] | None:
    """The files that an index of this name spreads weights over; none for other weights, None when one is missing."""
    if not weights.endswith(INDEX):
        return []
    stem, _, suffix = weights.removesuffix(INDEX).rpartition(".")
    found = [name for name in sorted(names) if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", name)]
    return found if found and len(found) == _number(found[-1].rpartition(".")[0]) else None


def _variants(variant: str) -> tuple[str, str]:
    return f"model.{variant}.safetensors", f"pytorch_model.{variant}.bin"


def _number(name: str) -> int:
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else -1
