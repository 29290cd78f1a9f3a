"""Whole models (mel, audio or codes in, samples or codes out), every implementation in turn, and their rivals.

python benchmarks/models.py                          # all of them: 0.1 s, 1 s and 10 s of audio, 2 threads
python benchmarks/models.py --models v2 --seconds 10 --threads 1 --write
python benchmarks/models.py --rivals --dtype fp32 bf16 --batch 1 8 --write
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import harness
import rivals
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from zoo import ZOO, Entry

from fastvoc.errors import FastvocError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def call(entry: Entry, model: nn.Module, inputs: tuple[Any, ...], impl: str) -> Any:
    with torch.inference_mode():
        return entry.run(model, *inputs, backend=impl)


def refusal(run: Callable[[], Any]) -> str | None:
    """Why one of our own implementations does not take a call."""
    try:
        run()
    except FastvocError as error:
        return str(error).splitlines()[0][:200]
    return None


def measure(name: str, audio: float, batch: int, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """One model at one length: milliseconds, times real time and speed-up of every candidate over the first."""
    entry, device = ZOO[name], args.device
    model = entry.model(device, DTYPES[dtype])
    inputs = tuple(
        x.to(device, DTYPES[dtype]) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for x in entry.inputs(model, audio, batch)
    )
    runs: dict[str, Callable[[], Any]] = {impl: partial(call, entry, model, inputs, impl) for impl in args.impl}
    failed: dict[str, str] = {}
    for impl in args.impl:
        if (problem := refusal(runs[impl])) is not None:
            failed[impl] = problem
            del runs[impl]
    if args.rivals:
        exported = entry.model() if dtype == "bf16" else model
        for rival in rivals.RIVALS if dtype == "fp32" else rivals.BF16:
            if rival in runs:
                continue
            own = model if rival in ("torch", "compile") else exported
            made = rivals.prepare(rival, entry, own, inputs, DTYPES[dtype], args.threads)
            if isinstance(made, rivals.Failed):
                failed[rival] = made.error
            else:
                runs[rival] = made
    times = harness.interleaved(runs, args.budget)
    rows = harness.summary(times, next(iter(runs)))
    for row in rows.values():
        row["real_time"] = batch * entry.seconds(audio) / row["median_s"]
    result = {"model": name, "seconds": audio, "batch": batch, "dtype": dtype, "impls": rows, "failed": failed}
    if args.rivals and "cpp" in runs:
        over = {r: harness.ratio(times[r], times["cpp"]) for r in rivals.RIVALS if r in runs}
        result["over"] = over
        result["over_best"] = min(over.values(), default=None)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.1, 1.0, 10.0], help="audio per item")
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32"])
    parser.add_argument("--rivals", action="store_true", help="torch eager and compiled, onnxruntime, OpenVINO")
    harness.add_arguments(parser, budget=8.0)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    table = Table("model", "audio s", "batch", "dtype", "impl", "median ms", "x real time", "x the first (quartiles)")
    rows = []
    for name, dtype, batch, audio in (
        (n, d, b, a) for n in args.models for d in args.dtype for b in args.batch for a in args.seconds
    ):
        row = measure(name, audio, batch, dtype, args)
        rows.append(row)
        for impl, r in row["impls"].items():
            gain = f"{r['speedup']:.2f} ({r['speedup_low']:.2f}-{r['speedup_high']:.2f})"
            figures = f"{1e3 * r['median_s']:.2f}", f"{r['real_time']:.1f}", gain
            table.add_row(name, str(audio), str(batch), dtype, impl, *figures)
        for impl, error in row["failed"].items():
            table.add_row(name, str(audio), str(batch), dtype, impl, "-", "-", error[:60])
        if row.get("over_best"):
            table.add_row("", "", "", "", "cpp over the best rival", "", "", f"{row['over_best']:.2f}")
    console = Console()
    console.print(table)
    if args.write:
        console.print(f"written: {harness.write('rivals' if args.rivals else 'models', args.device, rows)}")


if __name__ == "__main__":
    main()
