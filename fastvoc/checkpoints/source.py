"""A checkpoint on disk, opened safely: the file with the weights, the tensors it claims, the texts beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastvoc.checkpoints import safetensors_file, torch_file
from fastvoc.checkpoints.archive import TAR_ERRORS, open_tar, zip_member, zip_members
from fastvoc.checkpoints.checkpoint import TensorEntry, refuse
from fastvoc.checkpoints.text import MAX_TEXT_BYTES, Fields, parse_commented_json, parse_json, parse_yaml
from fastvoc.errors import LoadError
from fastvoc.hub.files import INDEX, WEIGHTS, weights_among

_INNER_WEIGHTS = (".pth.tar", ".pth", ".pt", ".tar")
_DAC_SAVE = ", as `dac.DAC.load(file).save(target, package=False)` does for DAC"
_NEMO_WEIGHTS = "model_weights.ckpt"
# What wrappers of modules put into names: data parallel training, torch.compile, fully sharded training.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")


@dataclass(frozen=True)
class Source:
    """`entries`: the tensors by dotted name; `texts`: files packed with the weights; `metadata`: safetensors only.

    `values`: plain values by dotted name, of torch.save's files only: numbers, texts and lists, unchecked.
    """

    path: Path
    container: str
    entries: dict[str, TensorEntry]
    texts: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tensor_offset: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def json(self, *names: str) -> Fields:
        """The first of these files that lies in the archive or beside the weights. Raises LoadError if none does."""
        return self._fields(names, parse_json)

    def json_with_comments(self, *names: str) -> Fields:
        """Like `json`, for what Coqui's reader takes for JSON."""
        return self._fields(names, parse_commented_json)

    def yaml(self, *names: str) -> Fields:
        """Like `json`, for YAML."""
        return self._fields(names, parse_yaml)

    def has(self, *names: str) -> bool:
        """Whether one of these files lies in the archive or beside the weights."""
        return any(name in self.texts or (self.path.parent / name).is_file() for name in names)

    def with_prefix(self, prefix: str) -> dict[str, TensorEntry]:
        """Entries whose name starts with `prefix`, by the rest of the name."""
        return {n[len(prefix) :]: e for n, e in self.entries.items() if n.startswith(prefix)}

    def _fields(self, names: tuple[str, ...], parse: Callable[[bytes, Path], Mapping[str, object]]) -> Fields:
        for name in names:
            beside = self.path.parent / name
            if name in self.texts:
                where = beside if beside.is_file() else self.path / name
                return Fields(parse(self.texts[name], where), where)
            if beside.is_file():
                return Fields(parse(read_small(beside), beside), beside)
        raise refuse(self.path, f"{' or '.join(names)} is missing beside it; it says how the generator is built")


def read_small(path: Path) -> bytes:
    """A text file's bytes. Raises LoadError when it is larger than any configuration."""
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise refuse(path, f"{size} bytes, expected a configuration of at most {MAX_TEXT_BYTES}")
    return path.read_bytes()


def open_source(path: Path) -> Source:
    """Opens a weights file, the index of several, or the one weights file of a folder.

    Names come without what data parallel training and torch.compile wrap modules in. Raises LoadError when there is
    none, more than one, or a file is missing, of no known container or not safe to read.
    """
    if path.is_dir():
        path = _weights_in(path)
    source = _open_sharded(path) if path.name.endswith(INDEX) else _open_file(path)
    return replace(source, entries=_unwrapped(source))


def _unwrapped(source: Source) -> dict[str, TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    for name, entry in source.entries.items():
        plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if plain in entries:
            raise refuse(source.path, f"tensors {entries[plain].name!r} and {entry.name!r} are both {plain!r}")
        entries[plain] = entry
    return entries


def _open_sharded(index: Path) -> Source:
    """The tensors of all files that an index names; each must be where it says."""
    if not index.is_file():
        raise refuse(index, "no such file or folder")
    places = Fields(parse_json(read_small(index), index), index).sub("weight_map").values
    if not places or not all(isinstance(place, str) and _is_plain_name(place) for place in places.values()):
        raise refuse(index, "field 'weight_map': expected the names of files beside it, by tensor")
    entries: dict[str, TensorEntry] = {}
    for place in sorted(set(places.values())):
        shard = index.parent / place
        if not shard.is_file():
            raise refuse(index, f"its file {place!r} is missing beside it")
        for name, entry in _open_file(shard).entries.items():
            if places.get(name) != place:
                raise refuse(index, f"tensor {name!r} is in {place!r}, the index has it in {places.get(name)!r}")
            entries[name] = entry
    if absent := next((name for name in places if name not in entries), None):
        raise refuse(index, f"tensor {absent!r} is not in {places[absent]!r}, where the index has it")
    return Source(index, "sharded", entries)


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0") and not name.endswith(INDEX)


def _open_file(path: Path) -> Source:
    if not path.is_file():
        raise refuse(path, "no such file or folder")
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        if safetensors_file.looks_like_safetensors(head):
            entries, metadata, offset = safetensors_file.read_header(path)
            return Source(path, "safetensors", entries, metadata=metadata, tensor_offset=offset)
        if head.startswith(b"PK"):
            members = zip_members(file, path)
            if torch_file.looks_like_torch_zip(members):
                entries, values = torch_file.read_tree(file, path)
                return Source(path, "torch", entries, values=values)
            if torch_file.looks_like_package(members):
                how = "read it with the package that wrote it and save its state alone"
                raise refuse(path, f"a torch.package, which is code that would have to run; {how}{_DAC_SAVE}")
            name = _inner_weights(path, members)
            with zip_member(file, path, name, members[name]) as inner:
                return Source(path, "zipped torch", torch_file.read_tensors(inner, path / name))
        if torch_file.looks_like_legacy_torch(head):
            entries, values = torch_file.read_tree(file, path)
            return Source(path, "legacy torch", entries, values=values)
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return _open_nemo(path)
    if head.startswith(b"version https://git-lfs"):
        raise refuse(path, "a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    if head[4:8] == b"ORTM":
        raise refuse(path, "a model in onnxruntime's own format; give the .onnx file that it was made from")
    if path.suffix == ".onnx" or _looks_like_onnx(head):
        return Source(path, "onnx", {})  # whose tensors mean nothing without the graph
    raise refuse(path, "neither safetensors, nor a file of torch.save, nor a zip or .nemo archive of one, nor ONNX")


def _looks_like_onnx(head: bytes) -> bool:
    """A message that begins with a small version of its format, and goes on with the producer, the graph or opsets."""
    return (
        len(head) > 2 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
    )


def _weights_in(folder: Path) -> Path:
    found = weights_among(p.name for p in folder.iterdir() if p.is_file())
    if len(found) > 1:
        raise refuse(folder, f"more than one weights file ({', '.join(found)}); give the path of one")
    if not found:
        raise refuse(folder, f"no weights file in this folder (looked for {', '.join(WEIGHTS)})")
    return folder / found[0]


def _inner_weights(path: Path, members: Mapping[str, int]) -> str:
    names = [n for n in members if n.endswith(_INNER_WEIGHTS) and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise refuse(path, f"a zip archive with {len(names)} weights files, expected one *.pth.tar")
    return names[0]


def _open_nemo(path: Path) -> Source:
    with open_tar(path) as (archive, members):
        if _NEMO_WEIGHTS not in members:
            raise refuse(path, f"a tar archive without {_NEMO_WEIGHTS}, so no .nemo file")
        texts = {}
        for name, info in members.items():
            if name.endswith((".yaml", ".yml")) and info.size <= MAX_TEXT_BYTES:
                member = archive.extractfile(info)
                texts[name] = member.read() if member else b""
        weights = archive.extractfile(members[_NEMO_WEIGHTS])
        if weights is None:
            raise refuse(path, f"{_NEMO_WEIGHTS} is not a plain file")
        try:
            entries = torch_file.read_tensors(weights, path / _NEMO_WEIGHTS)
        except LoadError:
            raise
        except TAR_ERRORS as error:
            raise refuse(path, f"broken tar archive: {error}") from None
    return Source(path, "nemo", entries, texts)
