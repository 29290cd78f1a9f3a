"""Reading, writing, resampling and mixing of audio."""

from __future__ import annotations

import io
import math
import os
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastvoc.errors import ArgumentError, DecodeError, DtypeError, FastvocError, ShapeError
from fastvoc.sound.audio import encode, mono, read_audio, resample, to_int16, write_audio


def _pcm(wav: Tensor) -> Tensor:
    """What 16-bit samples keep of a signal, as a reader scales them."""
    return to_int16(wav).float() / 32768


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_round_trip(tmp_path: Path, suffix: str, channels: int) -> None:
    wav = torch.rand(channels, 70000) * 2 - 1 if channels else torch.rand(70000) * 2 - 1
    write_audio(tmp_path / f"a{suffix}", wav, 24000)
    back, rate = read_audio(tmp_path / f"a{suffix}")
    assert rate == 24000
    assert torch.equal(back, _pcm(wav if channels else wav[None]))
    assert os.listdir(tmp_path) == [f"a{suffix}"]


def test_float_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    wav = torch.randn(2, 1000) * 3
    write_audio(tmp_path / "a.wav", wav, 48000, float32=True)
    assert torch.equal(read_audio(tmp_path / "a.wav")[0], wav)


def test_full_scale_never_wraps() -> None:
    wav = torch.tensor([1.0, -1.0, 1.5, -7.0, 0.99999, 0.5 / 32767, -0.6 / 32767, 0.0])
    assert to_int16(wav).tolist() == [32767, -32767, 32767, -32767, 32767, 0, -1, 0]


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=30))
def test_rounding_error_is_half_a_step(values: list[float]) -> None:
    wav = torch.tensor(values)
    assert (
        to_int16(wav).double() - wav.double().clamp(-1, 1) * 32767
    ).abs().max() <= 0.5 + 32767 * 2**-24  # of a float32 product


def test_other_writers_files(tmp_path: Path) -> None:
    """24-bit, 8-bit and the standard library's own WAV."""
    wav = torch.rand(1000, 2).numpy() * 2 - 1
    for kind, step in (("PCM_24", 2**-23), ("PCM_U8", 2**-7)):
        soundfile.write(tmp_path / "a.wav", wav, 16000, subtype=kind)
        np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0].t(), wav, atol=step)
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\x00\x40" * 5)
    back, rate = read_audio(tmp_path / "b.wav")
    assert (back.tolist(), rate) == ([[0.5] * 5], 8000)


class ShortReads(io.RawIOBase):
    """A stream that cannot seek and gives a few bytes at a time, as a pipe or socket may."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self._data.read(self._size)

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("size", [1, 5, 4096])
def test_short_reads_give_the_same_samples(size: int) -> None:
    wav = torch.rand(2, 300)
    for suffix in (".wav", ".flac"):
        assert torch.equal(read_audio(ShortReads(encode(wav, 22050, suffix=suffix), size))[0], _pcm(wav))


# What ffmpeg, sox, an unfinished recorder and a header of zeros leave in (RIFF size, data size).
UNKNOWN = [(0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000), (36, 0), (0, 0), (0x80000024, 0x80000000)]


def _with_sizes(data: bytes, riff: int, samples: int) -> bytes:
    at = data.index(b"data") + 4
    return b"RIFF" + riff.to_bytes(4, "little") + data[8:at] + samples.to_bytes(4, "little") + data[at + 4 :]


@pytest.mark.parametrize(("riff", "samples"), UNKNOWN)
def test_wav_of_unknown_length_from_a_pipe(riff: int, samples: int) -> None:
    wav = torch.rand(2, 5000)
    data = _with_sizes(encode(wav, 16000), riff, samples)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb") as other_end:
        other_end.write(data)
        other_end.close()
        back, rate = read_audio(pipe)
    assert rate == 16000
    assert torch.equal(back, _pcm(wav))


def test_empty_audio_is_no_error() -> None:
    assert read_audio(io.BytesIO(encode(torch.zeros(2, 0), 16000)))[0].shape == (2, 0)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_every_truncation_is_refused(suffix: str) -> None:
    data = encode(torch.rand(300), 16000, suffix=suffix)
    for end in [*range(0, 120), *range(120, len(data), 37), len(data) - 1]:
        with pytest.raises(DecodeError, match="audio stream"):
            read_audio(io.BytesIO(data[:end]))


@examples(60)
@given(st.binary(max_size=200), st.sampled_from([b"", b"RIFF\x24\0\0\0WAVE", b"RIFF\xff\xff\xff\xffWAVEdata", b"fLaC"]))
def test_any_bytes_are_refused_or_read(tail: bytes, head: bytes) -> None:
    try:
        assert read_audio(io.BytesIO(head + tail))[0].dim() == 2
    except DecodeError as error:
        assert "audio stream" in str(error)  # noqa: PT017


def test_refusals_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    for path in (tmp_path / "text.wav", tmp_path / "absent.wav", tmp_path):
        with pytest.raises(DecodeError) as caught:
            read_audio(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("wav", "options", "error", "message"),
    [
        (torch.tensor([0.0, float("nan")]), {}, ArgumentError, "NaN"),
        (torch.tensor([0.0, float("inf")]), {"float32": True}, ArgumentError, "infinity"),
        (torch.zeros(1, 1, 5), {}, ShapeError, r"\[1, 1, 5\]"),
        (torch.zeros(5, dtype=torch.int16), {}, DtypeError, "torch.int16"),
        ([0.0], {}, DtypeError, "list"),
    ],
)
def test_a_bad_signal_leaves_the_old_file(
    tmp_path: Path, wav: Tensor, options: dict[str, bool], error: type[Exception], message: str
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message):
        write_audio(path, wav, 16000, **options)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.wav"]


def test_bad_targets(tmp_path: Path) -> None:
    wav = torch.zeros(10)
    with pytest.raises(ArgumentError, match=r"'\.mp3'"):
        write_audio(tmp_path / "a.mp3", wav, 16000)
    with pytest.raises(ArgumentError, match="FLAC"):
        write_audio(tmp_path / "a.flac", wav, 16000, float32=True)
    with pytest.raises(OSError, match="absent"):
        write_audio(tmp_path / "absent" / "a.wav", wav, 16000)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(("old", "new"), [(44100, 22050), (16000, 24000), (22050, 16000)])
def test_resampling_keeps_a_tone(old: int, new: int) -> None:
    def tone(rate: int) -> Tensor:
        return torch.sin(2 * math.pi * 1000 * torch.arange(rate) / rate)

    ours = resample(torch.stack([tone(old), 0.5 * tone(old)]), old, new)
    assert ours.shape == (2, new)
    middle = slice(new // 4, -new // 4)
    torch.testing.assert_close(ours[0, middle], tone(new)[middle], atol=2e-3, rtol=0)
    torch.testing.assert_close(resample(tone(old), old, new), ours[0])


def test_resampling_edges() -> None:
    wav = torch.rand(5)
    assert resample(wav, 16000, 16000) is wav
    assert resample(wav[:0], 16000, 8000).shape == (0,)
    with pytest.raises(ArgumentError, match="to_rate"):
        resample(wav, 16000, 0)
    with pytest.raises(ShapeError, match="wav"):
        resample(wav[None, None], 16000, 8000)


def test_mono() -> None:
    wav = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    assert mono(wav).tolist() == [0.5, 0.25]
    assert mono(wav[0]) is not None
    with pytest.raises(ShapeError, match="wav"):
        mono(wav[None])


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(FastvocError, match="pip install soundfile"):
        read_audio(io.BytesIO(b""))
