"""Sound of every format and from pipes: in pieces what one read gives, to its true end, nothing lost in silence."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fastvoc.errors import AudioWarning, DecodeError
from fastvoc.sound import files as audio_files
from fastvoc.sound.audio import read_audio
from fastvoc.sound.files import FORMATS, READABLE, open_blocks
from fastvoc.sound.pcm import PcmReader

# As soundfile names them; SD2 keeps a part of itself in another file, RAW says nothing of itself.
WRITABLE = [
    (kind, subtype)
    for kind in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(kind)
    if kind not in ("SD2", "RAW")
]
NOT_WRITTEN = [
    ("MP3", "MPEG_LAYER_I"),
    ("MP3", "MPEG_LAYER_II"),
    ("WAV", "MPEG_LAYER_III"),
    ("AIFF", "DWVW_12"),
]
BLOCKS = (577, 1 << 16)


class Pipe(io.RawIOBase):
    """Gives at most `size` bytes a read and cannot be moved about in."""

    def __init__(self, data: bytes, size: int = 1 << 16) -> None:
        self._data, self._size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self._data.read(self._size)


def sound(rate: int, seconds: float, channels: int) -> np.ndarray:
    """A tone and noise, each on and off, so that a variable bit rate varies: [n, channels]."""
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 440 * time) * (np.sin(2 * np.pi * 0.9 * time) > 0)
    wave += 0.05 * np.random.default_rng(0).standard_normal(len(time)) * (np.sin(2 * np.pi * 2.1 * time) > 0.2)
    return np.stack([wave * (1 - 0.3 * channel) for channel in range(channels)], 1)


def written(wave: np.ndarray, rate: int, kind: str, subtype: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def one_read(data: bytes) -> np.ndarray:
    """[n, channels] by a single call of soundfile."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        frames = -1 if file.seekable() else 1 << 18
        return file.read(frames, dtype="float32", always_2d=True)


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(audio_files, "_BLOCK", request.param)
    return int(request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("kind", "subtype"), WRITABLE)
def test_pieces_are_what_one_read_gives(kind: str, subtype: str) -> None:
    for channels in (1, 2):
        rate = 48000 if subtype == "OPUS" else 22050
        wave = sound(rate, 0.7, channels)
        try:
            data = written(wave, rate, kind, subtype)
        except soundfile.LibsndfileError:
            assert channels == 2 or (kind, subtype) in NOT_WRITTEN
            continue
        if subtype.startswith("DWVW_"):  # lossless; soundfile's own read fails, as it seeks
            np.testing.assert_allclose(
                read_audio(io.BytesIO(data))[0].T, wave, atol=2 ** (1 - min(int(subtype[5:]), 16))
            )
            continue
        for source in (io.BytesIO(data), Pipe(data)):
            got, got_rate = read_audio(source)
            assert got_rate == soundfile.info(io.BytesIO(data)).samplerate
            np.testing.assert_array_equal(got.T, one_read(data))


def first_frame(data: bytes) -> int:
    """Bytes of the frame of layer III that an MP3 begins with."""
    version, rate, padding = data[1] >> 3 & 3, data[2] >> 2 & 3, data[2] >> 1 & 1
    rates = {3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
    lower = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    hz = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}[version][rate]
    return (144 if version == 3 else 72) * rates.get(version, lower)[(data[2] >> 4) - 1] * 1000 // hz + padding


ID3_BEHIND = b"TAG" + bytes(125)
ID3_BEFORE = b"ID3\3\0\0\0\0\1\0" + bytes(128)
APE_HEAD = b"APETAGEX" + (2000).to_bytes(4, "little") + (9000 + 32).to_bytes(4, "little") + bytes(16)
APE_BEHIND = APE_HEAD + b"x" * 9000 + APE_HEAD


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize(("rate", "channels"), [(22050, 1), (44100, 2), (48000, 1)])
def test_mp3_to_its_end(mode: str, rate: int, channels: int) -> None:
    wave = sound(rate, 5.0, channels)
    data = written(wave, rate, "MP3", bitrate_mode=mode, compression_level=0.6)
    size = first_frame(data)
    assert b"Xing" in data[:size] or b"Info" in data[:size]
    right = one_read(data)
    assert len(right) == len(wave)
    bare = data[size:]
    for tagged in (data, ID3_BEFORE + data, data + ID3_BEHIND, data + APE_BEHIND):
        np.testing.assert_array_equal(read_audio(io.BytesIO(tagged))[0].T, right)
    for tagged in (bare, ID3_BEFORE + bare, bare + ID3_BEHIND, bare + APE_BEHIND, ID3_BEFORE + bare + ID3_BEHIND):
        for source in (io.BytesIO(tagged), Pipe(tagged)):
            with open_blocks(source) as opened:
                got = torch.cat(list(opened.pieces), 1).T.numpy()
                assert opened.samples == len(got)
            # With no header the coder's delay of 576 samples and the decoder's of 529 stay, and the last frame's rest.
            assert len(right) + 1105 <= len(got) < len(right) + 1105 + 2 * 1152
            np.testing.assert_array_equal(got[1105 : 1105 + len(right)], right)


def test_mp3_that_is_not_what_it_declares() -> None:
    data = written(sound(44100, 3.0, 1), 44100, "MP3", bitrate_mode="VARIABLE", compression_level=0.6)
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(DecodeError, match=r"audio stream: the file ends after \d+ of 132300 samples"):
        read_audio(io.BytesIO(cut))
    with pytest.warns(AudioWarning, match=r"ends after \d+ of the 132300 samples"):
        got = read_audio(Pipe(cut))[0]
    whole = read_audio(io.BytesIO(data))[0]
    assert whole.shape[1] // 2 < got.shape[1] < whole.shape[1]
    assert torch.equal(got[:, :-1152], whole[:, : got.shape[1] - 1152])
    with pytest.warns(AudioWarning, match=rf"the last {len(data)} bytes, behind the end of its sound, are not read"):
        assert torch.equal(read_audio(io.BytesIO(data + data))[0], whole)


@pytest.mark.parametrize("suffix", sorted(READABLE))
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    kind = next(kind for kind, suffixes in FORMATS.items() if suffix in suffixes)
    assert kind in soundfile.available_formats()
    if suffix == ".mp2":  # which soundfile does not write: ten frames of layer II, 64 kbit/s, all of silence
        data, samples = (b"\xff\xfd\x40\xc0" + bytes(204)) * 10, 11520
    else:
        data, samples = written(sound(48000, 0.5, 1), 48000, kind, "OPUS" if suffix == ".opus" else None), 24000
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert read_audio(tmp_path / f"a{suffix}")[0].shape == (1, samples)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "MP3"])
def test_a_cut_file_is_refused(kind: str) -> None:
    data = written(sound(22050, 1.0, 1), 22050, kind)
    for end in (len(data) - 400, len(data) // 2):
        with pytest.raises(DecodeError, match="audio stream: "):
            read_audio(io.BytesIO(data[:end]))


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU"])
def test_a_cut_pipe_gives_its_sound(kind: str) -> None:
    data = written(sound(22050, 1.0, 1), 22050, kind)
    whole = read_audio(io.BytesIO(data))[0]
    with pytest.warns(AudioWarning, match=r"ends after \d+ of the \d+ bytes"):
        got = read_audio(Pipe(data[:-20000]))[0]
    assert torch.equal(got, whole[:, : whole.shape[1] - 10000])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_cut_ogg_is_told(subtype: str) -> None:
    data = written(sound(48000, 4.0, 1), 48000, "OGG", subtype)
    read_audio(io.BytesIO(data))
    with pytest.warns(AudioWarning, match="no last page"):
        assert read_audio(io.BytesIO(data[: len(data) // 2]))[0].shape[1] > 0


def _w64(data: bytes) -> bytes:
    at = data.index(b"data") + 16
    return data[:16] + b"\xff" * 8 + data[24:at] + b"\xff" * 7 + b"\x7f" + data[at + 8 :]


def _caf(data: bytes) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + b"\xff" * 8 + data[at + 8 :]


def _rf64(data: bytes) -> bytes:
    return data[:20] + bytes(24) + data[44:]


def _au(data: bytes) -> bytes:
    return data[:8] + b"\xff" * 4 + data[12:]


def _aiff(data: bytes) -> bytes:
    return data[:4] + b"\x7f\0\0\x50" + data[8:]


@pytest.mark.parametrize(
    ("kind", "forget"), [("W64", _w64), ("CAF", _caf), ("RF64", _rf64), ("AU", _au), ("AIFF", _aiff)]
)
def test_other_formats_whose_writer_did_not_know_the_length(kind: str, forget: Callable[[bytes], bytes]) -> None:
    data = written(sound(22050, 1.0, 2), 22050, kind)
    unknown = forget(data)
    assert unknown != data
    for source in (Pipe(unknown), io.BytesIO(unknown)):
        assert torch.equal(read_audio(source)[0], read_audio(io.BytesIO(data))[0])


SUBTYPES = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64, "ULAW": 8}
# What writers to pipes put for a length they do not know: ffmpeg, sox, arecord, Kaldi, programs that count in samples.
UNKNOWN = (0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0x80000000 - 44, 2_000_000_000, 0)


def _sized(data: bytes, riff: int, size: int) -> bytes:
    at = data.index(b"data") + 4
    return b"RIFF" + riff.to_bytes(4, "little") + data[8:at] + size.to_bytes(4, "little") + data[at + 4 :]


def _readers(data: bytes, step: int) -> Iterator[torch.Tensor]:
    """The sound of a pipe, mixed to one channel, by every way in."""
    yield read_audio(Pipe(data, step))[0].mean(0)
    with open_blocks(Pipe(data, step)) as opened:
        yield torch.cat([torch.zeros(opened.channels, 0), *opened.pieces], 1).mean(0)
    if data[20] != 7:  # which is not read as it comes
        yield torch.cat([torch.zeros(0), *PcmReader(Pipe(data, step))])


@examples(150)
@given(
    st.sampled_from(sorted(SUBTYPES)),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(UNKNOWN),
    st.sampled_from([1, 700, 1 << 16]),
    st.integers(0, 400),
    st.booleans(),
)
def test_sizes_that_stand_for_none(subtype: str, channels: int, size: int, step: int, samples: int, down: bool) -> None:
    wave = sound(16000, 0.1, channels)[:samples]
    data = written(wave, 16000, "WAV", subtype)
    frame = channels * SUBTYPES[subtype] // 8
    if frame == 1:  # or the byte that fills a chunk of odd length is a sample like any other
        data = data[: data.index(b"data") + 8 + samples]
    stated = size // frame * frame if down else size
    right = one_read(data).mean(1)
    for got in _readers(_sized(data, min(stated + 36, 0xFFFFFFFF), stated), step):
        np.testing.assert_allclose(got, right, atol=1e-7)


@examples(100)
@given(
    st.sampled_from(sorted(set(SUBTYPES) - {"ULAW"})),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 700, 1 << 16]),
    st.integers(1, 1 << 29),
    st.integers(0, 7),
)
def test_a_pipe_that_ends_early_is_told(subtype: str, channels: int, step: int, missing: int, part: int) -> None:
    wave = sound(16000, 0.02, channels)
    data = written(wave, 16000, "WAV", subtype)
    at = data.index(b"data") + 8
    declared = int.from_bytes(data[at - 4 : at], "little")
    frame = channels * SUBTYPES[subtype] // 8
    part %= frame
    stated = declared + frame * missing
    if stated > 0x70000000:
        stated = declared + frame
    cut = _sized(data, stated + 36, stated)[: at + declared - part]
    right = one_read(data).mean(1)[: (declared - part) // frame]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for got in _readers(cut, step):
            np.testing.assert_allclose(got, right, atol=1e-7)
    assert len(told) == 3
    for warning in told:
        assert warning.category is AudioWarning
        assert f"ends after {declared - part} of the {stated} bytes" in str(warning.message)


def test_a_wav_without_samples_keeps_what_follows_out_of_them() -> None:
    data = written(np.zeros((0, 1)), 16000, "WAV") + b"LIST\4\0\0\0INFO"
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    for got in _readers(data, 700):
        assert got.numel() == 0


def test_a_broken_sample_at_the_end_of_a_pipe_is_told() -> None:
    data = _sized(written(np.zeros((10, 1)), 16000, "WAV", "PCM_24"), 0xFFFFFFFF, 0xFFFFFFFF)
    with pytest.warns(AudioWarning, match="last 2 bytes are no whole sample of 3"):
        assert read_audio(Pipe(data[:-1]))[0].shape == (1, 9)


def test_a_real_pipe() -> None:
    data = written(sound(16000, 1.0, 2), 16000, "WAV", "PCM_24")
    end = data.index(b"data") + 8 + 6 * 9000
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb") as other_end:
        other_end.write(_sized(data, 0x7FFFF024, 0x7FFFEFFF)[:end])
        other_end.close()
        got, _ = read_audio(pipe)
    assert torch.equal(got, read_audio(io.BytesIO(data))[0][:, : got.shape[1]])
    assert got.shape == (2, 9000)
