"""EnCodec's language models, `encodec_lm_24khz-1608e3c0.th` and `encodec_lm_48khz-7add9fc3.th`.

The files are bare states, whose hash in the name is checked. Attention's number of heads and reach do not show in them:
8 and 3.5 s are the published ones; a `config.json` beside the file may say others, in an object `lm`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin, TensorEntry, refuse
from fastvoc.checkpoints.encodec import check_hash
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.errors import ArgumentError
from fastvoc.models.encodec_lm import EncodecLmConfig

_RATES = {32: 24000, 16: 48000}  # of the published models, by codebooks
_NAMED = re.compile(r"(24|48)khz")
_REACH_SECONDS = 3.5
_HOP = 320


def detect(source: Source) -> bool:
    return {"emb.0.weight", "linears.0.weight", "transformer.norm_in.weight"} <= source.entries.keys()


def load(source: Source) -> Checkpoint:
    check_hash(source.path)
    config = _config(source)
    state = canonical_state(source, config, source.entries)
    why = f"neither 24khz nor 48khz in the file's name; the published model of {config.codebooks} codebooks has it so"
    origins = {} if _NAMED.search(source.path.name.lower()) else {"sample_rate": Origin("assumed", why)}
    return Checkpoint(config, state, "encodec", {"container": source.container}, origins=origins)


def _config(source: Source) -> EncodecLmConfig:
    entries = source.entries
    rows, dim = _shape(source, entries, "emb.0.weight")
    codebooks = _count(entries, r"emb\.(\d+)\.weight")
    rate = _rate(source, codebooks)
    stated = source.json("config.json").values.get("lm") if source.has("config.json") else None
    stated = stated if isinstance(stated, dict) else {}
    values = {
        "sample_rate": rate,
        "codebooks": codebooks,
        "codes": rows - 1,
        "dim": dim,
        "layers": _count(entries, r"transformer\.layers\.(\d+)\.linear1\.weight"),
        "hidden": _shape(source, entries, "transformer.layers.0.linear1.weight")[0],
        "heads": stated.get("num_heads", 8),
        "past": stated.get("past_context", int(_REACH_SECONDS * rate / _HOP)),
    }
    try:
        return EncodecLmConfig(**values)
    except (ArgumentError, TypeError) as error:
        raise refuse(source.path, f"illegal configuration: {error}") from None


def _shape(source: Source, entries: Mapping[str, TensorEntry], name: str) -> tuple[int, ...]:
    entry = entries.get(name)
    if entry is None or len(entry.shape) != 2:
        raise refuse(source.path, f"tensor {name!r} is missing, or is no matrix")
    return entry.shape


def _count(entries: Mapping[str, TensorEntry], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in entries)


def _rate(source: Source, codebooks: int) -> int:
    if found := _NAMED.search(source.path.name.lower()):
        return int(found[1]) * 1000
    if codebooks not in _RATES:
        raise refuse(source.path, "neither the 24 kHz nor the 48 kHz model: name the file after one of them")
    return _RATES[codebooks]
