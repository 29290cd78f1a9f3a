"""`fastvoc encode` and `fastvoc decode`: streams of both kinds, pipes, and what they refuse."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from codec_models import lively
from command_line import Run
from ecdc_cases import golden_stream, rounds_as_golden
from torch import Tensor

import fastvoc
from fastvoc import ecdc
from fastvoc.checkpoints import Checkpoint
from fastvoc.cli import main
from fastvoc.codec import Codec
from fastvoc.models.encodec import EncodecConfig
from fastvoc.models.encodec_lm import EncodecLmConfig
from fastvoc.sound.audio import encode as audio_bytes
from fastvoc.sound.audio import mono, read_audio, resample, to_int16, write_audio
from helpers import ROOT, GoldenCase

MONO = EncodecConfig(n_filters=2, dimension=8, n_q=8, bandwidths=(1.5, 3.0, 6.0))
STEREO = EncodecConfig(
    sample_rate=48000,
    channels=2,
    causal=False,
    norm="time_group_norm",
    normalize=True,
    segment=1.0,
    n_filters=2,
    dimension=8,
    n_q=2,
    bandwidths=(3.0,),
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small codecs, mono.safetensors and stereo.safetensors, and their language models."""
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("models")
    for name, config in (("mono", MONO), ("stereo", STEREO)):
        fastvoc.save(Codec(lively(config), config), folder / f"{name}.safetensors")
        sizes = EncodecLmConfig(config.sample_rate, config.n_q, dim=16, layers=1, hidden=8, past=9)
        state = {key: torch.randn(shape) for key, shape in sizes.tensors()}
        fastvoc.save(Checkpoint(sizes, state, "encodec"), folder / f"{config.name}_lm.safetensors")
    return folder


def sound(samples: int, channels: int = 1) -> Tensor:
    return torch.randn(channels, samples) * 0.2


def pcm(wav: Tensor) -> Tensor:
    return to_int16(wav).float() / 32768


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    write_audio(path, sound(9000), 24000)
    return path


@pytest.mark.parametrize("options", [(), ("--portable",), ("--lm",), ("--lm", "--original")])
@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_there_and_back(run: Run, models: Path, tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    codec = fastvoc.load(models / f"{name}.safetensors")
    source, stream, out = tmp_path / "in.wav", tmp_path / "a.ecdc", tmp_path / "out.wav"
    write_audio(source, sound(50000, codec.channels), codec.sample_rate)
    model = ("--model", models / f"{name}.safetensors")
    result = run("encode", source, stream, "--bandwidth", 3, *model, *options)
    assert (result.code, result.out) == (0, ""), result.err
    data = stream.read_bytes()
    assert f"{stream}: {codec.config.name}, {len(data)} bytes, " in result.err
    assert "real-time factor" in result.err
    assert ("warning: only where" in result.err) == ("--original" in options)
    portable = "--portable" in options or options == ("--lm",)
    assert data[4] == (ecdc.PORTABLE if portable else ecdc.ORIGINAL)
    lm = None
    if "--lm" in options:
        lm = fastvoc.load_language_model(codec.config.name, integer=portable, folder=models)
    wav = read_audio(source)[0]
    assert data == fastvoc.compress(codec, wav, 3.0, lm=lm, portable=portable)
    result = run("decode", stream, out, *model)
    assert (result.code, result.out) == (0, ""), result.err
    assert f"{stream}: {codec.config.name}, 3 kbit/s in {4 if name == 'mono' else 2} codeb" in result.err
    assert ("coded with the language model" in result.err) == ("--lm" in options)
    assert ("fastvoc's variant" in result.err) == portable
    made, rate = read_audio(out)
    assert rate == codec.sample_rate
    assert torch.equal(made, pcm(fastvoc.decompress(data, codec, lm)[0]))


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["mono", "stereo"])
@pytest.mark.parametrize("coded", [False, True])
def test_golden_files(run: Run, golden: Callable[[str], GoldenCase], tmp_path: Path, kind: str, coded: bool) -> None:
    case = golden("encodec_ecdc")
    rate = 24000 if kind == "mono" else 48000
    wav, stream = tmp_path / "in.wav", case.dir / f"{kind}_{'lm' if coded else 'plain'}.ecdc"
    expected = golden_stream(case, kind, "lm" if coded else "plain")
    write_audio(wav, case.inputs[f"audio_{kind}"], rate, float32=True)
    model = ("--model", case.dir / f"encodec_{rate // 1000}khz.th")
    options = ("--lm", "--original") if coded else ()
    if coded and not rounds_as_golden(case):
        result = run("decode", stream, tmp_path / "out.wav", *model)
        assert (result.code, os.listdir(tmp_path)) == (2, ["in.wav"])
        assert "round in another way" in result.err
        assert "16 ways of rounding were tried" in result.err
        return
    result = run("encode", wav, tmp_path / "a.ecdc", "--bandwidth", 3, *model, *options)
    assert result.code == 0, result.err
    assert (tmp_path / "a.ecdc").read_bytes() == expected
    result = run("decode", stream, tmp_path / "out.wav", "--float", *model)
    assert result.code == 0, result.err
    exact = case.outputs[f"decoded_{kind}"]
    assert (read_audio(tmp_path / "out.wav")[0] - exact).abs().max() < 1e-4 * exact.square().mean().sqrt()


@pytest.mark.parametrize(
    ("name", "channels", "rate", "suffix", "notes"),
    [
        ("mono", 2, 44100, ".flac", "2 channels mixed to one, resampled from 44100 to 24000 Hz"),
        ("mono", 1, 16000, ".wav", "resampled from 16000 to 24000 Hz"),
        ("mono", 3, 24000, ".wav", "3 channels mixed to one"),
        ("stereo", 1, 48000, ".wav", "one channel used for both"),
        (
            "stereo",
            5,
            8000,
            ".wav",
            "5 channels mixed to one, one channel used for both, resampled from 8000 to 48000 Hz",
        ),
        ("stereo", 2, 44100, ".flac", "resampled from 44100 to 48000 Hz"),
    ],
)
def test_any_rate_and_channels(
    run: Run, models: Path, tmp_path: Path, name: str, channels: int, rate: int, suffix: str, notes: str
) -> None:
    source = tmp_path / f"in{suffix}"
    write_audio(source, sound(rate, channels), rate)
    model = models / f"{name}.safetensors"
    result = run("encode", source, tmp_path / "a.ecdc", "--bandwidth", 3, "--model", model)
    assert result.code == 0, result.err
    assert f"{source}: {notes}\n" in result.err
    codec = fastvoc.load(model)
    wav = read_audio(source)[0]
    if channels > 2 or codec.channels == 1:
        wav = mono(wav)[None]
    wav = resample(wav, rate, codec.sample_rate).expand(codec.channels, -1)
    header = ecdc.Reader(io.BytesIO((tmp_path / "a.ecdc").read_bytes())).header
    assert header.samples is not None
    assert abs(header.samples - wav.shape[1]) <= 1
    made = fastvoc.decompress((tmp_path / "a.ecdc").read_bytes(), codec)[0][:, : wav.shape[1]]
    expected = codec(wav, 3.0)[:, : made.shape[1]]
    # Resampled in pieces the samples are the same to rounding; a code may lie at an edge.
    assert ((made - expected).square().mean() / expected.square().mean()).sqrt() < 0.05


@pytest.mark.parametrize("kind", ["wav", "wav of unknown length", "8-bit wav", "flac"])
@pytest.mark.parametrize("options", [(), ("--portable",)])
def test_pipes(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    kind: str,
    options: tuple[str, ...],
) -> None:
    wav = pcm(sound(9000))
    data = audio_bytes(wav, 24000, suffix=".flac" if kind == "flac" else ".wav")
    if kind == "wav of unknown length":
        data = data.replace(b"data" + len(data[44:]).to_bytes(4, "little"), b"data\xff\xff\xff\xff")
    elif kind == "8-bit wav":
        wav = ((wav * 127).round() / 128).clamp(-1, 1)
        data = data[:28] + (24000).to_bytes(4, "little") + b"\1\0\x08\0data" + (9000).to_bytes(4, "little")
        data += (wav[0] * 128 + 128).to(torch.uint8).numpy().tobytes()
        data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    else:
        wav = read_audio(io.BytesIO(data))[0]
    path = str(models / "mono.safetensors")

    def through(command: str, given: bytes, *more: str) -> bytes:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        with pytest.raises(SystemExit) as left:
            main([command, "-", "-", "--model", path, *more])
        captured = capsysbinary.readouterr()
        assert left.value.code == 0, captured.err
        return captured.out

    stream = through("encode", data, "--bandwidth", "3", *options)
    codec = fastvoc.load(path)
    assert stream == fastvoc.compress(codec, wav, 3.0, portable=bool(options))
    made, rate = read_audio(io.BytesIO(through("decode", stream)))
    assert rate == 24000
    assert torch.equal(made, pcm(codec(wav, 3.0)))


def test_a_named_pipe(run: Run, models: Path, clip: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()))
    thread.start()
    result = run("encode", pipe, tmp_path / "a.ecdc", "--bandwidth", 3, "--model", models / "mono.safetensors")
    thread.join()
    assert result.code == 0, result.err
    assert (tmp_path / "a.ecdc").read_bytes()[:4] == b"ECDC"


def test_into_a_folder_and_over_a_file(run: Run, models: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    model = ("--model", models / "mono.safetensors")
    assert run("encode", clip, tmp_path / "made", "--bandwidth", 3, *model).code == 0
    stream = tmp_path / "made" / "clip.ecdc"
    result = run("encode", clip, stream, "--bandwidth", 3, *model)
    assert (result.code, result.err) == (2, f"error: OUT: {stream} exists; --force replaces it\n")
    assert run("encode", clip, stream, "--bandwidth", 1.5, "--force", *model).code == 0
    assert run("decode", stream, tmp_path / "made", *model).code == 0
    assert (tmp_path / "made" / "clip.wav").exists()
    assert run("decode", stream, tmp_path / "made", *model).code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "absent.wav", "o.ecdc"], "IN: absent.wav: no such file"),
        (["encode", ".", "o.ecdc"], "IN: .: a folder, not a file"),
        (["encode", "text.wav", "o.ecdc"], "text.wav: "),
        (["encode", "short.wav", "o.ecdc"], "short.wav: the file ends after 5980 of 6000 bytes of samples"),
        (["encode", "empty.wav", "o.ecdc"], "empty.wav: holds no samples"),
        (["encode", "nan.wav", "o.ecdc"], "nan.wav: NaN or infinity at 0."),
        (["encode", "good.wav", "o.ec"], "OUT: expected a name that ends in .ecdc or .dac or .safetensors, got 'o.ec'"),
        (["encode", "good.wav", "absent/o.ecdc"], "OUT: the folder absent does not exist"),
        (["encode", "good.wav", "o.ecdc", "--bandwidth", "5"], "bandwidth: expected one of 1.5, 3, 6 kbit/s, got 5.0"),
        (["encode", "good.wav", "o.ecdc", "--original"], "--original: goes with --lm"),
        (["encode", "good.wav", "o.ecdc", "--lm", "--original", "--portable"], "--original: goes with --lm, and not"),
        (["encode", "good.wav", "o.ecdc", "--lm-model", "x.th"], "--lm-model: goes with --lm"),
        (["encode", "good.wav", "o.ecdc", "--lm", "--lm-model", "absent.th"], "absent.th: no such file"),
        (["encode", "good.wav", "o.ecdc", "--model", "hifigan"], "--model: hifigan is no codec"),
        (["encode", "good.wav", "o.ecdc", "--model", "no-such-model"], "no-such-model"),
        (["encode", "good.wav", "o.ecdc", "--threads", "0"], "--threads"),
        (["decode", "absent.ecdc", "o.wav"], "IN: absent.ecdc: no such file"),
        (["decode", "good.wav", "o.wav"], "good.wav: no .ecdc stream"),
        (["decode", "good.ecdc", "o.mp3"], "OUT: expected a name that ends in .wav or .flac, got 'o.mp3'"),
        (["decode", "good.ecdc", "o.flac", "--float"], "OUT: expected a name that ends in .wav, got 'o.flac'"),
        (["decode", "cut.ecdc", "o.wav"], "cut.ecdc: the stream ends early"),
        (["decode", "cut.ecdc", "o.flac"], "cut.ecdc: the stream ends early"),
        (["decode", "lying.ecdc", "o.wav"], "lying.ecdc: illegal header: -5 samples"),
        (["decode", "other.ecdc", "o.wav"], "codec: the stream was made with encodec_48khz, got encodec_24khz"),
        (["decode", "good.ecdc", "o.wav", "--model", "hifigan"], "--model: hifigan is no codec"),
        (["decode", "good.ecdc", "o.wav", "--backend", "abacus"], "abacus"),
    ],
)
def test_refusals_leave_nothing(
    run: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.wav").write_text("nothing of the kind")
    write_audio("good.wav", sound(3000), 24000)
    Path("short.wav").write_bytes(audio_bytes(sound(3000), 24000)[:-20])
    write_audio("empty.wav", torch.zeros(1, 0), 24000)
    broken = audio_bytes(torch.full((1, 3000), 0.1), 24000, float32=True)
    Path("nan.wav").write_bytes(broken.replace(np.float32(0.1).tobytes() * 3000, np.float32("nan").tobytes() * 3000))
    good = fastvoc.compress(fastvoc.load(models / "mono.safetensors"), sound(3000), 3.0)
    Path("good.ecdc").write_bytes(good)
    Path("cut.ecdc").write_bytes(good[:-3])
    Path("lying.ecdc").write_bytes(good.replace(b"3000", b"  -5"))
    Path("other.ecdc").write_bytes(good.replace(b"_24khz", b"_48khz"))
    before = sorted(os.listdir())
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(models / "mono.safetensors")]
    result = run(*arguments)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: ")
    assert message in result.err
    assert sorted(os.listdir()) == before


def test_a_stream_without_a_model_to_be_had(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvoc.hub.download.fetch", lambda name, options: pytest.fail(name))
    header = ecdc.Header("encodec_48khz", 2)
    with (tmp_path / "a.ecdc").open("wb") as file, ecdc.Writer(file, header) as writer:
        writer.write(np.zeros((2, 1), np.uint16), 1.0)
        writer.close(1)
    with pytest.raises(pytest.fail.Exception, match="facebook/encodec_48khz"):
        fastvoc.cli.main(["decode", str(tmp_path / "a.ecdc"), str(tmp_path / "o.wav")])


PEAK = """
import sys
from fastvoc.cli import main
try:
    main(sys.argv[1:])
finally:  # not getrusage, which remembers the process that started this one
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_memory_does_not_grow_with_the_length(models: Path, tmp_path: Path, name: str) -> None:
    def peak(command: str, source: Path, target: Path, *options: str) -> int:
        arguments = [command, source, target, "--model", models / f"{name}.safetensors", *options]
        code = [sys.executable, "-c", PEAK, *map(str, arguments)]
        done = subprocess.run(code, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        return int(done.stdout.splitlines()[-1])

    peaks = []
    for seconds in (60, 600):
        source, stream, out = (tmp_path / f"{seconds}.{suffix}" for suffix in ("wav", "ecdc", "out.wav"))
        write_audio(source, sound(seconds * 8000), 8000)
        peaks.append((peak("encode", source, stream, "--bandwidth", "3"), peak("decode", stream, out)))
    for short, long in zip(*peaks, strict=True):
        assert long < short + (32 << 10), peaks
