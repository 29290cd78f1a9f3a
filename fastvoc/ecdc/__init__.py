"""EnCodec token streams in .ecdc files, read and written piece by piece.

A file begins with `ECDC`, a version byte, the length of a JSON text as a big-endian uint32, and that text.

Version 0 is the format of github.com/facebookresearch/encodec. Its text is {"m": model, "al": samples per channel,
"nc": codebooks, "lm": whether the arithmetic coder is used}. For every segment follow a big-endian float32 scale, only
with models that normalise the volume, and the codes, step by step and codebook by codebook: 10 bits each, least
significant bit first, or one arithmetic code. Zeros fill the last byte of a segment. The arithmetic code needs the very
probabilities that it was made with, which in floating point are those of the same kind of machine and library.

Version 0x81 is fastvoc's own and decodes the same everywhere. Its text is {"m": model, "nc": codebooks, "lm":
fingerprint of an integer language model, or ""}, followed by the CRC-32 of all bytes up to there. Then come records:
the number of steps (uint32), the scale (float32, as above), the number of bytes of codes (uint32), the codes as above,
and a CRC-32. A record is a segment of a model that has segments; of another it is a stretch of the stream, coded for
itself but with a language model that remembers what came before. A record of 0 steps ends the file: samples per channel
(uint64) and CRC-32. Each CRC-32 continues from the one before it, over the record's bytes and then its codes as
little-endian uint16, step by step, so that damage, a lost or moved record and a wrong decoder all show. The other
numbers are big-endian.
"""

from __future__ import annotations

from fastvoc.ecdc.layout import (
    CODE_BITS,
    HOP,
    LAYOUTS,
    ORIGINAL,
    PORTABLE,
    Block,
    Header,
    LanguageModel,
    Layout,
    Steps,
    steps,
)
from fastvoc.ecdc.reader import Reader
from fastvoc.ecdc.writer import Writer

__all__ = [
    "CODE_BITS",
    "HOP",
    "LAYOUTS",
    "ORIGINAL",
    "PORTABLE",
    "Block",
    "Header",
    "LanguageModel",
    "Layout",
    "Reader",
    "Steps",
    "Writer",
    "steps",
]
