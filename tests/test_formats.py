"""Formats of transports: nothing wraps, what is clipped is counted, G.711 is G.711."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch

from fastvoc.errors import ArgumentError, DtypeError
from fastvoc.sound.formats import FORMATS, from_format, levels, to_bytes, to_format

EVERY = torch.arange(-32767, 32768, dtype=torch.int32)
LAWS = {"mulaw": "ULAW", "alaw": "ALAW"}
each_law = pytest.mark.parametrize("kind", LAWS)


def test_s16_is_rounded_clipped_and_counted() -> None:
    wav = torch.tensor([0.0, 1.0, -1.0, 1.0001, -7.0, 0.5 / 32767, 1.5 / 32767, torch.inf, -torch.inf, torch.nan])
    data, clipped = to_format(wav, "s16")
    assert data.dtype == torch.int16
    assert data.tolist() == [0, 32767, -32767, 32767, -32767, 0, 2, 32767, -32767, 0]
    assert clipped == 5
    assert to_bytes(data[:3]) == b"\x00\x00\xff\x7f\x01\x80"


def test_f32_is_left_alone() -> None:
    wav = torch.tensor([3.0, torch.nan])
    data, clipped = to_format(wav, "f32")
    assert data is wav
    assert clipped is None
    assert to_bytes(torch.tensor([1.0])) == b"\x00\x00\x80\x3f"


@each_law
def test_levels_are_what_other_decoders_give(kind: str) -> None:
    file = io.BytesIO(bytes(range(256)))
    theirs, _ = soundfile.read(file, dtype="int16", format="RAW", subtype=LAWS[kind], samplerate=8000, channels=1)
    assert levels(kind).tolist() == theirs.tolist()


@each_law
def test_every_value_takes_its_nearest_level(kind: str) -> None:
    codes, clipped = to_format(EVERY.float() / 32767, kind)
    assert codes.dtype == torch.uint8
    assert clipped is None
    got = levels(kind)[codes.int()]
    best = (EVERY[:, None] - levels(kind)[None]).abs().min(1).values
    assert torch.equal((EVERY - got).abs(), best)
    assert torch.equal(got, got.sort().values)  # and larger values never take lower ones
    assert torch.equal(levels(kind)[to_format(levels(kind).clamp(-32767, 32767) / 32767, kind)[0].int()], levels(kind))


@each_law
def test_a_value_in_the_middle_goes_away_from_zero(kind: str) -> None:
    sizes = levels(kind).unique()
    low, high = (sizes[sizes >= 0][i] for i in (slice(None, -1), slice(1, None)))
    middle, outer = (low + high)[(low + high) % 2 == 0] // 2, high[(low + high) % 2 == 0]
    assert len(middle) > 50
    for sign in (1, -1):
        codes, _ = to_format(sign * middle.float() / 32767, kind)
        assert torch.equal(levels(kind)[codes.int()], sign * outer)


@each_law
def test_codes_agree_with_another_coder(kind: str) -> None:
    """Another coder drops the low bits first; that is at most one code away and mostly none."""
    values = EVERY.to(torch.int16).numpy()
    file = io.BytesIO()
    soundfile.write(file, values, 8000, format="RAW", subtype=LAWS[kind])
    theirs = np.frombuffer(file.getvalue(), np.uint8)
    ours = to_format(EVERY.float() / 32767, kind)[0].numpy()
    assert (ours == theirs).mean() > 0.98
    table = levels(kind).numpy().astype(int)
    order = np.argsort(np.argsort(table, kind="stable"), kind="stable")
    assert np.abs(order[ours] - order[theirs]).max() <= 1


@pytest.mark.parametrize("kind", FORMATS)
def test_there_and_back(kind: str) -> None:
    wav = torch.sin(torch.arange(4000) * 0.1)
    data, _ = to_format(wav, kind)
    again = from_format(data, kind)
    worst = {"f32": 0.0, "s16": 0.5 / 32767 + 1e-7, "mulaw": 0.02, "alaw": 0.017}[kind]
    assert (again - wav).abs().max() <= worst


def test_loud_sound_is_clipped_by_the_laws() -> None:
    for kind in LAWS:
        data, clipped = to_format(torch.tensor([5.0, -5.0, torch.nan]), kind)
        assert clipped == 3
        assert levels(kind)[data.int()].tolist() == [levels(kind).max(), levels(kind).min(), from_zero(kind)]


def from_zero(kind: str) -> int:
    return int(levels(kind)[to_format(torch.zeros(1), kind)[0].int()])


def test_wrong_arguments() -> None:
    with pytest.raises(ArgumentError, match="format: expected one of f32, s16, mulaw, alaw, got 's8'"):
        from_format(torch.zeros(3), "s8")
    with pytest.raises(DtypeError, match=r"data: expected torch.int16 for s16, got torch.float32"):
        from_format(torch.zeros(3), "s16")
