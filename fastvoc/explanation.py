"""Which implementation runs every layer of a model, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fastvoc.loaded import LoadedModel
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.nn.prepared import Prepared
from fastvoc.runtime import choice
from fastvoc.runtime.registry import Verdict


class HasLayers(Protocol):
    """A model that can name its layers."""

    def layers(self) -> dict[str, Prepared]: ...


@dataclass(frozen=True)
class LayerChoice:
    """One layer: its op, what every implementation says of it, and whether it computes in int8.

    `form` says how it computes where that is not the usual way: "int8"; of a bfloat16 `mrf` on the CPU "short tiles" or
    "direct", where longer tiles of Toom-Cook would cost precision. `by_size`: on a CUDA device what its table says of
    the layer at each size of a call, and what runs there.
    """

    layer: str
    op: str
    verdicts: tuple[Verdict, ...]
    int8: bool = False
    form: str = ""
    by_size: tuple[tuple[choice.Row, str], ...] = ()

    @property
    def title(self) -> str:
        """The op and its form."""
        return f"{self.op} {self.form}".strip()

    @property
    def chosen(self) -> str | None:
        """The implementation that runs, None when the forced one refuses."""
        return next((v.impl for v in self.verdicts if v.chosen), None)


@dataclass(frozen=True)
class Explanation:
    """The choice of every layer, and what differs from what `load` was asked for; prints as a table."""

    layers: tuple[LayerChoice, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[LayerChoice]:
        return iter(self.layers)

    def __str__(self) -> str:
        lines = list(self.notes)
        layer = max((len(row.layer) for row in self.layers), default=0)
        op = max((len(row.title) for row in self.layers), default=0)
        for row in self.layers:
            others = "; ".join(f"{v.impl}: {v.reason}" for v in row.verdicts if v.reason)
            sizes = ", ".join(f"{impl} at {times.size} ({times.said(impl)})" for times, impl in row.by_size)
            said = "; ".join(filter(None, (sizes, others)))
            lines.append(f"{row.layer:<{layer}} {row.title:<{op}} {row.chosen or 'none':<7} {said}".rstrip())
        return "\n".join(lines)


def explain(model: HasLayers | None = None, backend: str | None = None) -> Explanation:
    """Says which implementation would run each layer now, and why not the others.

    Args:
        model: a model or what `fastvoc.load` returned; a small HiFi-GAN on the CPU when None.
        backend: as the `backend=` argument of a call.

    Raises:
        BackendError: an unknown backend in FASTVOC_BACKEND.
    """
    if model is None:
        model = HifiGan(HifiGanConfig(upsample_rates=(2,), upsample_kernel_sizes=(4,), upsample_initial_channel=8))
    rows = []
    for name, layer in model.layers().items():
        op, verdicts = layer.explain(backend)
        rows.append(LayerChoice(name, op, tuple(verdicts), layer.int8, layer.form, tuple(layer.by_size(backend))))
    notes = model.notes if isinstance(model, LoadedModel) else ()
    tables = {layer.weight().device: None for layer in model.layers().values()}
    chosen = [f"choice on {device}: {table.note}" for device in tables if (table := choice.of(device)) is not None]
    return Explanation(tuple(rows), (*notes, *chosen))
