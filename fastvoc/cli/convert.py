"""`fastvoc convert`: a checkpoint of any known dialect becomes one safetensors file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fastvoc.errors import ArgumentError


class Precision(str, Enum):
    """Storage type of the converted tensors."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="File, folder, hub id or name of a model.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    dtype: Annotated[Precision, typer.Option(help="Storage type of the tensors.")] = Precision.fp32,
    int8: Annotated[bool, typer.Option("--int8", help="Make an int8 model; wants --calibrate.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Audio or mel file, or a folder of them, whose like the model will get."),
    ] = None,
    least_db: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Decibels that an int8 model stays from float32; 32 by default."),
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(metavar="HZ", help="The rate of a model whose files do not say it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a checkpoint to one safetensors file with its configuration inside.

    Example: fastvoc convert LJ_V1/generator_v1 hifigan_v1.safetensors --dtype fp16
    Example: fastvoc convert LJ_V1/generator_v1 hifigan_v1_int8.safetensors --int8 --calibrate recordings
    """
    from rich.console import Console
    from rich.table import Table

    from fastvoc.checkpoints.int8_state import int8_note
    from fastvoc.checkpoints.origins import warn_assumed, with_given
    from fastvoc.loading import read_checkpoint, save

    if target.suffix != ".safetensors":
        raise ArgumentError(f"OUT: expected a name that ends in .safetensors, got {target.name!r}")
    if target.exists() and not force:
        raise ArgumentError(f"OUT: {target} exists; --force replaces it")
    if not target.parent.is_dir():
        raise ArgumentError(f"OUT: the folder {target.parent} does not exist")
    if int8 != (calibrate is not None):
        raise ArgumentError("--int8 wants --calibrate with real inputs, and --calibrate is for --int8")
    if int8 and dtype is not Precision.fp32:
        raise ArgumentError(f"--dtype: an int8 model is stored in int8 and fp32, got {dtype.value}")
    if least_db is not None and not int8:
        raise ArgumentError("--least-db is for --int8")
    console = Console(stderr=True)
    with console.status(f"Reading {source}"):
        checkpoint = with_given(read_checkpoint(source), sample_rate)
    warn_assumed(source, checkpoint, stacklevel=1)
    if calibrate is not None:
        from fastvoc.cli.calibration import calibrated

        checkpoint = calibrated(checkpoint, calibrate, least_db, console)
    with console.status(f"Writing {target}"):
        save(checkpoint, target, dtype=dtype.value)
    config = checkpoint.config
    table = Table(show_header=False, box=None)
    table.add_row("dialect", checkpoint.format)
    hop = f", hop {config.hop}" if hasattr(config, "hop") else ""
    table.add_row("model", f"{config.family}, {config.sample_rate} Hz{hop}")
    if hasattr(config, "mel"):
        absent = "none, the input is a latent" if getattr(config, "latent", False) else "not known"
        table.add_row("mel front end", f"{config.num_mels} bands" if config.mel else absent)
    count = sum(tensor.numel() for tensor in checkpoint.state.values())
    table.add_row("parameters", f"{count / 1e6:.2f} million in {len(checkpoint.state)} tensors")
    if checkpoint.quantization is not None:
        table.add_row("int8", int8_note(checkpoint))
    stored = checkpoint.quantization or dtype.value
    table.add_row("written", f"{target} ({target.stat().st_size / 1e6:.1f} MB, {stored})")
    console.print(table)
