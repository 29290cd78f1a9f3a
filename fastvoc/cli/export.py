"""`fastvoc export`: a vocoder, or a codec's decoder, becomes an ONNX file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Runtime(str, Enum):
    """Runtimes that ask for more than an ONNX file."""

    sherpa_onnx = "sherpa-onnx"


class Weights(str, Enum):
    """How the file stores large weights."""

    fp32 = "fp32"
    fp16 = "fp16"


def export(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="File, folder, hub id or name of a model.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .onnx file to write.")],
    runtime: Annotated[Runtime | None, typer.Option("--for", help="Write what this runtime asks of a vocoder.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME", help="Take f0, phase, noise, source or har from outside; once for each name."
        ),
    ] = None,
    dtype: Annotated[Weights, typer.Option(help="Storage type of large weights.")] = Weights.fp32,
    seed: Annotated[int, typer.Option(min=0, max=1 << 23, help="Seed of the noise that the runtime draws.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a vocoder, or a codec's decoder, to an ONNX file that runs without torch and fastvoc.

    Example: fastvoc export hifigan voice.onnx
    Example: fastvoc export hifigan voice.onnx --for sherpa-onnx
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from fastvoc.cli.output import check_file
    from fastvoc.exporting.export import export as write
    from fastvoc.loading import load

    check_file("OUT", target, (".onnx",), force=force)
    console = Console(stderr=True)
    with console.status(f"Reading {source}"):
        model = load(source, backend="torch")
    chosen = inputs or []
    with console.status(f"Writing {target}"):
        wanted = None if runtime is None else runtime.value
        write(model, target, inputs=chosen, runtime=wanted, dtype=dtype.value, seed=seed)
    table = Table(show_header=False, box=None)
    table.add_row("model", f"{model.config.family}, {model.sample_rate} Hz, hop {model.hop}")
    for name, given in model.model.written(chosen).inputs.items():
        axes = ", ".join(map(str, given.axes))
        table.add_row("input", escape(f"{name} [{axes}]") + (" int64" if given.whole else ""))
    table.add_row("written", f"{target} ({target.stat().st_size / 1e6:.1f} MB, {dtype.value})")
    console.print(table)
