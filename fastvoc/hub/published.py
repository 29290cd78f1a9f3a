"""Files that the encodec package publishes (github.com/facebookresearch/encodec): in torch.hub's cache, or fetched."""

from __future__ import annotations

from pathlib import Path

import torch

from fastvoc.errors import LoadError

ROOT_URL = "https://dl.fbaipublicfiles.com/encodec/v0/"
# By sample rate. The name ends in the beginning of the file's SHA-256.
CODECS = {24000: "encodec_24khz-d7cc33bc.th", 48000: "encodec_48khz-7e698e3e.th"}
LANGUAGE_MODELS = {24000: "encodec_lm_24khz-1608e3c0.th", 48000: "encodec_lm_48khz-7add9fc3.th"}


def place(name: str) -> Path:
    """The file's place in torch.hub's cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fetch(name: str) -> Path:
    """The file's place in torch.hub's cache, into which it is downloaded if it is not there.

    Raises LoadError when it cannot be had, or has another hash than its name says.
    """
    path = place(name)
    if not path.is_file():
        stated = path.stem.rpartition("-")[2]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(ROOT_URL + name, str(path), hash_prefix=stated, progress=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise LoadError(
                f"{name}: not in {path.parent}, and not to be had from {ROOT_URL} ({error}). Put the file there, or "
                "name the place where it lies"
            ) from error
    return path
