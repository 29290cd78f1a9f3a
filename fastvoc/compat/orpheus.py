"""Orpheus (github.com/canopyai/Orpheus-TTS): its audio tokens as SNAC's codes, seven for a frame, and back.

A frame is one code of the coarse codebook a, two of the middle one b and four of the fine one c, in the order
a b c c b c c. Token i, the number in `<custom_token_i>`, is the code plus 10 plus 4096 times its place in the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.models.levels import packed, unpacked
from fastvoc.runtime.whole import whole_numbers

FRAME = 7
RATES = (1, 2, 4)
_ROWS = (0, 1, 3, 4, 2, 5, 6)  # of a frame's codes, codebook by codebook, in the order of its tokens
_ENTRIES, _FIRST = 4096, 10


def levels(tokens: Iterable[int] | Tensor) -> list[Tensor]:
    """The codes [n], [2n], [4n] int64 of 7n tokens, the numbers in `<custom_token_N>`, for `Codec.decode` or a stream.

    Raises ArgumentError for a number of tokens that makes no whole frames, and for a token that is not of its place;
    DtypeError for what are no whole numbers.
    """
    if isinstance(tokens, Iterable) and not isinstance(tokens, Tensor):
        tokens = [*tokens] or torch.zeros(0, dtype=torch.int64, device="cpu")  # nothing has no type
    row = whole_numbers(tokens, "tokens").cpu()
    if row.dim() != 1 or not len(row) or len(row) % FRAME:
        raise ArgumentError(f"tokens: expected whole frames of {FRAME}, got {list(row.shape)}")
    codes = row - _FIRST - _ENTRIES * (torch.arange(len(row), device="cpu") % FRAME)
    wrong = ((codes < 0) | (codes >= _ENTRIES)).nonzero().flatten()
    if len(wrong):
        at = int(wrong[0])
        low = _FIRST + _ENTRIES * (at % FRAME)
        raise ArgumentError(f"tokens: expected {low}..{low + _ENTRIES - 1} at {at}, got {int(row[at])}")
    frames = codes.reshape(-1, FRAME).t()
    ordered = torch.empty_like(frames)
    ordered[list(_ROWS)] = frames
    return unpacked(ordered, RATES)


def tokens(codes: Sequence[Tensor]) -> Tensor:
    """The tokens [7n] of codes [n], [2n], [4n]: what `levels` takes.

    Raises ShapeError for others, DtypeError for what are no whole numbers, ArgumentError for codes outside 0..4095.
    """
    own = [whole_numbers(level, "codes").cpu() for level in codes]
    if len(own) != len(RATES) or any(level.dim() != 1 for level in own):
        raise ShapeError(f"codes: expected levels [n], [2n], [4n], got {[list(level.shape) for level in own]}")
    frames = packed(own, RATES)[list(_ROWS)]
    if frames.numel() and not 0 <= int(frames.min()) <= int(frames.max()) < _ENTRIES:
        got = f"{int(frames.min())}..{int(frames.max())}"
        raise ArgumentError(f"codes: expected values in 0..{_ENTRIES - 1}, got {got}")
    places = torch.arange(FRAME, device="cpu")[:, None]
    return (frames + _FIRST + _ENTRIES * places).t().flatten()
