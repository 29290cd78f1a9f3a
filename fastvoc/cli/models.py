"""`fastvoc models`: what can be loaded by name."""

from __future__ import annotations


def models() -> None:
    """List the models that can be loaded by name.

    Example: fastvoc models
    """
    from rich.console import Console
    from rich.table import Table

    from fastvoc.loading import list_models

    table = Table("name", "family", "rate", "where", "licence", title="Models")
    for model in list_models():
        where = model.where if model.where == "embedded" else "hub, cached" if model.cached else "hub, not cached"
        table.add_row(model.name, model.family, f"{model.sample_rate} Hz", where, model.licence)
    console = Console()
    console.print(table)
    console.print("Any hub id, folder or weights file of a known dialect loads, too.")
