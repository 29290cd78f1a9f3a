"""What the hub said of the files in its cache when they were fetched, kept beside them and compared at every load."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from fastvoc.errors import LoadError
from fastvoc.runtime.io import atomic_path, file_sha256


@dataclass(frozen=True)
class HubFacts:
    """Checksums and sizes in bytes by file name, and the licence on the card, None where the hub does not say."""

    sha256: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    licence: str | None = None


def record_path(folder: Path) -> Path:
    """Where the record of a snapshot folder lies; the folder's name is the commit."""
    return folder.parents[1] / f"fastvoc-{folder.name}.json"


def read_record(folder: Path) -> HubFacts:
    """The record of a snapshot, empty when there is none. Raises LoadError when it cannot be read."""
    path = record_path(folder)
    try:
        values = json.loads(path.read_text())
        facts = HubFacts(dict(values["sha256"]), dict(values["sizes"]), values["licence"])
        if not all(isinstance(v, str) for v in facts.sha256.values()):
            raise TypeError("a checksum is no text")
        if not all(isinstance(v, int) for v in facts.sizes.values()):
            raise TypeError("a size is no number")
    except FileNotFoundError:
        return HubFacts()
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(f"{path}: no readable checksums ({error!r}); remove it if you trust the files") from None
    return facts


def write_record(folder: Path, facts: HubFacts) -> None:
    """Writes the record of a snapshot, at once or not at all."""
    values = {"sha256": facts.sha256, "sizes": facts.sizes, "licence": facts.licence}
    with atomic_path(record_path(folder)) as temporary:
        temporary.write_text(json.dumps(values, indent=1, sort_keys=True))


def check_files(repo: str, folder: Path, names: list[str]) -> None:
    """Compares files with what the hub stated of them; a file of which nothing is recorded yet is recorded as it is.

    Raises LoadError naming the file that differs, and both checksums.
    """
    facts = read_record(folder)
    found = {name: file_sha256(folder / name) for name in names}
    for name, sha in found.items():
        expected = facts.sha256.get(name) or _stated_sha256(folder / name) or sha
        if sha != expected:
            raise LoadError(
                f"{folder / name}: damaged or replaced: its SHA-256 is {sha}, recorded was {expected}. "
                f"Remove {folder.parents[1]} and load {repo} again"
            )
    if not facts.sha256.keys() >= found.keys():
        sizes = {name: (folder / name).stat().st_size for name in names}
        write_record(folder, HubFacts({**found, **facts.sha256}, {**sizes, **facts.sizes}, facts.licence))


def _stated_sha256(path: Path) -> str | None:
    # The cache names a large file's blob by the SHA-256 that the hub states.
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None
