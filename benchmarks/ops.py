"""Single ops as the models of the zoo call them, every implementation in turn, with their arithmetic rate.

Layers of equal shapes are measured once.

python benchmarks/ops.py                  # all ops of all models
python benchmarks/ops.py mrf --models v1 --threads 1 --write
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import harness
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from zoo import ZOO

from fastvoc.nn.prepared import Prepared


@dataclass(frozen=True)
class Entry:
    """One layer of a model: its op, what it was called with, and its multiply-adds, 0 where they are not counted."""

    op: str
    layer: str
    run: Prepared
    x: Tensor
    args: tuple[Any, ...]
    macs: int


@contextmanager
def recorded() -> Iterator[dict[int, tuple[Tensor, tuple[Any, ...]]]]:
    """The first input of every layer that runs inside, by the layer's id."""
    calls: dict[int, tuple[Tensor, tuple[Any, ...]]] = {}
    run = Prepared.__call__

    def record(layer: Prepared, x: Tensor, *args: Any, backend: str | None = None) -> Any:
        calls.setdefault(id(layer), (x, args))
        return run(layer, x, *args, backend=backend)

    with mock.patch.object(Prepared, "__call__", record):
        yield calls


def multiply_adds(op: str, layer: Prepared, x: Tensor, args: tuple[Any, ...], y: Tensor) -> int:
    """Multiply-adds of one call: every weight once a step, and the filters of an anti-aliased activation."""
    if op == "snake_aa":
        return 24 * y.numel()
    if op == "lvc":
        kernels = args[0]
        return int(kernels.numel() // kernels.shape[-1] * x.shape[2])
    if op == "convnext_block":  # both pointwise layers
        return sum(sorted(t.numel() for t in layer.tensors())[-2:]) * x.shape[0] * x.shape[2]
    if op == "lstm":
        return sum(t.numel() for t in layer.tensors() if t.dim() == 2) * x.shape[0] * x.shape[2]
    if op == "conv2d":
        return layer.weight().numel() * x.shape[0] * x.shape[2] * x.shape[3]
    if op == "rvq_encode":
        return layer.tensors()[0].numel() * y.numel()
    if op not in ("conv1d", "mrf", "seanet_block", "upsample"):
        return 0
    if op == "upsample":
        return layer.weight().numel() * x.shape[0] * x.shape[2]
    return sum(t.numel() for t in layer.tensors() if t.dim() > 1) * x.shape[0] * y.shape[2]


def entries(models: list[str], audio: float, device: str) -> Iterator[Entry]:
    """Every layer of the models, with the input that `audio` seconds give it."""
    seen = set()
    for name in models:
        model = ZOO[name].model(device)
        inputs = [x.to(device) if isinstance(x, Tensor) else x for x in ZOO[name].inputs(model, audio, 1)]
        with torch.inference_mode(), recorded() as calls:
            ZOO[name].run(model, *inputs)
        for layer, prepared in model.layers().items():  # type: ignore[operator]
            if id(prepared) not in calls:
                continue
            x, args = calls[id(prepared)]
            op, _ = prepared.explain()
            key = (op, tuple(x.shape), *(tuple(t.shape) for t in prepared.tensors()))
            if key in seen:
                continue
            seen.add(key)
            with torch.inference_mode():
                y = prepared(x, *args)
            yield Entry(op, f"{name}.{layer}", prepared, x, args, multiply_adds(op, prepared, x, args, y))


def call(entry: Entry, impl: str) -> Any:
    with torch.inference_mode():
        return entry.run(entry.x, *entry.args, backend=impl)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help="names of ops, such as conv1d; all when left out")
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--seconds", type=float, default=1.0, help="audio per item")
    harness.add_arguments(parser, budget=1.0)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    table = Table("op", "layer", "impl", "median ms", "GFLOP/s", f"x {args.impl[0]}")
    rows: list[dict[str, Any]] = []
    for entry in entries(args.models, args.seconds, args.device):
        if args.ops and entry.op not in args.ops:
            continue
        runs: dict[str, Callable[[], Any]] = {impl: partial(call, entry, impl) for impl in args.impl}
        result = harness.summary(harness.interleaved(runs, args.budget), args.impl[0])
        for impl, r in result.items():
            r["gflops"] = 2e-9 * entry.macs / r["median_s"]
            rate = f"{r['gflops']:.0f}" if entry.macs else "-"
            figures = f"{1e3 * r['median_s']:.3f}", rate, f"{r['speedup']:.2f}"
            table.add_row(entry.op, entry.layer, impl, *figures)
        rows.append(
            {"op": entry.op, "layer": entry.layer, "seconds": args.seconds, "macs": entry.macs, "impls": result}
        )
    console = Console()
    console.print(table)
    if args.write:
        console.print(f"written: {harness.write('ops', args.device, rows)}")


if __name__ == "__main__":
    main()
