"""`fastvoc encode` and `decode` for codecs without a format of their own: live, holding no more than the codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import typer
from torch import Tensor

from fastvoc.cli.pieces import incoming, progress, standard_output
from fastvoc.cli.synthesis import speed
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DecodeError
from fastvoc.sound.blocks import write_blocks
from fastvoc.sound.code_file import CodeFile, write_codes

# Frames that are decoded at a time.
_TOGETHER = 128


def encode_codes(codec: Codec, source: str, output: Path | None, codebooks: int | None) -> None:
    """Sound to a file of codes, all codebooks when None. Raises ArgumentError for standard output."""
    if output is None:
        raise ArgumentError("OUT: expected a file that ends in .safetensors, codes do not go to standard output")
    start, count = perf_counter(), codec.config.n_q if codebooks is None else codebooks
    live = codec.encoding(codebooks=count).stream()
    with ExitStack() as stack:
        sound, pieces = incoming(stack, source, codec.sample_rate, lambda _: codec.channels)
        length = None if sound.samples is None else sound.samples / sound.rate
        parts, samples = [], 0
        for wav in stack.enter_context(progress(pieces, "encode", codec.sample_rate, length)):
            parts.append(live.push(wav.to(codec.device)).cpu())
            samples += wav.shape[1]
    codes = torch.cat([*parts, live.flush().cpu()], -1)
    size = write_codes(output, CodeFile(codes, codec.config.family, codec.sample_rate, samples, count))
    seconds = samples / codec.sample_rate
    what = f"{size} bytes, {size / 125 / seconds:.2f} kbit/s, {count} codebooks"
    typer.echo(f"{output}: {codec.config.family}, {what}; {speed(seconds, perf_counter() - start)}", err=True)


def decode_codes(codec: Codec, file: CodeFile, source: str, output: Path | None, *, float32: bool) -> None:
    """What was read from `source` to sound. Raises ArgumentError for codes of another codec, DecodeError for others."""
    if (codec.config.family, codec.sample_rate) != (file.family, file.sample_rate):
        made, got = f"{file.family} at {file.sample_rate} Hz", f"{codec.config.family} at {codec.sample_rate} Hz"
        raise ArgumentError(f"--model: {source} was made by {made}, this is {got}")
    frames = codec.config.frames(file.samples)
    if frames != [file.codes.shape[1]]:
        raise DecodeError(
            f"{source}: {file.codes.shape[1]} frames of codes, its {file.samples} samples make {frames[0]}"
        )
    start, live = perf_counter(), codec.decoding(file.codebooks).stream()
    left = file.samples
    with ExitStack() as stack:
        place: Any = standard_output() if output is None else output
        write = stack.enter_context(write_blocks(place, codec.sample_rate, codec.channels, left, float32=float32))

        def pieces() -> Iterator[Tensor]:
            for part in file.codes.split(_TOGETHER, 1):
                yield live.push(part.to(codec.device)).cpu()
            yield live.flush().cpu()

        length = file.samples / codec.sample_rate
        for wav in stack.enter_context(progress(pieces(), "decode", codec.sample_rate, length)):
            write(wav[:, :left])
            left -= min(left, wav.shape[1])
        if output is None:
            place.flush()
    where = "standard output" if output is None else output
    typer.echo(f"{where}: {speed(length, perf_counter() - start)}", err=True)
