"""Whole models (mel, audio or codes in, samples or codes out), every implementation in turn, and their rivals.

python benchmarks/models.py                          # all of them: 0.1 s, 1 s and 10 s of audio, 2 threads
python benchmarks/models.py --models v2 --seconds 10 --threads 1 --write
python benchmarks/models.py --rivals --dtype fp32 bf16 --batch 1 8 --write --resume
python benchmarks/models.py --device cuda --impl torch triton graph --dtype bf16 --models v1
python benchmarks/models.py --device cuda --impl graph --rivals --dtype bf16 --models v1

On the CPU `--rivals` compares the models that have a bar, every contender in a process of its own to which the turns
are handed, and merges what it finds into the file as it goes; `--busy` does so beside a busy loop on every core;
`--prepare` only compiles what torch.compile keeps, so that the next run is shorter.
On CUDA `graph` runs the model by `fastvoc.Graphed`, `triton+graph` and `cuda+graph` with that implementation forced.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import duel
import harness
import rivals
import rivals_cuda
import torch
from table import Table
from torch import nn
from zoo import DTYPES, ZOO, Entry, placed, refusal


def call(entry: Entry, model: nn.Module, inputs: tuple[Any, ...], impl: str | None) -> Any:
    with torch.inference_mode():
        return entry.run(model, *inputs, backend=impl)


def candidate(entry: Entry, model: nn.Module, inputs: tuple[Any, ...], impl: str) -> Callable[[], Any]:
    """One of our own ways to run a model. Raises what its preparation raises."""
    backend, _, graph = impl.rpartition("+")
    if graph == "graph":
        return rivals_cuda.graphed(entry, model, inputs, backend or None)
    return partial(call, entry, model, inputs, impl)


def measure(name: str, audio: float, batch: int, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """One model at one length: milliseconds, times real time and speed-up of every candidate over the first."""
    entry, device = ZOO[name], args.device
    model = entry.model(device, DTYPES[dtype])
    inputs = placed(entry.inputs(model, audio, batch), device, DTYPES[dtype])
    runs: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    for impl in args.impl:

        def prepare(impl: str = impl) -> None:
            runs[impl] = candidate(entry, model, inputs, impl)
            runs[impl]()

        if (problem := refusal(prepare, device)) is not None:
            failed[impl] = problem
            runs.pop(impl, None)
    ours = list(runs)
    if args.rivals:
        for rival in args.only or rivals_cuda.RIVALS:
            made = rivals_cuda.prepare(rival, entry, model, inputs)
            if isinstance(made, rivals.Failed):
                failed[rival] = made.error
            else:
                runs[rival] = made
    result = {"model": name, "seconds": audio, "batch": batch, "dtype": dtype, "impls": {}, "failed": failed}
    if not runs:
        return result
    times = harness.interleaved(runs, args.budget, device=device)
    rows = harness.summary(times, next(iter(runs)))
    for row in rows.values():
        row["real_time"] = batch * entry.seconds(audio) / row["median_s"]
    result["impls"] = rows
    if args.rivals:
        of = rivals_cuda.RIVALS
        best = min((impl for impl in ours if impl not in of), key=lambda i: rows[i]["median_s"], default=None)
        over = {r: harness.ratio(times[r], times[best]) for r in of if r in runs and best is not None}
        result |= {"best": best, "over": over, "over_best": min(over.values(), default=None)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ZOO, help="all; with --rivals on the CPU those with a bar")
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.1, 1.0, 10.0], help="audio per item")
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--shapes", nargs="+", metavar="BxS", help="items x seconds, in place of --batch and --seconds")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32"])
    parser.add_argument(
        "--rivals",
        action="store_true",
        help="torch eager and compiled, onnxruntime, OpenVINO; on CUDA eager, graphed eager, compiled",
    )
    every = dict.fromkeys((*rivals.RIVALS, *rivals_cuda.RIVALS))
    parser.add_argument("--only", nargs="+", choices=every, help="of the rivals of the device")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for preparing a rival on the CPU")
    parser.add_argument("--busy", action="store_true", help="rivals on the CPU beside a busy loop on every core")
    parser.add_argument("--prepare", action="store_true", help="with --rivals on the CPU: compile, time nothing")
    parser.add_argument("--resume", action="store_true", help="leave out what the file has of this revision")
    harness.add_arguments(parser, budget=8.0)
    args = parser.parse_args()
    harness.check_device(args.device)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    shapes = [(b, a) for b in args.batch for a in args.seconds]
    if args.shapes:
        shapes = [(int(b), float(a)) for b, a in (shape.split("x") for shape in args.shapes)]
    if args.rivals and args.device == "cpu":
        args.budget = 0.0 if args.prepare else args.budget
        duel.run(args.models or list(duel.MODELS), shapes, args)
        return
    args.models = args.models or list(ZOO)
    table = Table("model", "audio s", "batch", "dtype", "impl", "median ms", "x real time", "x the first (quartiles)")
    rows = []
    written = args.write or ("rivals" if args.rivals else "models")
    lines = harness.Lines(written, args.device) if args.write is not None and args.device == "cuda" else None
    for name, dtype, (batch, audio) in ((n, d, shape) for n in args.models for d in args.dtype for shape in shapes):
        row = measure(name, audio, batch, dtype, args)
        rows.append(row)
        if lines is not None:
            lines.add(row)
        for impl, r in row["impls"].items():
            gain = f"{r['speedup']:.2f} ({r['speedup_low']:.2f}-{r['speedup_high']:.2f})"
            figures = f"{1e3 * r['median_s']:.3f}", f"{r['real_time']:.1f}", gain
            table.add_row(name, str(audio), str(batch), dtype, impl, *figures)
        for impl, error in row["failed"].items():
            table.add_row(name, str(audio), str(batch), dtype, impl, "-", "-", error[:60])
        if row.get("over_best"):
            table.add_row("", "", "", "", f"{row['best']} over the best rival", "", "", f"{row['over_best']:.2f}")
    table.print()
    if args.write is not None:
        print(f"written: {harness.write(written, args.device, rows)}")


if __name__ == "__main__":
    main()
