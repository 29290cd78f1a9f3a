"""Single ops at the sizes of HiFi-GAN V1, V2 and V3, every implementation in turn, with their arithmetic rate.

python benchmarks/ops.py                  # all ops
python benchmarks/ops.py mrf --threads 1 --write
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import torch
from rich.console import Console
from rich.table import Table

from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HifiGan
from fastvoc.nn.prepared import Prepared

MODELS = {"v1": HIFIGAN_V1, "v2": HIFIGAN_V2, "v3": HIFIGAN_V3}


@dataclass(frozen=True)
class Entry:
    """One layer of a model: its op, input and multiply-adds."""

    op: str
    layer: str
    run: Prepared
    x: torch.Tensor
    macs: int


def entries(audio: float, device: str) -> Iterator[Entry]:
    """Every layer of the models, with an input of the size that `audio` seconds give it."""
    for name, config in MODELS.items():
        model = HifiGan(config).to(device).requires_grad_(False)
        frames = max(1, round(audio * config.sample_rate / config.hop))
        x = torch.randn(1, config.num_mels, frames, device=device)
        for layer, prepared in model.layers().items():
            with torch.inference_mode():
                y = prepared(x)
            op, _ = prepared.explain()
            weights = sum(t.numel() for t in prepared.tensors() if t.dim() == 3)
            steps = x.shape[2] if op == "upsample" else y.shape[2]
            yield Entry(op, f"{name}.{layer}", prepared, x, weights * steps)
            x = y


def call(entry: Entry, impl: str) -> torch.Tensor:
    with torch.inference_mode():
        return entry.run(entry.x, backend=impl)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help="conv1d, upsample, mrf; all when left out")
    parser.add_argument("--seconds", type=float, default=1.0, help="audio per item")
    harness.add_arguments(parser, budget=1.0)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    table = Table("op", "layer", "impl", "median ms", "GFLOP/s", f"x {args.impl[0]}")
    rows: list[dict[str, Any]] = []
    for entry in entries(args.seconds, args.device):
        if args.ops and entry.op not in args.ops:
            continue
        runs: dict[str, Callable[[], Any]] = {impl: partial(call, entry, impl) for impl in args.impl}
        result = harness.summary(harness.interleaved(runs, args.budget), args.impl[0])
        for impl, r in result.items():
            r["gflops"] = 2e-9 * entry.macs / r["median_s"]
            figures = f"{1e3 * r['median_s']:.3f}", f"{r['gflops']:.0f}", f"{r['speedup']:.2f}"
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
