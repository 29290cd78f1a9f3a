"""Whole models (mel, audio or codes in, samples or codes out), every implementation in turn.

python benchmarks/models.py                          # all of them: 0.1 s, 1 s and 10 s of audio, 2 threads
python benchmarks/models.py --models v2 --seconds 10 --threads 1 --write
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import harness
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from zoo import ZOO, Entry


def call(entry: Entry, model: nn.Module, inputs: tuple[Any, ...], impl: str) -> Any:
    with torch.inference_mode():
        return entry.run(model, *inputs, backend=impl)


def measure(name: str, audio: float, batch: int, impls: list[str], device: str, budget: float) -> dict[str, Any]:
    """One model at one length: milliseconds, times real time and speed-up of every implementation over the first."""
    entry = ZOO[name]
    model = entry.model(device)
    inputs = tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in entry.inputs(model, audio, batch))
    runs: dict[str, Callable[[], Any]] = {impl: partial(call, entry, model, inputs, impl) for impl in impls}
    rows = harness.summary(harness.interleaved(runs, budget), impls[0])
    for row in rows.values():
        row["real_time"] = batch * entry.seconds(audio) / row["median_s"]
    return {"model": name, "seconds": audio, "batch": batch, "dtype": "float32", "impls": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.1, 1.0, 10.0], help="audio per item")
    parser.add_argument("--batch", type=int, default=1)
    harness.add_arguments(parser, budget=8.0)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    table = Table("model", "audio s", "batch", "impl", "median ms", "x real time", f"x {args.impl[0]} (quartiles)")
    rows = []
    for name in args.models:
        for audio in args.seconds:
            row = measure(name, audio, args.batch, args.impl, args.device, args.budget)
            rows.append(row)
            for impl, r in row["impls"].items():
                gain = f"{r['speedup']:.2f} ({r['speedup_low']:.2f}-{r['speedup_high']:.2f})"
                figures = f"{1e3 * r['median_s']:.2f}", f"{r['real_time']:.1f}", gain
                table.add_row(name, str(audio), str(args.batch), impl, *figures)
    console = Console()
    console.print(table)
    if args.write:
        console.print(f"written: {harness.write('models', args.device, rows)}")


if __name__ == "__main__":
    main()
