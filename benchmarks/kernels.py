"""The Triton kernels as the models of the zoo launch them, compiled ahead of time: no GPU is needed.

For every kernel and every set of compile-time values: registers a thread, shared memory of a block, stack and spills,
the share of matrix instructions in the hot loop, and the bytes that the kernel's inputs hold for each output.

python benchmarks/kernels.py --target 90                 # a table
python benchmarks/kernels.py --target 90 --write         # and into results/sm_90/kernels.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # lets fastvoc launch on the CPU, where launches are recorded
import torch
from torch import Tensor
from zoo import ZOO

import fastvoc
import fastvoc.ops
from fastvoc.nn.wide import WideOnCpu

for _module in pkgutil.iter_modules(fastvoc.ops.__path__, "fastvoc.ops."):
    importlib.import_module(_module.name)
del os.environ["TRITON_INTERPRET"]  # before Triton comes in: what is recorded is compiled
from fastvoc.kernels import ahead, tuned  # noqa: E402
from fastvoc.kernels.launch import Launch, Recording, record  # noqa: E402

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "v1",
    "v2",
    "v3",
    "cosyvoice2",
    "vocos",
    "encodec-24k-encode",
    "encodec-24k-decode",
    "encodec-48k-encode",
    "encodec-48k-decode",
    "bigvgan-v2",
    "univnet",
    "hiftnet",
    "snac-24k-decode",
    "mimi-decode",
)
SAMPLE = (
    "v2",
    "cosyvoice2",
    "vocos",
    "encodec-24k-encode",
    "encodec-24k-decode",
    "encodec-48k-decode",
    "bigvgan-base",
    "univnet",
    "hiftnet",
    "snac-24k-decode",
    "mimi-decode",
)
OUTPUTS = ("out", "carry")
SHOWN = ("CIN", "COUT", "PHASES", "GROUPS", "SUM", "PRE", "POST", "BT", "BN", "BK")


def launches(model: str, dtype: torch.dtype, target: int, values: dict[str, dict[str, Any]]) -> Recording:
    """What a second of audio launches on a device; `values` take the place of tuned ones."""
    entry = ZOO[model]
    WideOnCpu.stays_wide = lambda *_: False  # type: ignore[method-assign]
    network = entry.model(dtype=dtype)
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in entry.inputs(network, 1.0, 1)]
    table, backend = tuned.compile_for(f"sm_{target}"), fastvoc.use_backend("lstm=torch,*=triton")
    with torch.inference_mode(), table, tuned.override(**values), backend, record(dry=True) as recording:
        entry.run(network, *inputs)
    return recording


def read_per_output(launch: Launch) -> float:
    """Bytes of the tensors that a launch reads, each once, for each value that it writes."""
    tensors = {name: value for name, value in launch.arguments.items() if isinstance(value, Tensor)}
    made = sum(t.numel() for name, t in tensors.items() if name in OUTPUTS)
    read = {name: t.numel() * t.element_size() for name, t in tensors.items() if name not in OUTPUTS}
    if "GROUPS" in launch.arguments:  # a launch reads the taps that its table names, not the whole stage's
        taps = int(tensors["table"][:, 2].sum()) if tensors["table"].dim() == 2 else int(tensors["table"][2])
        square = launch.arguments.get("WIDTH")
        width = square * square if square else launch.arguments["CIN_PAD"] * launch.arguments["COUT_PAD"]
        read["weight"] = taps * width * tensors["weight"].element_size()
    return sum(read.values()) / max(made, 1)


def rows(
    models: list[str], dtypes: list[torch.dtype], target: int, each: int | None, values: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row for every kernel that the models launch, or for the `each` largest of each name."""
    found: dict[ahead.Specialization, tuple[str, torch.dtype, Launch]] = {}
    for model in models:
        for dtype in dtypes:
            for launch in launches(model, dtype, target, values).launches:
                found.setdefault(ahead.specialize(launch), (model, dtype, launch))
    chosen = list(found)
    if each is not None:
        names = dict.fromkeys(spec.name for spec in chosen)
        chosen.sort(key=lambda spec: -len(spec.signature) + len(spec.constants))
        chosen = [spec for name in names for spec in [s for s in chosen if s.name == name][:each]]
    table = []
    for spec in chosen:
        model, dtype, launch = found[spec]
        needs = ahead.compile_ahead(spec, target)
        constants = {k: v for k, v in spec.constants if k in SHOWN}
        table.append(
            {
                "kernel": spec.name,
                "model": model,
                "dtype": str(dtype).removeprefix("torch."),
                "constants": constants,
                "warps": dict(spec.options)["num_warps"],
                "registers": needs.registers,
                "shared": needs.shared,
                "stack": needs.stack,
                "spills": needs.spills,
                "matrix_share": round(needs.matrix_share, 4),
                "loop": sum(needs.loop.values()),
                "read_per_output": round(read_per_output(launch), 2),
            }
        )
        print(spec.name, model, constants, table[-1]["registers"], table[-1]["spills"], file=sys.stderr, flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=int, default=90, choices=ahead.TARGETS)
    parser.add_argument("--models", default="all", help="names from the zoo, `all`, or `sample`: a few of each kernel")
    parser.add_argument("--each", type=int, default=2, help="how many of each kernel `sample` has")
    parser.add_argument("--dtype", default="bfloat16,float32")
    parser.add_argument("--values", type=json.loads, default={}, help='as \'{"conv1d": {"PRECISION": "tf32x3"}}\'')
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write results/sm_<target>/kernels.json")
    options = parser.parse_args()
    sample = options.models == "sample"
    named = {"sample": SAMPLE, "all": MODELS}
    models = list(named.get(options.models) or options.models.split(","))
    dtypes = [getattr(torch, name) for name in options.dtype.split(",")]
    report = {
        "target": f"sm_{options.target}",
        "triton": ahead.triton.__version__,
        "kernels": rows(
            models, dtypes[:1] if sample else dtypes, options.target, options.each if sample else None, options.values
        ),
    }
    text = json.dumps(report, indent=1)
    if options.json:
        print(text)
    else:
        for row in report["kernels"]:
            print(*(f"{key}={value}" for key, value in row.items()))
    if options.write:
        path = RESULTS / f"sm_{options.target}" / "kernels.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
