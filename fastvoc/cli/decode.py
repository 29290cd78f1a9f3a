"""`fastvoc decode`: an .ecdc stream, a .dac file or a file of codes in, sound out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastvoc.errors import ArgumentError

if TYPE_CHECKING:
    from fastvoc.ecdc import Header


def decode(
    source: Annotated[str, typer.Argument(metavar="IN", help=".ecdc, .dac or .safetensors file, or - (.ecdc, .dac).")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".wav or .flac file, folder, or - (WAV).")],
    model: Annotated[
        str | None, typer.Option(help="Codec: name, file, folder or hub id; the stream says which by default.")
    ] = None,
    lm_model: Annotated[
        Path | None, typer.Option(help="File of the language model; the published one by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:1.")] = "cpu",
    backend: Annotated[str | None, typer.Option(help="Force torch, cpp, triton or cuda; best by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    float32: Annotated[bool, typer.Option("--float", help="Write 32-bit float, not 16-bit, samples.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Make sound of an .ecdc stream, the encodec package's or fastvoc's variant of it, or of a .dac file.

    A .safetensors file of codes says which kind of codec made it.

    Memory does not grow with the length of the stream, but for the codes of one that the encodec package coded with its
    24 kHz language model. Such streams are tried as made on 1 to 16 threads.

    Example: fastvoc decode in.ecdc out.wav

    Example: fastvoc decode in.ecdc - | aplay

    Example: fastvoc decode speech.dac speech.wav --model path/to/weights_24khz.pth

    Example: fastvoc decode codes.safetensors speech.wav --model mimi
    """
    from fastvoc.cli.codes import decode_codes
    from fastvoc.cli.dac import decode_dac, is_dac
    from fastvoc.cli.output import output_path
    from fastvoc.cli.pieces import (
        check_input,
        language_model_folder,
        progress,
        standard_input,
        standard_output,
    )
    from fastvoc.cli.synthesis import speed
    from fastvoc.codec import Codec
    from fastvoc.compression import MODELS, decode_stream, load_language_model
    from fastvoc.ecdc import Reader
    from fastvoc.loading import load
    from fastvoc.models.encodec_lm import FloatLm
    from fastvoc.runtime.threads import set_num_threads
    from fastvoc.sound.blocks import write_blocks
    from fastvoc.sound.code_file import SUFFIX, read_codes

    check_input(source)
    output = output_path(source, target, (".wav",) if float32 else (".wav", ".flac"), force=force)
    if threads is not None:
        set_num_threads(threads)
    if source.lower().endswith(SUFFIX):
        if lm_model is not None:
            raise ArgumentError(f"--lm-model: of .ecdc streams, not of {SUFFIX} files")
        codes = read_codes(Path(source))
        codec = load(codes.family if model is None else model, device=device, backend=backend)
        if not isinstance(codec, Codec):
            raise ArgumentError(f"--model: {model or codes.family} is no codec")
        decode_codes(codec, codes, source, output, float32=float32)
        return
    with ExitStack() as stack:
        file = standard_input() if source == "-" else stack.enter_context(Path(source).open("rb"))
        if is_dac(file):
            if lm_model is not None:
                raise ArgumentError("--lm-model: of .ecdc streams, not of .dac files")
            codec = load(model or "dac", device=device, backend=backend)
            if not isinstance(codec, Codec):
                raise ArgumentError(f"--model: {model} is no codec")
            decode_dac(codec, file, source, output, float32=float32)
            return
        reader = Reader(file)
        header = reader.header
        name = "standard input" if source == "-" else source
        typer.echo(f"{name}: {_described(header)}", err=True)
        codec = load(model or MODELS[header.model], device=device, backend=backend)
        if not isinstance(codec, Codec):
            raise ArgumentError(f"--model: {model} is no codec")
        coder: Any = None
        if header.lm:
            folder = language_model_folder(model) if model else None
            coder = load_language_model(lm_model or header.model, integer=bool(header.fingerprint), folder=folder)
        start, rate = perf_counter(), codec.sample_rate
        length = None if header.samples is None else header.samples / rate
        pieces = stack.enter_context(progress(decode_stream(reader, codec, coder), "decode", rate, length))
        place: Any = standard_output() if output is None else output
        write = stack.enter_context(write_blocks(place, rate, codec.channels, header.samples, float32=float32))
        samples = 0
        for wav in pieces:
            write(wav)
            samples += wav.shape[1]
        if isinstance(reader.lm, FloatLm) and reader.lm.threads > 1:
            typer.echo(f"{name}: its language model ran on {reader.lm.threads} threads when it was made", err=True)
        if output is None:
            place.flush()
    where = "standard output" if output is None else output
    typer.echo(f"{where}: {speed(samples / rate, perf_counter() - start)}", err=True)


def _described(header: Header) -> str:
    """What a stream is, in words."""
    kilobits = header.codebooks * header.layout.frame_rate / 100
    parts = [header.model, f"{kilobits:g} kbit/s in {header.codebooks} codebooks"]
    if header.samples is not None:
        parts.append(f"{header.samples / header.layout.sample_rate:.2f} s")
    if header.lm:
        parts.append("coded with the language model")
    if header.version:
        parts.append("fastvoc's variant of the format")
    return ", ".join(parts)
