"""One page of what was measured, with plots, that needs nothing else: no script, no style sheet, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from fastvoc.bench.benchmark import Report, StreamTime
from fastvoc.bench.roofline import Ceilings, Error, LayerTime
from fastvoc.bench.svg import Axis, Series, bars, plot

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #1a202c }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1.5em }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif } text { fill: #1a202c }
.grid { stroke: #cbd5e0; stroke-width: 0.6 } table { border-collapse: collapse } td, th { padding: 2px 10px }
td { text-align: right } th, td:first-child { text-align: left }
@media (prefers-color-scheme: dark) { body { background: #171923; color: #e2e8f0 } text { fill: #e2e8f0 }
.grid { stroke: #4a5568 } }
"""


def page(
    name: str,
    report: Report,
    streams: Sequence[StreamTime],
    layers: Sequence[LayerTime],
    most: Ceilings,
    errors: Sequence[Error],
) -> str:
    """The HTML of a report: speed by length, streams by chunk, layers against the roofline, precision, and tables.

    streams: one of each size of chunk; layers and most: of one call; errors: against float64.
    """
    machine = report.machine
    facts = f"{report.kind}, {report.dtype}, {machine['processor']}, {machine['threads']} threads, "
    facts += f"fastvoc {machine.get('fastvoc', '')}, torch {machine['torch']}, instruction set {machine['isa']}"
    sections = [
        ("Speed by length", _speed(report), _call_table(report)),
        ("Streams by chunk", _streams(streams), _stream_table(streams)),
        ("Layers against the roofline", _roofline(layers, most), _layer_table(layers, most)),
        ("Precision", _precision(errors), _error_table(errors)),
    ]
    body = "\n".join(f"<section><h2>{title}</h2>\n{figure}\n{table}</section>" for title, figure, table in sections)
    memory = f"weights {report.weights_mb:.0f} MB, most that the process held {report.peak_mb:.0f} MB"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: fastvoc bench</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(name)}</h1>\n<p>{escape(facts)}; {memory}</p>\n"
        f"<main>\n{body}\n</main></body></html>\n"
    )


def _speed(report: Report) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for call in report.calls:
        found.setdefault(f"{call.name}, batch {call.batch}", []).append((call.seconds, call.real_time))
        if call.torch_s is not None:
            times = call.batch * call.seconds / call.torch_s
            found.setdefault(f"{call.name}, batch {call.batch}, torch", []).append((call.seconds, times))
    series = [Series(name, sorted(points)) for name, points in found.items()]
    return plot(series, Axis("seconds of audio", log=True), Axis("times real time", log=True))


def _streams(streams: Sequence[StreamTime]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for one in streams:
        found.setdefault(f"{one.name}: first sound", []).append((one.chunk_ms, 1e3 * one.first_s))
        found.setdefault(f"{one.name}: each chunk", []).append((one.chunk_ms, 1e3 * one.median_s))
    series = [Series(name, sorted(points)) for name, points in found.items()]
    return plot(series, Axis("ms of a chunk", log=True), Axis("ms of work", log=True))


def _roofline(layers: Sequence[LayerTime], most: Ceilings) -> str:
    found: dict[str, list[LayerTime]] = {}
    for layer in layers:
        if layer.flops and layer.seconds:
            found.setdefault(f"{layer.op}, {layer.impl}", []).append(layer)
    intensities = [layer.flops / layer.bytes for own in found.values() for layer in own] or [1.0]
    edges = sorted({min(intensities) / 2, most.flops / most.bytes, 2 * max(intensities)})
    roof = Series("this machine", [(x, min(most.flops, most.bytes * x) / 1e9) for x in edges])
    series = [roof] + [
        Series(
            name,
            [(layer.flops / layer.bytes, layer.flops / layer.seconds / 1e9) for layer in own],
            line=False,
            labels=[f"{layer.layer}: {1e3 * layer.seconds:.3f} ms" for layer in own],
        )
        for name, own in found.items()
    ]
    return plot(series, Axis("operations a byte", log=True), Axis("10^9 operations a second", log=True))


def _precision(errors: Sequence[Error]) -> str:
    if not errors:
        return "<p>An int8 model has no weights in float64 to compare with.</p>"
    return bars([(e.name, _decibels(e)) for e in errors], Axis("dB below the signal"))


def _decibels(error: Error) -> float:
    return -20 * math.log10(max(error.relative_l2, 1e-16))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _call_table(report: Report) -> str:
    rows = [
        [
            c.name,
            f"{c.seconds:.2f}",
            str(c.batch),
            f"{1e3 * c.median_s:.2f}",
            f"{1e3 * c.p95_s:.2f}",
            f"{c.real_time:.1f}",
        ]
        for c in report.calls
    ]
    return _table(["call", "seconds", "batch", "ms", "p95 ms", "x real time"], rows)


def _stream_table(streams: Sequence[StreamTime]) -> str:
    rows = [
        [
            s.name,
            str(s.chunk),
            f"{s.chunk_ms:.1f}",
            f"{1e3 * s.first_s:.2f}",
            f"{1e3 * s.median_s:.2f}",
            "" if s.latency_ms is None else f"{s.latency_ms:.1f}",
        ]
        for s in streams
    ]
    return _table(["stream", "frames", "ms", "first ms", "each ms", "behind its input, ms"], rows)


def _layer_table(layers: Sequence[LayerTime], most: Ceilings) -> str:
    rows = []
    for layer in layers:
        bound = max(layer.flops / most.flops, layer.bytes / most.bytes)
        part = f"{100 * bound / layer.seconds:.0f}" if layer.seconds else ""
        rows.append([layer.layer, layer.op, layer.impl, f"{1e3 * layer.seconds:.3f}", part])
    return _table(["layer", "op", "by", "ms", "% of the roofline"], rows)


def _error_table(errors: Sequence[Error]) -> str:
    return _table(["run", "relative L2 against float64"], [[e.name, f"{e.relative_l2:.2e}"] for e in errors])
