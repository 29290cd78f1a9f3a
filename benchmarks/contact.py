"""Every layer of some models by one implementation: how far it is from float64, and what it takes. A line a layer.

python benchmarks/contact.py --impl triton --models v3 vocos --shape 1x0.2            # whether anything is wrong
python benchmarks/contact.py --impl cuda --models v1 --shape 32x10 --timed            # how long each layer takes

What a layer is given is what torch's layers before it make of random weights and inputs, so that a fault of one shows
in no other. On CUDA a process whose device is lost ends with 3, since all that follows would fail. Lines go to
$OUT/<name>.jsonl as they come.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import harness
import torch
from harness import repeated
from ops import CALLS, Entry, call, entries
from torch import Tensor
from zoo import DTYPES, ZOO, refusal

_LOST = ("CUDA error", "illegal memory access", "device-side assert", "launch failure")
_LIMIT = 4.0  # seconds of audio up to which layers are compared


def error(entry: Entry, impl: str, wide: Any) -> float:
    """Relative L2 distance of a layer's output from its reference in float64; of codes the share that differs."""
    y = call(entry, impl)
    with torch.inference_mode():
        want = wide(_wide(entry.x), *map(_wide, entry.args), backend="torch")
    if not y.is_floating_point():
        return float((y != want).double().mean())
    return float((y.double() - want).norm() / want.norm().clamp_min(1e-30))


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def references(name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The model's layers in float64, of the weights that `ops.entries` gives it."""
    torch.manual_seed(0)
    model = copy.deepcopy(ZOO[name].model(device, dtype))
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.double()
    layers: dict[str, Any] = model.layers()  # type: ignore[operator]
    return {f"{name}.{layer}": prepared for layer, prepared in layers.items()}


def rows(args: argparse.Namespace, name: str) -> Iterator[dict[str, Any]]:
    """What is found of each layer of a model."""
    batch, seconds = (float(part) for part in args.shape.split("x"))
    dtype = DTYPES[args.dtype]
    compared = batch * seconds <= _LIMIT
    wide = references(name, args.device, dtype) if compared else {}
    torch.manual_seed(0)
    for entry in entries([name], seconds, int(batch), args.device, dtype):
        row: dict[str, Any] = {"model": name, "layer": entry.layer, "op": entry.op, "impl": args.impl}
        row |= {"dtype": args.dtype, "shape": args.shape, "x": list(entry.x.shape)}
        row |= {"bytes": entry.x.element_size(), "weight": list(entry.run.layer(entry.x.dtype).weight)}

        def measure(entry: Entry = entry, row: dict[str, Any] = row) -> None:
            if compared:
                row["error"] = error(entry, args.impl, wide[entry.layer])
            if args.timed:
                run = partial(call, entry, args.impl)
                run()
                one, calls = (repeated(run, CALLS), CALLS) if args.device == "cuda" else (run, 1)
                times = harness.interleaved({args.impl: one}, args.budget, device=args.device)[args.impl]
                row["seconds"] = sorted(times)[len(times) // 2] / calls

        if (problem := refusal(measure, args.device)) is not None:
            row["failed"] = problem
        yield row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", required=True, choices=("torch", "cpp", "triton", "cuda"))
    parser.add_argument("--models", nargs="+", choices=ZOO, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--shape", default="1x0.2", metavar="BxS", help="items x seconds of audio")
    parser.add_argument("--timed", action="store_true", help="also how long a layer takes, on CUDA from a graph of ten")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--budget", type=float, default=0.05, help="seconds for timing a layer")
    parser.add_argument("--name", default="contact", help="of the file in $OUT")
    args = parser.parse_args()
    harness.check_device(args.device)
    torch.set_num_threads(1)
    lines, found = harness.Lines(args.name, args.device), 0
    for name in args.models:
        for row in rows(args, name):
            lines.add(row)
            found += 1
            said = " ".join(
                f"{key}={value:.3g}" if type(value) is float else f"{key}={value}" for key, value in row.items()
            )
            print(said, flush=True)
            if any(word in row.get("failed", "") for word in _LOST):
                return 3
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
