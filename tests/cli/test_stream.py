"""`fastvoc stream`: what it writes is what one call makes, however the input comes."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from signals import chords

from fastvoc.cli import main
from fastvoc.errors import ArgumentError, DecodeError
from fastvoc.sound.pcm import PcmFormat, PcmReader, StreamResampler, encode_s16, read_frames
from fastvoc.vocoder import Vocoder


class Dribble(io.RawIOBase):
    """Gives at most `size` bytes a read, like a slow pipe."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file, self._size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        return self._file.read(self._size)


def wav_bytes(samples: np.ndarray, rate: int = 22050, *, size: int | None = None, kind: str = "s16") -> bytes:
    """A WAV file [n, channels] whose header says `size` bytes of samples."""
    if kind == "f32":
        tag, bits, data = 3, 32, samples.astype("<f4").tobytes()
    else:
        bits = int(kind[1:])
        whole = np.round(samples * (2 ** (bits - 1) - 1)).astype("<i4")
        tag, data = 1, whole.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()
    channels = samples.shape[1]
    block = channels * bits // 8
    header = b"fmt " + (16).to_bytes(4, "little") + tag.to_bytes(2, "little") + channels.to_bytes(2, "little")
    header += rate.to_bytes(4, "little") + (rate * block).to_bytes(4, "little")
    header += block.to_bytes(2, "little") + bits.to_bytes(2, "little")
    count = len(data) if size is None else size
    return b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\3\0\0\0abc\0" + header + b"data" + count.to_bytes(4, "little") + data


@pytest.mark.parametrize("kind", ["s16", "s24", "s32", "f32"])
@pytest.mark.parametrize("size", [1, 5, 4096])
@pytest.mark.parametrize("stated", [None, 0, 0xFFFFFFFF])
def test_wav_in_any_reads(kind: str, size: int, stated: int | None) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (301, 2))
    reader = PcmReader(Dribble(wav_bytes(samples, 16000, size=stated, kind=kind), size))
    assert reader.format == PcmFormat(kind, 16000, 2)
    read = torch.cat(list(reader))
    assert (read - torch.from_numpy(samples.mean(1))).abs().max() < 2 ** (-14 if kind == "s16" else -20)


def test_broken_input() -> None:
    samples = np.zeros((50, 1))
    good = wav_bytes(samples)
    for cut in range(12, len(good) - 100):
        with pytest.raises(DecodeError):
            list(PcmReader(io.BytesIO(good[:cut])))
    for data, text in (
        (good[:-1], "ends after 99 of 100 bytes"),
        (good.replace(b"\x01\x00\x01\x00", b"\x55\x00\x01\x00"), "WAV format 85"),
        (good.replace(b"\x01\x00\x01\x00", b"\x01\x00\x00\x00"), "channels"),
        (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\x7f", "claims"),
        (b"not a wav file at all", "no WAV"),
    ):
        with pytest.raises(DecodeError, match=text):
            list(PcmReader(io.BytesIO(data)))
    with pytest.raises(DecodeError, match="1 bytes are left over"):
        list(PcmReader(io.BytesIO(bytes(101)), PcmFormat("s16", 16000)))
    with pytest.raises(DecodeError, match="left over"):
        list(read_frames(io.BytesIO(bytes(4 * 80 + 3)), 80))
    with pytest.raises(ArgumentError, match="format"):
        PcmFormat("u16", 16000)


def test_resampling_in_chunks() -> None:
    from fastvoc.sound.audio import resample

    wav = chords(16000, 16000, 20, 1.0)
    stream = StreamResampler(16000, 22050)
    parts = [stream.push(wav[i : i + 777]) for i in range(0, len(wav), 777)]
    joined = torch.cat([*parts, stream.push(wav[:0], last=True)])
    assert (joined - resample(wav, 16000, 22050)).abs().max() < 1e-4


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastvoc", "stream", "--model", str(model), *arguments]


class Pipe(io.BytesIO):
    """Bytes in which nobody can move about."""

    def seekable(self) -> bool:
        return False


Piped = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def piped(model: Path, monkeypatch: pytest.MonkeyPatch) -> Piped:
    """`piped(data, *arguments)` runs the command in this process, with standard streams of its own."""

    def run(data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        streams = [io.TextIOWrapper(Pipe(text), "utf-8", write_through=True) for text in (data, b"", b"")]
        with monkeypatch.context() as patch, warnings.catch_warnings():
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patch.setattr(sys, name, stream)
            warnings.simplefilter("default")  # as in a process
            with pytest.raises(SystemExit) as left:
                main(["stream", "--model", str(model), *arguments])
        out, err = (stream.buffer.getvalue() for stream in streams[1:])  # type: ignore[attr-defined]
        return subprocess.CompletedProcess([], int(left.value.code or 0), out, err)

    return run


def test_a_process_between_two_pipes(model: Path, piped: Piped) -> None:
    data = encode_s16(chords(22050, 22050, 20, 0.5))
    done = subprocess.run(command(model, "--chunk", "7"), input=data, capture_output=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, piped(data, "--chunk", "7").stdout), done.stderr
    assert b"times real time" in done.stderr
    assert len(done.stdout) > 2 * 10_000


def test_raw_samples_and_mel_frames(piped: Piped, voc: Vocoder) -> None:
    wav = torch.from_numpy(np.frombuffer(encode_s16(chords(22050, 22050, 20, 1.0)), "<i2").astype(np.float32) / 32768)
    mel = voc.mel(wav)
    expected = encode_s16(voc(mel, check=False, exact=True))
    done = piped(encode_s16(wav * 32768 / 32767), "--chunk", "7")
    assert done.returncode == 0, done.stderr
    assert np.abs(np.frombuffer(done.stdout, "<i2").astype(int) - np.frombuffer(expected, "<i2")).max() <= 1
    assert b"times real time" in done.stderr
    done = piped(mel.T.contiguous().numpy().astype("<f4").tobytes(), "--input", "mel")
    assert np.abs(np.frombuffer(done.stdout, "<i2").astype(int) - np.frombuffer(expected, "<i2")).max() <= 1


def test_sound_comes_before_the_input_ends(model: Path, voc: Vocoder) -> None:
    with subprocess.Popen(
        command(model, "--chunk", "2"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as live:
        assert live.stdin is not None
        assert live.stdout is not None
        live.stdin.write(encode_s16(chords(22050, 22050, 20, 1.0)))
        live.stdin.flush()
        start = time.monotonic()
        early = live.stdout.read(2 * 22050 // 2)
        assert len(early) == 22050
        assert time.monotonic() - start < 60
        live.stdin.close()
        rest = live.stdout.read()
    assert len(early) + len(rest) == 2 * (22050 // voc.hop) * voc.hop


def test_latency_is_told(piped: Piped, voc: Vocoder) -> None:
    done = piped(b"", "--latency", "--chunk", "4")
    assert done.returncode == 0
    assert done.stdout == b""
    ahead = voc.latency.ms + 1000 * 4 * voc.hop / voc.sample_rate + 1000 * 384 / 22050
    assert f"latency {ahead:.1f} ms".encode() in done.stderr
    shorter = piped(b"", "--latency", "--lookahead", "0")
    assert b"exact output needs" in shorter.stderr


# What sox writes to a pipe at 16 and 24 bits, ffmpeg, and programs that count in samples.
@pytest.mark.parametrize(
    ("kind", "stated"), [("s16", 0x7FFFF000), ("s24", 0x7FFFEFFF), ("s16", 0xFFFFFFFF - 36), ("f32", 2_000_000_000)]
)
def test_a_wav_of_unknown_length_to_its_end(piped: Piped, kind: str, stated: int) -> None:
    samples = chords(22050, 22050, 20, 0.5)[:, None].numpy()
    right = piped(wav_bytes(samples, kind=kind))
    done = piped(wav_bytes(samples, kind=kind, size=stated))
    assert (done.returncode, done.stdout) == (0, right.stdout), done.stderr
    assert b"warning" not in done.stderr


def test_a_pipe_that_ends_early_is_told(piped: Piped) -> None:
    samples = chords(22050, 22050, 20, 0.5)[:, None].numpy()
    right = piped(wav_bytes(samples))
    done = piped(wav_bytes(samples, size=60000))
    assert (done.returncode, done.stdout) == (0, right.stdout), done.stderr
    told = f"warning: standard input: the sound ends after {2 * len(samples)} of the 60000 bytes that it declares"
    assert told.encode() in done.stderr


def test_wrong_input_is_told(piped: Piped) -> None:
    done = piped(bytes(3), "--input", "mel")
    assert done.returncode == 2
    assert b"left over" in done.stderr
    done = piped(b"RIFF\0\0\0\0WAVEdata\1\0\0\0")
    assert done.returncode == 2
    assert b"before their format" in done.stderr


def test_what_is_good_before_a_fault_is_spoken(piped: Piped, voc: Vocoder) -> None:
    wav = chords(22050, 22050, 20, 1.0)
    mel = voc.mel(wav)
    bad_mel, bad_wav = mel.clone(), wav.clone()
    bad_mel[7, 41], bad_wav[9000] = torch.nan, torch.inf
    rows = mel.T.contiguous().numpy().astype("<f4").tobytes()
    bad_rows = bad_mel.T.contiguous().numpy().astype("<f4").tobytes()
    for data, kind, good, text in (
        (bad_rows, "mel", mel[:, :41], "frame 41 (0.476 s)"),
        (rows[: 41 * 320 + 5], "mel", mel[:, :41], "left over"),
        (bad_wav.numpy().astype("<f4").tobytes(), "f32", voc.mel(wav[:9000]), "sample 9000 (0.408 s)"),
    ):
        done = piped(data, "--input", kind, "--chunk", "7")
        assert done.returncode == 2
        assert text.encode() in done.stderr
        expected = np.frombuffer(encode_s16(voc(good, check=False, exact=True)), "<i2").astype(int)
        assert np.abs(np.frombuffer(done.stdout, "<i2") - expected).max() <= 1
        assert f"; the {len(expected) / 22050:.3f} s of speech before it were written".encode() in done.stderr
    done = piped(np.full(900, np.nan, "<f4").tobytes(), "--input", "f32")
    assert done.returncode == 2
    assert b"sample 0" in done.stderr
    assert not done.stdout


def test_another_rate_and_format(piped: Piped, voc: Vocoder) -> None:
    wav = chords(22050, 22050, 20, 0.7)
    mel = voc.mel(wav)
    data = mel.T.contiguous().numpy().astype("<f4").tobytes()
    for form, dtype, step in (("s16", "<i2", 1), ("mulaw", "u1", 255), ("f32", "<f4", 1e-4)):
        done = piped(data, "--input", "mel", "--rate", "8000", "--format", form)
        assert done.returncode == 0, done.stderr
        meant = voc(mel, check=False, exact=True, rate=8000, format=form).numpy()
        got = np.frombuffer(done.stdout, dtype)
        assert len(got) == len(meant)
        assert np.abs(got.astype(float) - meant.astype(float)).max() <= step
    assert f"{len(meant) / 8000:.2f} s of speech".encode() in done.stderr
    late = piped(b"", "--latency", "--rate", "8000")
    assert b"the filter of the other rate" in late.stderr
    assert f"{voc.stream(rate=8000).latency.ms - voc.latency.ms:.1f} ms the filter".encode() in late.stderr
    assert piped(data, "--input", "mel", "--rate", "80").returncode == 2


def test_the_rate_of_raw_samples(piped: Piped, voc: Vocoder) -> None:
    wav = chords(22050, 16000, 20, 0.7)[:8000]
    done = piped(encode_s16(wav), "--input-rate", "16000")
    assert done.returncode == 0, done.stderr
    size = len(StreamResampler(16000, 22050).push(wav, last=True)) // voc.hop * voc.hop
    assert len(done.stdout) == 2 * size
