"""Chatterbox (github.com/resemble-ai/chatterbox): the vocoder inside `s3gen.safetensors` or `s3gen.pt`.

Upstream builds it from constants in its source, so no configuration lies beside it; the widths are those of the
tensors. The other tensors of the file, of its flow, tokenizer and speaker encoder, are not looked at.
"""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, Origin
from fastvoc.checkpoints.hift_names import SIGNATURE, canonical_names, hift_config, sizes
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state
from fastvoc.models.hift_config import CHATTERBOX

_PREFIX = "mel2wav."
_CONSTANT = Origin("format", "a constant of Chatterbox's source")
CONSTANTS = {"sample_rate": _CONSTANT, "mel": _CONSTANT}


def detect(source: Source) -> bool:
    return f"{_PREFIX}{SIGNATURE}" in source.entries


def load(source: Source) -> Checkpoint:
    tensors = source.with_prefix(_PREFIX)
    config = hift_config(source.path, CHATTERBOX, mel=CHATTERBOX.mel, **sizes(source.path, tensors))
    state = canonical_state(source, config, canonical_names(tensors))
    return Checkpoint(config, state, "chatterbox", {"container": source.container}, origins=CONSTANTS)
