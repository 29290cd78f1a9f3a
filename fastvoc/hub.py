"""Models on the Hugging Face hub: only the needed files are fetched, and their checksums are kept and checked.

The cache, offline mode and endpoint are huggingface_hub's own (HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_ENDPOINT).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fastvoc.errors import LoadError
from fastvoc.io import atomic_path

_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$")
_TEXTS = ("config.json", "config.yml", "config.yaml", "hyperparams.yaml", "stats.npy", "stats.h5")
# The first pattern with a match wins: plain tensors before pickles, published names before any.
_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "*.nemo",
    "generator.ckpt",
    "g_[0-9]*",
    "generator_v[0-9]*",
    "checkpoint-*steps.pkl",
    "*.safetensors",
    "*.pth",
    "*.pt",
    "*.pkl",
)
_RECORD = "fastvoc-{commit}.json"


@dataclass(frozen=True)
class HubModel:
    """A model known to load: its sample rate in Hz, and the licence its card states."""

    repo: str
    family: str
    sample_rate: int
    licence: str = "unknown"


KNOWN = (
    HubModel("microsoft/speecht5_hifigan", "hifigan", 16000, "MIT"),
    HubModel("espnet/fastspeech2_conformer_hifigan", "hifigan", 22050),
    HubModel("speechbrain/tts-hifigan-ljspeech", "hifigan", 22050, "Apache-2.0"),
    HubModel("speechbrain/tts-hifigan-libritts-16kHz", "hifigan", 16000, "Apache-2.0"),
    HubModel("speechbrain/tts-hifigan-libritts-22050Hz", "hifigan", 22050, "Apache-2.0"),
)


def is_hub_id(name: str) -> bool:
    """Whether a name reads `owner/name` or `owner/name@revision`."""
    return _HUB_ID.match(name) is not None


def is_cached(repo: str) -> bool:
    """Whether a model can be loaded without the network."""
    folder = _snapshot(repo, None)
    return folder is not None and bool(_needed(path.name for path in folder.iterdir()))


def fetch(name: str) -> Path:
    """The folder with a model's files, from the cache or else from the hub.

    `name` is `owner/name` or `owner/name@revision`. A cached model is used as it is, without asking the network.
    Raises LoadError when it is in neither, with the command that fetches it, and when a file differs from the checksum
    recorded for it.
    """
    match = _HUB_ID.match(name)
    if match is None:
        raise LoadError(f"{name!r}: expected a hub id `owner/name` or `owner/name@revision`")
    repo, revision = match["repo"], match["revision"]
    folder = _snapshot(repo, revision)
    names = _needed(path.name for path in folder.iterdir()) if folder else []
    if folder is None or not names:
        folder, names = _download(repo, revision)
    _check(repo, folder, names)
    return folder


def _needed(names: Iterable[str]) -> list[str]:
    """The configurations and the one weights file in a repository's top folder; empty without weights."""
    names = sorted(name for name in names if "/" not in name)
    for pattern in _WEIGHTS:
        if found := [name for name in names if fnmatch(name, pattern)]:
            return [name for name in _TEXTS if name in names] + found[-1:]
    return []


def _snapshot(repo: str, revision: str | None) -> Path | None:
    # The layout is documented by huggingface_hub; its own lookup wants every file of the repository to be there.
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    reference = cache / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = cache / "snapshots" / commit if commit else None
    return folder if folder and folder.is_dir() else None


def _download(repo: str, revision: str | None) -> tuple[Path, list[str]]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library's own errors: which library that is depends on the version of huggingface_hub.
    network_errors: tuple[Any, ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    try:
        names = _needed(HfApi().list_repo_files(repo, revision=revision))
        if not names:
            raise LoadError(f"{repo}: no weights file in this repository (looked for {', '.join(_WEIGHTS)})")
        paths = [Path(hf_hub_download(repo, name, revision=revision)) for name in names]
    except network_errors as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
        raise LoadError(
            f"{repo}: not in the cache, and not to be had from the hub ({type(error).__name__}: {reason}). "
            f"Run `{command}` where the hub can be reached, with the same HF_HOME"
        ) from error
    return paths[0].parent, names


def _check(repo: str, folder: Path, names: list[str]) -> None:
    """Compares files with the checksums recorded for this commit, and records those of new files."""
    record = folder.parents[1] / _RECORD.format(commit=folder.name)
    recorded = _read_record(record)
    found = {name: _sha256(folder / name) for name in names}
    for name, sha in found.items():
        expected = recorded.get(name) or _stated_sha256(folder / name) or sha
        if sha != expected:
            raise LoadError(
                f"{folder / name}: damaged or replaced: its SHA-256 is {sha}, recorded was {expected}. "
                f"Remove {folder.parents[1]} and load {repo} again"
            )
    if not recorded.keys() >= found.keys():
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps({**recorded, **found}, indent=1, sort_keys=True))


def _read_record(record: Path) -> dict[str, str]:
    try:
        values = json.loads(record.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LoadError(f"{record}: no readable checksums ({error}); remove it if you trust the files") from None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise LoadError(f"{record}: no readable checksums; remove it if you trust the files")
    return values


def _stated_sha256(path: Path) -> str | None:
    # The cache names a large file's blob by the SHA-256 that the hub states.
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
