"""`fastvoc models`: what can be loaded by name."""

from __future__ import annotations

import typer


def models() -> None:
    """List the models that can be loaded by name.

    Size and licence are what the hub told when a model was fetched, unknown before.

    Example: fastvoc models
    """
    from fastvoc.hub.download import ALIASES
    from fastvoc.loading import list_models

    rows = [("name", "family", "rate", "where", "size", "licence")]
    for model in list_models():
        where = model.where if model.where == "embedded" else "hub, cached" if model.cached else "hub, not cached"
        size = "unknown" if model.size is None else f"{model.size / 1e6:.1f} MB"
        rows.append((model.name, model.family, f"{model.sample_rate} Hz", where, size, model.licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for short, repo in ALIASES.items():
        typer.echo(f"{short}: short for {repo}")
    typer.echo("Any hub id, folder or weights file of a known dialect loads, too.")
