"""`.dac` files in `fastvoc encode` and `fastvoc decode`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import torch
import typer

from fastvoc.codec import Codec

_MAGIC = b"\x93NUMPY"


def is_dac(file: BinaryIO) -> bool:
    """Whether a .dac file begins here; nothing is taken from what cannot be looked into."""
    peek = getattr(file, "peek", None)
    if peek is not None:
        return bytes(peek(len(_MAGIC))[: len(_MAGIC)]) == _MAGIC
    if not file.seekable():
        return False
    at = file.tell()
    head = file.read(len(_MAGIC))
    file.seek(at)
    return head == _MAGIC


def encode_dac(codec: Codec, source: str, output: Path | None, codebooks: int) -> None:
    """Writes the sound of a file, or of standard input for -, to a .dac file, or to standard output for None."""
    from fastvoc.cli.pieces import Counted, incoming, standard_output
    from fastvoc.cli.synthesis import speed
    from fastvoc.dac_compression import compress_dac
    from fastvoc.runtime.io import atomic_path
    from fastvoc.sound.dac_file import write_dac

    start = perf_counter()
    with ExitStack() as stack:
        sound, pieces = incoming(stack, source, codec.sample_rate, lambda channels: 1 if channels > 2 else channels)
        wav = torch.cat(list(pieces), 1)
        made = compress_dac(codec, wav, codebooks, sample_rate=sound.rate, length=sound.samples)
        if output is None:
            file = Counted(standard_output())
        else:
            file = Counted(stack.enter_context(stack.enter_context(atomic_path(output)).open("wb")))
        write_dac(file, made)  # type: ignore[arg-type]  # what it needs of a file is `write`
        file.flush()
    seconds = wav.shape[1] / codec.sample_rate
    size = f"{file.count} bytes, {file.count / 125 / seconds:.2f} kbit/s"
    where = "standard output" if output is None else output
    typer.echo(f"{where}: DAC, {codebooks} codebooks, {size}; {speed(seconds, perf_counter() - start)}", err=True)


def decode_dac(codec: Codec, file: BinaryIO, source: str, output: Path | None, *, float32: bool) -> None:
    """Writes the sound of a .dac file to a file, or as WAV to standard output for None."""
    from fastvoc.cli.pieces import standard_output
    from fastvoc.cli.synthesis import speed
    from fastvoc.dac_compression import decompress_dac
    from fastvoc.sound.blocks import write_blocks
    from fastvoc.sound.dac_file import read_dac

    start = perf_counter()
    held = read_dac(file)
    seconds = held.original_length / held.sample_rate
    name = "standard input" if source == "-" else source
    typer.echo(f"{name}: DAC, {held.codes.shape[1]} codebooks, {seconds:.2f} s", err=True)
    wav, rate = decompress_dac(held, codec)
    place: Any = standard_output() if output is None else output
    with write_blocks(place, rate, len(wav), wav.shape[1], float32=float32) as write:
        write(wav)
    if output is None:
        place.flush()
    where = "standard output" if output is None else output
    typer.echo(f"{where}: {speed(seconds, perf_counter() - start)}", err=True)
