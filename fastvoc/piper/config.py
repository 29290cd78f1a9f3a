"""The JSON beside a Piper voice: what its phonemes are called, who speaks, how it speaks unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvoc.checkpoints.checkpoint import refuse
from fastvoc.checkpoints.onnx_file import voice_json
from fastvoc.checkpoints.source import read_small
from fastvoc.checkpoints.text import Fields, parse_json

_BEGIN, _END, _BETWEEN = "^", "$", "_"


@dataclass(frozen=True)
class VoiceConfig:
    """What a voice's `<file>.onnx.json` says.

    `phoneme_ids`: the ids of each phoneme; `speakers`: numbers by name, maybe empty; `noise_scale`, `length_scale` and
    `noise_w`: what a call takes unless told otherwise; `values`: everything in the file, for Piper's own phonemizer.
    """

    sample_rate: int
    num_speakers: int
    default_speaker: int
    noise_scale: float
    length_scale: float
    noise_w: float
    phoneme_ids: Mapping[str, tuple[int, ...]]
    speakers: Mapping[str, int]
    values: Mapping[str, object]


def read_config(voice: Path) -> VoiceConfig:
    """Reads the JSON beside a voice. Raises LoadError when it is missing, or naming the field that is wrong."""
    path = voice.with_name(voice_json(voice))
    if not path.is_file():
        raise refuse(voice, f"{path.name} is missing beside it; it says how a Piper voice is spoken to")
    fields = Fields(parse_json(read_small(path), path), path)
    empty = Fields({}, path)
    inference = fields.sub("inference") if "inference" in fields else empty
    phonemes, speakers = (fields.sub(n) if n in fields else empty for n in ("phoneme_id_map", "speaker_id_map"))
    config = VoiceConfig(
        fields.sub("audio").integer("sample_rate"),
        fields.integer("num_speakers", 1),
        fields.integer("default_speaker_id", 0),
        inference.number("noise_scale", 0.667),
        inference.number("length_scale", 1.0),
        inference.number("noise_w", 0.8),
        {name: phonemes.integers(name) for name in phonemes.values},
        {name: speakers.integer(name) for name in speakers.values},
        fields.values,
    )
    for name in ("noise_scale", "length_scale", "noise_w"):
        value: float = getattr(config, name)
        if value < 0 or (name == "length_scale" and not value):
            wanted = "a positive number" if name == "length_scale" else "0 or a positive number"
            raise refuse(path, f"field 'inference.{name}': expected {wanted}, got {value:g}")
    count = max(config.num_speakers, 1)
    if config.default_speaker >= count:
        raise refuse(path, f"field 'default_speaker_id': expected 0..{count - 1}, got {config.default_speaker}")
    return config


def framed(phonemes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], ...] | None:
    """The ids that begin, end and part the phonemes of a sentence; None where the voice has them not."""
    found = [phonemes.get(name) for name in (_BEGIN, _END, _BETWEEN)]
    return tuple(ids for ids in found if ids is not None) if None not in found else None
