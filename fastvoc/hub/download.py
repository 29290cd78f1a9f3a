"""Models on the Hugging Face hub: only the needed files are fetched, and their checksums are kept and checked.

The cache, offline mode and endpoint are huggingface_hub's own (HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_ENDPOINT).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.hub import files as model_files
from fastvoc.hub.record import HubFacts, check_files, read_record, write_record

_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$")


@dataclass(frozen=True)
class HubModel:
    """A model known to load: its family, its sample rate in Hz, and its files where the repository holds more."""

    repo: str
    family: str
    sample_rate: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How a repository is reached and which of its files are wanted, in the words of huggingface_hub and Transformers.

    Raises ArgumentError for a subfolder that is not inside the repository.
    """

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = field(default=None, repr=False)
    force_download: bool = False
    local_files_only: bool = False
    proxies: Any = None
    subfolder: str = ""
    use_safetensors: bool | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.subfolder or "")
        if path.is_absolute() or ".." in path.parts:
            raise ArgumentError(f"subfolder: expected a folder inside the repository, got {self.subfolder!r}")

    @property
    def prefix(self) -> str:
        """What the names of the subfolder's files begin with."""
        path = PurePosixPath(self.subfolder or "")
        return f"{path}/" if path.parts else ""

    def weights_among(self, names: Iterable[str]) -> list[str]:
        """The weights file that is wanted of these, as `model_files.weights_among`."""
        return model_files.weights_among(names, safetensors=self.use_safetensors, variant=self.variant)


_PLAIN = Options()
KNOWN = (
    HubModel("microsoft/speecht5_hifigan", "hifigan", 16000),
    HubModel("espnet/fastspeech2_conformer_hifigan", "hifigan", 22050),
    HubModel("speechbrain/tts-hifigan-ljspeech", "hifigan", 22050),
    HubModel("speechbrain/tts-hifigan-libritts-16kHz", "hifigan", 16000),
    HubModel("speechbrain/tts-hifigan-libritts-22050Hz", "hifigan", 22050),
    HubModel("FunAudioLLM/CosyVoice2-0.5B", "hiftnet", 24000, ("cosyvoice2.yaml", "hift.pt")),
    HubModel("ResembleAI/chatterbox", "hiftnet", 24000, ("s3gen.safetensors",)),
    HubModel("charactr/vocos-mel-24khz", "vocos", 24000, ("config.yaml", "pytorch_model.bin")),
    HubModel("charactr/vocos-encodec-24khz", "vocos", 24000, ("config.yaml", "pytorch_model.bin")),
    HubModel("facebook/encodec_24khz", "encodec", 24000),
    HubModel("facebook/encodec_32khz", "encodec", 32000),
    HubModel("facebook/encodec_48khz", "encodec", 48000),
    HubModel("descript/dac_16khz", "dac", 16000),
    HubModel("descript/dac_24khz", "dac", 24000),
    HubModel("descript/dac_44khz", "dac", 44100),
    HubModel("hubertsiuzdak/snac_24khz", "snac", 24000),
    HubModel("hubertsiuzdak/snac_32khz", "snac", 32000),
    HubModel("hubertsiuzdak/snac_44khz", "snac", 44100),
    HubModel("kyutai/mimi", "mimi", 24000),
    HubModel("kyutai/moshiko-pytorch-bf16", "mimi", 24000, ("tokenizer-e351c8d8-checkpoint125.safetensors",)),
    HubModel("nvidia/bigvgan_v2_24khz_100band_256x", "bigvgan", 24000, ("config.json", "bigvgan_generator.pt")),
)
ALIASES = {
    "hiftnet": "FunAudioLLM/CosyVoice2-0.5B",
    "vocos": "charactr/vocos-mel-24khz",
    "encodec": "facebook/encodec_24khz",
    "dac": "descript/dac_44khz",
    "mimi": "kyutai/mimi",
    "snac": "hubertsiuzdak/snac_24khz",
    "bigvgan": "nvidia/bigvgan_v2_24khz_100band_256x",
}


def published(file: Path, family: str) -> HubModel | None:
    """The known model that a file is of, by its place in the hub's cache or in a folder named like the repository."""
    folder = file.absolute().parent
    of_family = [model for model in KNOWN if model.family == family]
    if folder.parent.name == "snapshots":
        repo = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        return next((model for model in of_family if model.repo == repo), None)
    return next((model for model in of_family if model.repo.rpartition("/")[2] == folder.name), None)


def is_hub_id(name: str) -> bool:
    """Whether a name reads `owner/name` or `owner/name@revision`."""
    return _HUB_ID.match(name) is not None


def is_cached(repo: str) -> bool:
    """Whether a model can be loaded without the network."""
    folder = _snapshot(repo, None)
    return folder is not None and bool(_needed(repo, _cached_names(folder)))


def facts(repo: str) -> HubFacts:
    """What the hub said of a cached model when it was fetched; empty for one that is not cached."""
    folder = _snapshot(repo, None)
    return HubFacts() if folder is None else read_record(folder)


def fetch(name: str, options: Options = _PLAIN) -> Path:
    """The folder with a model's files, from the cache or else from the hub.

    `name` is `owner/name` or `owner/name@revision`. A cached model is used as it is, without asking the network, unless
    `options.force_download`; with `options.local_files_only` the network is never asked.
    Raises LoadError when it is in neither, with the command that fetches it, and when a file differs from the checksum
    that the hub stated or that was recorded for it; ArgumentError for options that cannot be followed.
    """
    match = _HUB_ID.match(name)
    if match is None:
        raise LoadError(f"{name!r}: expected a hub id `owner/name` or `owner/name@revision`")
    if options.local_files_only and options.force_download:
        raise ArgumentError("local_files_only, force_download: expected one of them, got both")
    repo, revision = match["repo"], options.revision or match["revision"]
    folder = None if options.force_download else _snapshot(repo, revision, options.cache_dir)
    names = _needed(repo, _cached_names(folder, options), options) if folder else []
    if folder is None or not names:
        if options.local_files_only:
            raise _absent(repo, revision, "local_files_only forbids asking the hub")
        folder, names = _download(repo, revision, options)
    check_files(repo, folder, [f"{options.prefix}{name}" for name in names])
    return folder / options.prefix


def _stated_files(repo: str) -> tuple[str, ...]:
    return next((model.files for model in KNOWN if model.repo == repo), ())


def _needed(repo: str, names: Iterable[str], options: Options = _PLAIN) -> list[str]:
    """The configurations and the one weights file among those of one folder; empty without weights."""
    names = sorted(name for name in names if "/" not in name)
    if not options.prefix and (stated := _stated_files(repo)):
        return list(stated) if set(stated) <= set(names) else []
    found = options.weights_among(names)
    if not found or (shards := model_files.shards_among(found[-1], names)) is None:
        return []
    texts = (*model_files.TEXTS, f"{found[-1]}.json")  # the last is Piper's, of an ONNX voice
    return [name for name in texts if name in names] + found[-1:] + shards


def _cached_names(snapshot: Path, options: Options = _PLAIN) -> list[str]:
    folder = snapshot / options.prefix
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _snapshot(repo: str, revision: str | None, cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    # The layout is documented by huggingface_hub; its own lookup wants every file of the repository to be there.
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir) / f"models--{repo.replace('/', '--')}"
    reference = cache / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = cache / "snapshots" / commit if commit else None
    return folder if folder and folder.is_dir() else None


def _download(repo: str, revision: str | None, options: Options) -> tuple[Path, list[str]]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    if options.proxies:
        raise ArgumentError("proxies: huggingface_hub takes them from the environment only; set HTTPS_PROXY")
    # The HTTP library's own errors: which library that is depends on the version of huggingface_hub.
    network_errors: tuple[Any, ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    cache_dir = None if options.cache_dir is None else Path(options.cache_dir)
    token, prefix = options.token, options.prefix
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, token=token)
        present = [file.rfilename for file in info.siblings or ()]
        inside = [name.removeprefix(prefix) for name in present if name.startswith(prefix)]
        names = _needed(repo, inside, options)
        if not names:
            wanted = ", ".join(_stated_files(repo) or model_files.WEIGHTS)
            raise LoadError(f"{repo}: no weights file in this repository (looked for {wanted})")
        paths = [
            Path(
                hf_hub_download(
                    repo,
                    f"{prefix}{name}",
                    revision=revision,
                    cache_dir=cache_dir,
                    token=token,
                    force_download=options.force_download,
                )
            )
            for name in names
        ]
    except network_errors as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _absent(repo, revision, f"not to be had from the hub ({type(error).__name__}: {reason})") from error
    folder = paths[0].parents[len(PurePosixPath(prefix).parts)]
    known, stated = read_record(folder), _stated(info, [f"{prefix}{name}" for name in names])
    write_record(folder, HubFacts({**known.sha256, **stated.sha256}, {**known.sizes, **stated.sizes}, stated.licence))
    return folder, names


def _absent(repo: str, revision: str | None, reason: str) -> LoadError:
    command = " ".join(["hf download", repo, *_stated_files(repo)]) + (f" --revision {revision}" if revision else "")
    return LoadError(
        f"{repo}: not in the cache, and {reason}. Run `{command}` where the hub can be reached, with the same HF_HOME"
    )


def _stated(info: Any, names: list[str]) -> HubFacts:
    """The hub's own word on these files: checksums of the large ones, sizes, and the licence on the card."""
    files = {file.rfilename: file for file in info.siblings if file.rfilename in names}
    sha256 = {name: file.lfs.sha256 for name, file in files.items() if file.lfs is not None}
    sizes = {name: file.size for name, file in files.items() if file.size is not None}
    licence = getattr(info.card_data, "license", None)
    return HubFacts(sha256, sizes, licence if isinstance(licence, str) else None)
