"""Single ops as the models of the zoo call them, every implementation in turn, with their arithmetic rate.

Layers of equal shapes are measured once.

python benchmarks/ops.py                  # all ops of all models
python benchmarks/ops.py mrf --models v1 --threads 1 --write
python benchmarks/ops.py --models v1 --int8  # or --dtype bf16
python benchmarks/ops.py --device cuda --impl torch triton cuda --dtype bf16 --batch 8

The time is compared with the device's ceilings, measured first: the multiply-adds of the direct algorithm at the rate
of a large product, or every input, weight and output moved once at the rate of a large copy. Toom-Cook, which
multiplies less, may pass 100 %. On CUDA a call is one of ten in a graph, so that launching costs nothing and inputs
come from the L2 cache as they do inside a model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import harness
import torch
from harness import repeated
from table import Table
from torch import Tensor
from zoo import DTYPES, ZOO, placed, refusal

from fastvoc.nn.prepared import Prepared
from fastvoc.runtime.registry import Cost

CALLS = 10  # in one graph


@dataclass(frozen=True)
class Entry:
    """One layer of a model: its op, what it was called with, and what that takes."""

    op: str
    layer: str
    run: Prepared
    x: Tensor
    args: tuple[Any, ...]
    cost: Cost


@contextmanager
def recorded(model: torch.nn.Module) -> Iterator[dict[int, tuple[Tensor, tuple[Any, ...]]]]:
    """The first input of every layer of a model that runs inside, by the layer's id."""
    calls: dict[int, tuple[Tensor, tuple[Any, ...]]] = {}
    run = Prepared.__call__

    def record(layer: Prepared, x: Tensor, *args: Any, backend: str | None = None) -> Any:
        calls.setdefault(id(layer), (x, args))
        return run(layer, x, *args, backend=backend)

    # A module that is listened to is called itself, not by what the model bound.
    listening = [module.register_forward_pre_hook(lambda *_: None) for module in model.modules()]
    with mock.patch.object(Prepared, "__call__", record):
        yield calls
    for handle in listening:
        handle.remove()
    if not calls:
        raise RuntimeError(f"{type(model).__name__}: no layer was recorded")


def entries(
    models: list[str], audio: float, batch: int, device: str, dtype: torch.dtype, int8: bool = False
) -> Iterator[Entry]:
    """Every layer of the models, with the input that `audio` seconds give it; `int8`: those that can multiply in it."""
    seen = set()
    for name in models:
        model = ZOO[name].model(device, dtype)
        for quantized in model.int8_layers().values() if int8 else ():
            quantized.input_range = torch.tensor([-1.0, 1.0], device=device)  # time does not depend on it
        inputs = placed(ZOO[name].inputs(model, audio, batch), device, dtype)
        with torch.inference_mode(), recorded(model) as calls:
            ZOO[name].run(model, *inputs, backend="torch" if device == "cuda" else None)
        for layer, prepared in model.layers().items():  # type: ignore[operator]
            if id(prepared) not in calls:
                continue
            x, args = calls[id(prepared)]
            op, _ = prepared.explain()
            key = (op, tuple(x.shape), *(tuple(t.shape) for t in prepared.tensors()))
            if key in seen:
                continue
            seen.add(key)
            yield Entry(op, f"{name}.{layer}", prepared, x, args, prepared.cost(x, *args))


def call(entry: Entry, impl: str) -> Any:
    with torch.inference_mode():
        return entry.run(entry.x, *entry.args, backend=impl)


def candidates(entry: Entry, impls: list[str], device: str) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """What is timed by implementation, and why the others are not."""
    runs: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    for impl in impls:

        def prepare(impl: str = impl) -> None:
            run: Callable[[], Any] = partial(call, entry, impl)
            run()
            runs[impl] = repeated(run, CALLS) if device == "cuda" else run

        if (problem := refusal(prepare, device)) is not None:
            failed[impl] = problem
            runs.pop(impl, None)
    return runs, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help="names of ops, such as conv1d; all when left out")
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--seconds", type=float, default=1.0, help="audio per item")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--int8", action="store_true", help="int8 in every layer that a converted model has in it")
    parser.add_argument("--most", type=float, default=float("inf"), help="seconds in all, then the rest is left out")
    harness.add_arguments(parser, budget=1.0)
    args = parser.parse_args()
    harness.check_device(args.device)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    dtype = DTYPES[args.dtype]
    cuda = args.device == "cuda"
    most = harness.ceilings(dtype, args.device)
    calls = CALLS if cuda else 1
    table = Table("op", "layer", "impl", "median ms", "GFLOP/s", "% of ceiling", "x the first")
    rows: list[dict[str, Any]] = []
    start, left_out = time.perf_counter(), 0
    written = args.write or "ops"
    lines = harness.Lines(written, args.device) if args.write is not None and cuda else None
    for entry in entries(args.models, args.seconds, args.batch, args.device, dtype, args.int8):
        if args.ops and entry.op not in args.ops:
            continue
        if time.perf_counter() - start > args.most:
            left_out += 1
            continue
        runs, failed = candidates(entry, args.impl, args.device)
        if not runs and not cuda:
            continue
        times = harness.interleaved(runs, args.budget, device=args.device) if runs else {}
        result = harness.summary(times, next(iter(runs), ""))
        for impl, r in result.items():
            r["median_s"], r["best_s"] = r["median_s"] / calls, r["best_s"] / calls
            macs, read, written = entry.cost
            r["gflops"] = 2e-9 * macs / r["median_s"]
            r["ceiling"] = most.seconds(2 * macs, read + written) / r["median_s"]
            rate = f"{r['gflops']:.0f}" if macs else "-"
            share = f"{100 * r['ceiling']:.0f}"
            figures = f"{1e3 * r['median_s']:.4f}", rate, share, f"{r['speedup']:.2f}"
            table.add_row(entry.op, entry.layer, impl, *figures)
        for impl, reason in failed.items():
            table.add_row(entry.op, entry.layer, impl, "-", "-", "-", reason[:60])
        facts = {"op": entry.op, "layer": entry.layer, "seconds": args.seconds, "batch": args.batch}
        rows.append(
            {
                **facts,
                "dtype": "int8" if args.int8 else args.dtype,
                "macs": entry.cost.multiply_adds,
                "impls": result,
                "failed": failed,
            }
        )
        if lines is not None:
            lines.add(rows[-1])
    table.print()
    if left_out:
        print(f"left out after {args.most:.0f} s: {left_out} layers")
    print(f"ceilings: {most.flops / 1e12:.3g} TFLOP/s in {args.dtype}, {most.bytes / 1e12:.3g} TB/s")
    if args.write is not None:
        print(f"written: {harness.write(written, args.device, rows)}")


if __name__ == "__main__":
    main()
