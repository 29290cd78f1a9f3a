"""`fastvoc speak`: text or phoneme ids in, the speech of a Piper voice out, to standard output as it is made."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastvoc.cli.convert import Precision
from fastvoc.cli.output import output_path
from fastvoc.errors import ArgumentError, shown

if TYPE_CHECKING:
    from fastvoc.piper import Voice

_MOST_DIGITS = 18  # of an integer of 64 bits
_NOTHING = "--text: there is nothing to say"


def speak(
    voice: Annotated[str, typer.Argument(metavar="VOICE", help="A Piper voice: .onnx with .onnx.json beside it.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".wav or .flac file, or - (16-bit samples).")],
    text: Annotated[str | None, typer.Option(help="What to say, by the package piper-tts.")] = None,
    ids: Annotated[str | None, typer.Option(help="Phoneme ids of one sentence, in the place of a text.")] = None,
    speaker: Annotated[str | None, typer.Option(help="Number or name, for a voice with several speakers.")] = None,
    noise_scale: Annotated[float | None, typer.Option(help="How much the sound varies; the voice's own.")] = None,
    length_scale: Annotated[float | None, typer.Option(help="How slowly it speaks; the voice's own, mostly 1.")] = None,
    noise_w: Annotated[float | None, typer.Option(help="How much the lengths vary; the voice's own.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Where the noise begins: the same sound again.")] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Frames of sound to make at a time, for -.")] = 8,
    dtype: Annotated[Precision, typer.Option(help="Type of the decoder's weights and activations.")] = Precision.fp32,
    backend: Annotated[str | None, typer.Option(help="Force torch, cpp, triton or cuda; best by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    float32: Annotated[bool, typer.Option("--float", help="Write 32-bit float, not 16-bit, samples.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Speak with a Piper voice: onnxruntime runs the front of its file, fastvoc the decoder.

    Without --text and --ids the text is read from standard input, line by line. To - samples go as they are made.

    Example: fastvoc speak voice.onnx out.wav --text "Good morning."

    Example: fastvoc speak voice.onnx - --ids "1 0 20 0 31 0 2" | aplay -f S16_LE -r 22050
    """
    from fastvoc.piper import load
    from fastvoc.runtime.threads import set_num_threads

    if text is not None and ids is not None:
        raise ArgumentError("--text, --ids: expected one of them, got both")
    output = output_path(voice, target, (".wav", ".flac"), force=force)
    if float32 and (output is None or output.suffix.lower() == ".flac"):
        raise ArgumentError(f"--float: only for a .wav file, got {target}")
    if threads is not None:
        set_num_threads(threads)
    numbers = None if ids is None else _numbers(ids)
    loaded = load(voice, dtype=dtype.value, backend=backend, seed=seed)
    how: dict[str, Any] = {"noise_scale": noise_scale, "length_scale": length_scale, "noise_w": noise_w}
    numbered = speaker is not None and speaker.isdecimal() and len(speaker) <= _MOST_DIGITS
    how["speaker"] = int(speaker) if speaker is not None and numbered else speaker
    if numbers is None:
        loaded.sentences("")  # what text needs is missing before any is waited for
    sentences = _sentences(loaded, _lines() if text is None else [text]) if numbers is None else iter([numbers])
    if output is None:
        _play(loaded, sentences, chunk, how)
    else:
        _write(loaded, sentences, output, how, float32=float32)


def _numbers(ids: str) -> list[int]:
    words = ids.replace(",", " ").split()
    if wrong := next((word for word in words if not word.isdecimal() or len(word) > _MOST_DIGITS), None):
        raise ArgumentError(f"--ids: expected whole numbers, got {shown(wrong)}")
    return [int(word) for word in words]


def _lines() -> Iterator[str]:
    """Standard input line by line."""
    try:
        for line in sys.stdin:
            line.encode()  # which finds what Python let through for the sake of file names
            yield line
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ArgumentError(f"standard input: expected text in {error.encoding} ({error.reason})") from None


def _sentences(voice: Voice, lines: Iterable[str]) -> Iterator[list[int]]:
    for line in lines:
        if line.strip():
            yield from voice.sentences(line)


def _play(voice: Voice, sentences: Iterator[list[int]], chunk: int, how: dict[str, Any]) -> None:
    """Samples to standard output, each piece when it is made."""
    from fastvoc.sound.pcm import encode_s16, write_now

    made, first, busy = 0, 0.0, 0.0
    for ids in sentences:
        start = perf_counter()
        for wav in voice.stream(ids, chunk_frames=chunk, **how):
            busy += perf_counter() - start
            first = first or busy
            made += len(wav)
            write_now(sys.stdout.buffer, encode_s16(wav.cpu()))
            start = perf_counter()
    if not made:
        raise ArgumentError(_NOTHING)
    _tell("standard output", voice, made, busy, f", first piece in {1000 * first:.1f} ms")


def _write(voice: Voice, sentences: Iterator[list[int]], output: Path, how: dict[str, Any], *, float32: bool) -> None:
    import torch

    from fastvoc.sound.audio import write_audio

    start = perf_counter()
    wavs = [voice(ids, **how).cpu() for ids in sentences]
    if not wavs:
        raise ArgumentError(_NOTHING)
    wav, seconds = torch.cat(wavs), perf_counter() - start
    write_audio(output, wav, voice.sample_rate, float32=float32)
    _tell(str(output), voice, len(wav), seconds, "")


def _tell(where: str, voice: Voice, made: int, busy: float, more: str) -> None:
    seconds = made / voice.sample_rate
    speed = seconds / busy if busy else 0.0
    typer.echo(f"{where}: {seconds:.2f} s of speech, {speed:.1f} times real time{more}", err=True)
