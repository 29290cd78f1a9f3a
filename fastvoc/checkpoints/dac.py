"""DAC: `weights*.pth` of github.com/descriptinc/descript-audio-codec and Hugging Face Transformers' `DacModel` folders.

A `.pth` holds the constructor's values beside the tensors; what it lacks shows in the tensors. A torch.package, the
package's other format, is code and is refused where files are opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, refuse
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.checkpoints.text import Fields
from fastvoc.errors import ArgumentError
from fastvoc.models.dac import DacConfig

_WRAPPER, _KWARGS = "state_dict.", "metadata.kwargs."
_ORIGINAL = "encoder.block.1.block.0.block.0.alpha"
_TRANSFORMERS = "encoder.block.0.res_unit1.snake1.alpha"
_BOOK = "quantizer.quantizers.0.in_proj.bias"
_UNIT = {0: "snake1", 1: "conv1", 2: "snake2", 3: "conv2"}


def detect(source: Source) -> bool:
    names = source.entries
    return any(f"{prefix}{_ORIGINAL}" in names and f"{prefix}{_BOOK}" in names for prefix in ("", _WRAPPER)) or (
        _TRANSFORMERS in names and _BOOK in names
    )


def load(source: Source) -> Checkpoint:
    if _TRANSFORMERS in source.entries:
        config, tensors, dialect = from_transformers(source.json("config.json")), source.entries, "transformers"
        origins: dict[str, Origin] = {}
    else:
        wrapped = any(name.startswith(_WRAPPER) for name in source.entries)
        tensors, dialect = source.with_prefix(_WRAPPER if wrapped else ""), "dac"
        config, origins = _of_original(source, tensors)
        stages = len(config.encoder_rates), len(config.decoder_rates)
        tensors = renamed(source, tensors, lambda name: canonical_name(name, *stages))
    state = canonical_state(source, config, {name: flat(name, entry) for name, entry in tensors.items()})
    return Checkpoint(config, state, dialect, {"container": source.container}, origins=origins)


def canonical_name(name: str, encoder_stages: int, decoder_stages: int) -> str:
    """The original's name of a tensor -> the model's."""
    match = re.match(r"(encoder\.block|decoder\.model)\.(\d{1,4})\.(.*)", name)
    if match is None:
        return name
    part, number, rest = match[1].partition(".")[0], int(match[2]), match[3]
    stages = encoder_stages if part == "encoder" else decoder_stages
    if not 1 <= number <= stages:
        place = {0: "conv1", stages + 1: "snake1", stages + 2: "conv2"}.get(number)
        return name if place is None else f"{part}.{place}.{rest}"
    units = 0 if part == "encoder" else 2
    own = {3: "snake1", 4: "conv1"} if part == "encoder" else {0: "snake1", 1: "conv_t1"}
    inner = re.match(r"block\.(\d)\.(?:block\.(\d)\.)?(.*)", rest)
    if inner is None:
        return name
    at = int(inner[1])
    if inner[2] is None:
        return f"{part}.block.{number - 1}.{own[at]}.{inner[3]}" if at in own else name
    return f"{part}.block.{number - 1}.res_unit{at - units + 1}.{_UNIT.get(int(inner[2]), inner[2])}.{inner[3]}"


def flat(name: str, entry: TensorEntry) -> TensorEntry:
    """A Snake's parameter [1, C, 1] as the model has it, [C]."""
    if not name.endswith(".alpha") or len(entry.shape) != 3 or entry.shape[0] != 1 or entry.shape[2] != 1:
        return entry
    return replace(entry, shape=(entry.shape[1],), read=partial(_flat, entry))


def _flat(entry: TensorEntry) -> Tensor:
    return entry.read().flatten()


def from_transformers(fields: Fields) -> DacConfig:
    """The configuration in the fields of Transformers' own, with its defaults. Raises LoadError."""
    model_type = fields.text("model_type")
    if model_type != "dac":
        raise refuse(fields.path, f"model_type {model_type!r}, expected dac")
    down = fields.integers("downsampling_ratios", (2, 4, 8, 8))
    return _config(
        fields.path,
        sample_rate=fields.integer("sampling_rate", 16000),
        encoder_dim=fields.integer("encoder_hidden_size", 64),
        encoder_rates=down,
        latent_dim=fields.integer("hidden_size") if "hidden_size" in fields else None,
        decoder_dim=fields.integer("decoder_hidden_size", 1536),
        decoder_rates=fields.integers("upsampling_ratios", tuple(reversed(down))),
        n_codebooks=fields.integer("n_codebooks", 9),
        codebook_size=fields.integer("codebook_size", 1024),
        codebook_dim=fields.integer("codebook_dim", 8),
    )


def _of_original(source: Source, tensors: Mapping[str, TensorEntry]) -> tuple[DacConfig, dict[str, Origin]]:
    """What the tensors show, at the rate that the constructor's values say, or else that of the file's name."""
    stated = {name.removeprefix(_KWARGS): v for name, v in source.values.items() if name.startswith(_KWARGS)}
    fields = Fields(stated, source.path, _KWARGS)
    origins: dict[str, Origin] = {}
    if "sample_rate" in fields:
        rate = fields.integer("sample_rate")
    elif named := re.search(r"(16|24|44)(?:[._]?1)?_?khz", source.path.name.lower()):
        rate = {"16": 16000, "24": 24000, "44": 44100}[named[1]]
        origins["sample_rate"] = Origin("name", f"{named[1]} kHz")
    else:
        rate = DacConfig.sample_rate
        origins["sample_rate"] = Origin("assumed", "no constructor's values say it; it is that of the 44.1 kHz model")
    shapes = {name: entry.shape for name, entry in tensors.items()}
    books = _numbered(shapes, r"quantizer\.quantizers\.(\d{1,4})\.codebook\.weight")
    up = _numbered(shapes, rf"decoder\.model\.(\d{{1,4}})\.block\.1\.{_WEIGHT}")
    down = _numbered(shapes, rf"encoder\.block\.(\d{{1,4}})\.block\.4\.{_WEIGHT}")
    first = _numbered(shapes, rf"encoder\.block\.(0)\.{_WEIGHT}")
    latent = _numbered(shapes, rf"decoder\.model\.(0)\.{_WEIGHT}")
    for name, found, rank in (("codebook", books, 2), *((part, at, 3) for part, at in _parts(up, down, first, latent))):
        if not found or any(len(shape) != rank or 0 in shape for shape in found):
            raise refuse(source.path, f"a weight of its {name} is missing, or has not the shape of DAC's")
    dims = tuple(shape[1] for shape in books)
    config = _config(
        source.path,
        sample_rate=rate,
        encoder_dim=first[0][0],
        encoder_rates=tuple(shape[2] // 2 for shape in down),
        latent_dim=latent[0][1],
        decoder_dim=latent[0][0],
        decoder_rates=tuple(shape[2] // 2 for shape in up),
        n_codebooks=len(books),
        codebook_size=books[0][0],
        codebook_dim=dims[0] if len(set(dims)) == 1 else dims,
    )
    return config, origins


_WEIGHT = r"(?:weight|weight_v|parametrizations\.weight\.original1)"


def _parts(*found: list[tuple[int, ...]]) -> Iterable[tuple[str, list[tuple[int, ...]]]]:
    return zip(("decoder's stages", "encoder's stages", "encoder", "decoder"), found, strict=True)


def _numbered(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> list[tuple[int, ...]]:
    """Shapes of the tensors that match, in the order of their numbers."""
    matches = ((re.fullmatch(pattern, name), shape) for name, shape in shapes.items())
    return [shape for _, shape in sorted((int(match[1]), shape) for match, shape in matches if match)]


def _config(path: Path, **values: Any) -> DacConfig:
    try:
        return DacConfig(**values)
    except ArgumentError as error:
        raise refuse(path, f"illegal configuration: {error}") from None
