"""`fastvoc encode`: sound in, an .ecdc stream, a .dac file or a file of codes out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from fastvoc.errors import ArgumentError


def encode(
    source: Annotated[str, typer.Argument(metavar="IN", help="Audio file, or - for standard input.")],
    target: Annotated[
        str, typer.Argument(metavar="OUT", help=".ecdc, .dac or .safetensors file, folder, or - (.ecdc).")
    ],
    bandwidth: Annotated[
        float | None, typer.Option(help="In kbit/s; of EnCodec 1.5 (at 24 kHz), 3, 6, 12 or 24, and 6 by default.")
    ] = None,
    codebooks: Annotated[
        int | None, typer.Option(help="So many codebooks, in the place of --bandwidth; all but of EnCodec by default.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Codec: name, file, folder or hub id; encodec, dac or mimi by OUT's ending by default."),
    ] = None,
    lm: Annotated[bool, typer.Option("--lm", help="Make it smaller with the language model.")] = False,
    lm_model: Annotated[
        Path | None, typer.Option(help="File of the language model; the published one by default.")
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="With --lm: the original's format, which only like machines decode.")
    ] = False,
    portable: Annotated[
        bool, typer.Option("--portable", help="fastvoc's variant of the format, with checksums; --lm implies it.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:1.")] = "cpu",
    backend: Annotated[str | None, typer.Option(help="Force torch, cpp, triton or cuda; best by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Compress sound, of any rate and number of channels, into an .ecdc stream of EnCodec or a .dac file of DAC.

    Codes of Mimi and SNAC, which have no format of their own, go into a .safetensors file: the tensor "codes" [K, T].

    Without --lm and --portable the stream is that of the encodec package, byte for byte. Memory does not grow with the
    length of the sound, but for a .dac file, whose sound is brought to one loudness first.

    Example: fastvoc encode in.wav out.ecdc --bandwidth 6

    Example: fastvoc encode music.flac music.ecdc --model facebook/encodec_48khz --bandwidth 12 --lm

    Example: fastvoc encode speech.wav speech.dac

    Example: fastvoc encode speech.wav codes.safetensors --model mimi --codebooks 8

    Example: sox in.mp3 -t wav - | fastvoc encode - - --portable | ssh host fastvoc decode - out.wav
    """
    from fastvoc.cli.codes import encode_codes
    from fastvoc.cli.dac import encode_dac
    from fastvoc.cli.output import check_file, output_path
    from fastvoc.cli.pieces import (
        Counted,
        check_input,
        incoming,
        language_model_folder,
        progress,
        standard_output,
    )
    from fastvoc.cli.synthesis import speed
    from fastvoc.codec import Codec
    from fastvoc.compression import encode_stream, load_language_model, stream_name
    from fastvoc.loading import load
    from fastvoc.models.dac import Dac
    from fastvoc.runtime.io import atomic_path
    from fastvoc.runtime.threads import set_num_threads
    from fastvoc.sound.code_file import SUFFIX

    if original and (portable or not lm):
        raise ArgumentError("--original: goes with --lm, and not with --portable")
    if lm_model is not None and not lm:
        raise ArgumentError("--lm-model: goes with --lm")
    check_input(source)
    output = output_path(source, target, (".ecdc", ".dac", SUFFIX), force=force)
    if model is None:
        ending = "" if output is None else output.suffix.lower()
        model = {".dac": "dac", SUFFIX: "mimi"}.get(ending, "encodec")
    if threads is not None:
        set_num_threads(threads)
    codec = load(model, device=device, backend=backend)
    if not isinstance(codec, Codec):
        raise ArgumentError(f"--model: {model} is no codec")
    if isinstance(codec.model, Dac):
        if lm or original or portable:
            raise ArgumentError("--lm, --original, --portable: of .ecdc streams, not of .dac files")
        if output is not None and Path(target).is_dir():
            output = output.with_suffix(".dac")
        if output is not None:
            check_file("OUT", output, (".dac",), force=force)
        every = codec.config.n_q if bandwidth is None and codebooks is None else codebooks
        encode_dac(codec, source, output, codec.codebooks(bandwidth, every))
        return
    if codec.config.family in ("mimi", "snac"):
        if lm or original or portable:
            raise ArgumentError(f"--lm, --original, --portable: of .ecdc streams, not of {SUFFIX} files")
        if output is not None and Path(target).is_dir():
            output = output.with_suffix(SUFFIX)
        if output is not None:
            check_file("OUT", output, (SUFFIX,), force=force)
        every = codec.config.n_q if bandwidth is None and codebooks is None else codebooks
        encode_codes(codec, source, output, codec.codebooks(bandwidth, every))
        return
    if codebooks is not None:
        raise ArgumentError("--codebooks: .ecdc streams have those of a --bandwidth")
    if output is not None:
        check_file("OUT", output, (".ecdc",), force=force)
    name = stream_name(codec)
    bandwidth = 6.0 if bandwidth is None else bandwidth
    codec.check_bandwidth(bandwidth)
    coder: Any = None
    if lm:
        coder = load_language_model(lm_model or name, integer=not original, folder=language_model_folder(model))
    start = perf_counter()
    with ExitStack() as stack:
        sound, pieces = incoming(stack, source, codec.sample_rate, lambda _: codec.channels)
        length = None if sound.samples is None else sound.samples / sound.rate
        pieces = stack.enter_context(progress(pieces, "encode", codec.sample_rate, length))
        if output is None:
            file = Counted(standard_output())
        else:
            temporary = stack.enter_context(atomic_path(output))
            file = Counted(stack.enter_context(temporary.open("wb")))
        samples = encode_stream(codec, pieces, file, bandwidth, lm=coder, portable=portable)  # type: ignore[arg-type]
        file.flush()
    seconds = samples / codec.sample_rate
    size = f"{file.count} bytes, {file.count / 125 / seconds:.2f} kbit/s"
    where = "standard output" if output is None else output
    typer.echo(f"{where}: {name}, {size}; {speed(seconds, perf_counter() - start)}", err=True)
    if original:
        typer.echo("warning: only where the language model's numbers round as they do here can it be decoded", err=True)
