"""`fastvoc bench`: how fast a model is on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastvoc import __version__
from fastvoc.cli.convert import Precision
from fastvoc.cli.output import check_file
from fastvoc.errors import ArgumentError

if TYPE_CHECKING:
    from fastvoc.bench.benchmark import Report
    from fastvoc.codec import Codec
    from fastvoc.vocoder import Vocoder


def bench(
    model: Annotated[str, typer.Argument(help="Name, file, folder or hub id of a model.")] = "hifigan",
    seconds: Annotated[str, typer.Option(help="Seconds of audio per item, such as 0.1,1,10.")] = "0.1,1,10",
    batch: Annotated[str, typer.Option(help="Items of a batch, such as 1,8.")] = "1",
    dtype: Annotated[Precision, typer.Option(help="Type of weights and activations.")] = Precision.fp32,
    backend: Annotated[str | None, typer.Option(help="Force torch, cpp, triton or cuda; best by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Frames of a stream's chunk.")] = 5,
    bandwidth: Annotated[float | None, typer.Option(help="kbit/s of a codec; its second lowest by default.")] = None,
    compare: Annotated[str | None, typer.Option(help="torch: also time the torch reference, in turn.")] = None,
    budget: Annotated[float, typer.Option(min=0.0, help="Seconds for one measurement.")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots: a file .html.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Measure a model on this machine: calls, streams, memory, and which implementation each op runs with.

    Example: fastvoc bench hifigan --seconds 1,10 --batch 1,8 --compare torch

    Example: fastvoc bench hifigan --html report.html
    """
    from fastvoc.bench.benchmark import measure
    from fastvoc.loading import load
    from fastvoc.runtime.threads import set_num_threads

    if html is not None:
        check_file("--html", html, (".html",), force=force)
    if compare not in (None, "torch"):
        raise ArgumentError(f"--compare: expected torch, got {compare!r}")
    lengths = [_number(text, "--seconds", float) for text in seconds.split(",")]
    sizes = [_number(text, "--batch", int) for text in batch.split(",")]
    if threads is not None:
        set_num_threads(threads)
    loaded = load(model, dtype=dtype.value, backend=backend, device=device)
    report = measure(
        loaded,
        lengths,
        sizes,
        compare=compare == "torch",
        chunk=chunk,
        bandwidth=bandwidth,
        budget=budget,
        progress=None if json or not sys.stderr.isatty() else lambda text: typer.echo(text, err=True),
    )
    report.machine["fastvoc"] = __version__
    if html is not None:
        _write_page(html, model, loaded, report, chunk, bandwidth, budget)
    if json:
        typer.echo(report.to_json())
    else:
        _show(model, report)


def _write_page(
    path: Path,
    name: str,
    loaded: Vocoder | Codec,
    report: Report,
    chunk: int,
    bandwidth: float | None,
    budget: float,
) -> None:
    from fastvoc.bench.benchmark import example_call, measure_streams
    from fastvoc.bench.report import page
    from fastvoc.bench.roofline import ceilings, errors, layer_times
    from fastvoc.runtime.io import atomic_path

    streams = list(report.streams)
    for size in sorted({1, 5, 25} - {chunk}) if streams else ():
        streams += measure_streams(loaded, size, bandwidth=bandwidth, budget=budget)
    layers = layer_times(loaded, example_call(loaded, 1.0, bandwidth))
    most = ceilings(loaded.device, loaded.input_dtype)
    text = page(name, report, streams, layers, most, errors(loaded))
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def _number(text: str, option: str, kind: Any) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e5:
        what = "whole numbers" if kind is int else "numbers"
        raise ArgumentError(f"{option}: expected {what} from above 0 to 100000 with commas between, got {text!r}")
    return value


def _show(name: str, report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    machine = report.machine
    console.print(f"{name}: {report.kind}, {report.dtype}, {machine['processor']}, {machine['threads']} threads")
    console.print(f"fastvoc {machine['fastvoc']}, torch {machine['torch']}, instruction set {machine['isa']}\n")
    compared = any(call.torch_s is not None for call in report.calls)
    titles = ["call", "seconds", "batch", "ms", "p95 ms", "x real time"] + (["x torch"] if compared else [])
    table = Table(*titles)
    for call in report.calls:
        row = [call.name, f"{call.seconds:.2f}", str(call.batch), f"{1e3 * call.median_s:.2f}"]
        row += [f"{1e3 * call.p95_s:.2f}", f"{call.real_time:.1f}"]
        if compared:
            row.append("-" if call.torch_s is None else f"{call.speedup:.2f}")
        table.add_row(*row)
    console.print(table)
    for stream in report.streams:
        latency = "" if stream.latency_ms is None else f"; it lies {stream.latency_ms:.1f} ms behind its input"
        console.print(
            f"{stream.name} by chunks of {stream.chunk} frames ({stream.chunk_ms:.1f} ms): first chunk"
            f" {1e3 * stream.first_s:.2f} ms, then {1e3 * stream.median_s:.2f} ms each,"
            f" {stream.real_time:.1f} x real time{latency}"
        )
    for impl, layers in report.layers.items():
        console.print(f"{impl}: {', '.join(f'{op} x {count}' for op, count in layers.items())}")
    console.print(f"memory: weights {report.weights_mb:.0f} MB, most that the process held {report.peak_mb:.0f} MB")
