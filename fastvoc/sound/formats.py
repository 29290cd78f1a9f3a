"""Sample formats of transports: 32-bit float, 16-bit whole numbers, and G.711's mu-law and A-law."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError

Format = Literal["f32", "s16", "mulaw", "alaw"]
FORMATS: tuple[str, ...] = get_args(Format)
DTYPES = {"f32": torch.float32, "s16": torch.int16, "mulaw": torch.uint8, "alaw": torch.uint8}
_FULL = 32767.0


def check_format(kind: str, dither: int | None = None) -> None:
    """Raises ArgumentError for an unknown format, and for dither of another one than s16."""
    if kind not in FORMATS:
        raise ArgumentError(f"format: expected one of {', '.join(FORMATS)}, got {kind!r}")
    if dither is not None and kind != "s16":
        raise ArgumentError(f"dither: only for format s16, got {kind}")
    if dither is not None and (isinstance(dither, bool) or not isinstance(dither, int)):
        raise ArgumentError(f"dither: expected a seed, a whole number, got {dither!r}")
    if dither is not None and not -(1 << 63) <= dither < 1 << 62:  # each row adds its number
        raise ArgumentError(f"dither: expected a seed of -2^63..2^62 - 1, got {dither}")


def to_format(wav: Tensor, kind: str, dither: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Float32 samples in -1..1, any shape, in a format, and how many were clipped; None where none were.

    s16 is round(32767 x), of which mu-law and A-law take the nearest of their 256 levels; all are clipped at full
    scale, and NaN becomes 0 and counts as clipped. `dither` is added in steps of s16.
    """
    if kind == "f32":
        return wav, None
    scaled = wav * _FULL if dither is None else wav * _FULL + dither
    if wav.device.type == "cpu" and wav.numel() and _fits(wav):
        clipped = None
        whole = scaled.round_() if dither is None else scaled.round_().clamp_(-_FULL, _FULL)
    else:
        clipped = (wav.abs() <= 1.0).logical_not_().sum()
        whole = scaled.round_().nan_to_num_(0.0).clamp_(-_FULL, _FULL)
    return coded(whole.to(torch.int16), kind), clipped


def coded(whole: Tensor, kind: str) -> Tensor:
    """Values of s16 in it, or in mu-law or A-law."""
    return whole if kind == "s16" else _codes(kind, whole.device)[whole.to(torch.int32) + 32768]


def from_format(data: Tensor, kind: str) -> Tensor:
    """Samples in a format as float32: s16 and its levels over 32767.

    Raises ArgumentError for an unknown format, DtypeError for a tensor of another type than it has.
    """
    check_format(kind)
    if data.dtype != DTYPES[kind]:
        raise DtypeError(f"data: expected {DTYPES[kind]} for {kind}, got {data.dtype}")
    if kind == "f32":
        return data
    whole = data if kind == "s16" else levels(kind).to(data.device)[data.to(torch.int32)]
    return whole.float() / _FULL


def to_bytes(data: Tensor) -> bytes:
    """Samples in a format as little-endian bytes, in the order of the tensor."""
    array = data.detach().cpu().contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def levels(kind: str) -> Tensor:
    """[256] int32: the 16-bit value of every code of mu-law or A-law (ITU-T G.711)."""
    code = torch.arange(256, dtype=torch.int32, device="cpu")
    code = 255 - code if kind == "mulaw" else code ^ 0x55
    segment, step = code >> 4 & 7, code & 15
    if kind == "mulaw":
        size = ((2 * step + 33) << segment) - 33 << 2
        return torch.where(code & 0x80 > 0, -size, size)
    size = torch.where(segment > 0, 2 * step + 33 << (segment - 1).clamp(min=0), 2 * step + 1) << 3
    return torch.where(code & 0x80 > 0, size, -size)


def _fits(wav: Tensor) -> bool:
    """Whether all samples are within full scale, and none is NaN."""
    low, high = wav.aminmax()
    return low.item() >= -1.0 and high.item() <= 1.0


@lru_cache(maxsize=8)
def _codes(kind: str, device: torch.device) -> Tensor:
    """[65536] uint8: the code whose level is nearest to every 16-bit value from -32768 on, the larger one of two."""
    with torch.inference_mode(False):
        values, order = levels(kind).sort(stable=True)
        bounds = values[1:] + values[:-1]  # twice the middle between neighbours
        doubled = 2 * torch.arange(-32768, 32768, dtype=torch.int32, device="cpu")
        # Away from zero at a middle, as G.711 has its decision values.
        place = torch.where(
            doubled >= 0, torch.bucketize(doubled, bounds, right=True), torch.bucketize(doubled, bounds)
        )
        return order[place].to(torch.uint8).to(device)
