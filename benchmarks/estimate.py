"""What models would take on a GPU, layer by layer, estimated without one (`cost_model`), beside the bars that are set.

python benchmarks/estimate.py                                       # the table of models
python benchmarks/estimate.py --models v1 --layers                  # and of each layer
python benchmarks/estimate.py --write                               # and the package's tables, as estimated rows
python benchmarks/estimate.py --correct RESULTS/first-times-*.jsonl # constants from what `contact.py --timed` measured

The launches of Triton are recorded, those of torch counted, those of CUDA C++ follow from the layers. Times are those
of a graph's nodes; what the host does is not among them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import choices
import cost_model
import torch
from cost_model import Device, Nodes
from stub_driver import stand_in  # before Triton comes in
from table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from zoo import DTYPES, ZOO, placed

from fastvoc.errors import BackendError
from fastvoc.kernels import launch
from fastvoc.kernels.tuned import compile_for
from fastvoc.nn import pieces
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import WideOnCpu
from fastvoc.runtime import choice
from fastvoc.runtime.registry import OPS

IMPLS = ("torch", "triton", "cuda")
BARS = {("v1", "1x1"): 150.0, ("v1", "32x10"): 45e3, ("vocos", "32x10"): 3.5e3, ("cosyvoice2", "1x1"): 400.0}  # us
SHAPES = ("1x1", "32x10")
MODELS = ("v1", "v2", "v3", "cosyvoice2", "vocos", "encodec-24k-encode", "encodec-24k-decode", "snac-24k-decode")


@dataclass(frozen=True)
class Layer:
    """A layer at a size: what tables know it by, and microseconds, at least and by implementation."""

    name: str
    known: choice.Layer
    floor: float
    times: dict[str, float]

    def row(self, items: int, seconds: float) -> choice.Row:
        """As a table's row."""
        return choice.Row(self.known, choice.Size(items, seconds), self.times, measured=False)

    def best(self) -> str:
        """The implementation that the table would choose."""
        return self.row(1, 1.0).order([name for name in ("triton", "torch", "cuda") if name in self.times])[0]


def layers(model: str, dtype: torch.dtype, items: int, seconds: float, target: str) -> tuple[list[Layer], float]:
    """What a call's layers take, in order of use, and the microseconds of torch's ops between them."""
    device, entry = Device.read(target), ZOO[model]
    network = entry.model("cpu", dtype)
    names = {id(prepared): name for name, prepared in network.layers().items()}  # type: ignore[operator]
    found: list[Layer] = []
    between = Nodes(device)
    run = Prepared.__call__

    def visit(prepared: Prepared, x: torch.Tensor, *args: Any, backend: str | None = None) -> torch.Tensor:
        between.counting = False
        made, layer = _layer(device, names.get(id(prepared), "?"), prepared, x, args, run)
        found.append(layer)
        between.counting = True
        return made

    # A module that is listened to is called itself, not by what the model bound.
    for module in network.modules():
        module.register_forward_pre_hook(lambda *_: None)
    with torch.inference_mode(), compile_for(target), mock.patch.object(Prepared, "__call__", visit), between:
        entry.run(network, *placed(entry.inputs(network, seconds, items), "cpu", dtype))
    return found, 1e6 * between.seconds


def _layer(
    device: Device, name: str, prepared: Prepared, x: torch.Tensor, args: tuple[Any, ...], run: Any
) -> tuple[torch.Tensor, Layer]:
    """A layer's estimate, and memory for its output."""
    op, params = prepared.explain("torch")[0], prepared.params()
    there = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in args]
    _, out = OPS[op].work(x.to("meta"), params, *there)
    made = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype)
    cost = prepared.cost(x, *args)
    times = {"torch": torchs(device, op, params, x, args), "cuda": cost_model.cuda(device, op, params, x, made, cost)}
    with launch.record(dry=True) as recording:
        try:
            made = run(prepared, x, *args, backend="triton")
            times["triton"] = cost_model.triton(device, recording.launches)
        except BackendError:  # it has no kernel
            pass
    floor = max(2 * cost.multiply_adds / device.tensor, device.moved(cost.read_bytes + cost.written_bytes))
    times = {impl: 1e6 * times[impl] * device.factors.get(f"{impl}/{op}", 1.0) for impl in IMPLS if impl in times}
    return made, Layer(name, prepared.layer(x.dtype), 1e6 * floor, times)


def torchs(device: Device, op: str, params: Any, x: torch.Tensor, args: tuple[Any, ...]) -> float:
    """Seconds of the reference as nodes of a graph."""
    if op == "lstm":
        gates = sum(w.numel() for layer in params.layers for w in layer[:2])
        steps = x.shape[2]
        return len(params.layers) * steps * device.recurrent + 2 * x.shape[0] * steps * gates / device.fma
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        given = [fake.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in (x, *args)]
        with Nodes(device) as nodes:
            OPS[op].reference(given[0], params, *given[1:])
    return nodes.seconds


def shape_of(text: str) -> tuple[int, float]:
    """Items and seconds of audio, of a text like 32x10."""
    items, seconds = text.split("x")
    return int(items), float(seconds)


def corrected(device: Device, lines: list[dict[str, Any]], target: str) -> Device:
    """The constants with the factors by which measured layers differ: the median of each op's and implementation's."""
    ratios: dict[str, list[float]] = {}
    bare = replace(device, factors={})
    estimates: dict[tuple[str, str, str], dict[str, Layer]] = {}
    for line in lines:
        if "seconds" not in line:
            continue
        key = line["model"], line["dtype"], line["shape"]
        if key not in estimates:
            with mock.patch.object(Device, "read", return_value=bare):
                made, _ = layers(key[0], DTYPES[key[1]], *shape_of(key[2]), target)
            estimates[key] = {f"{key[0]}.{layer.name}": layer for layer in made}
        estimate = estimates[key][line["layer"]].times.get(line["impl"])
        if estimate is not None:
            ratios.setdefault(f"{line['impl']}/{line['op']}", []).append(1e6 * line["seconds"] / estimate)
    return replace(device, factors=device.factors | {name: statistics.median(each) for name, each in ratios.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="sm_90", help="a device of devices.json")
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(MODELS))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="BxS", help="items x seconds of audio")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bf16"])
    parser.add_argument("--layers", action="store_true", help="each layer of the models")
    parser.add_argument("--write", action="store_true", help="put the rows into the package's table of the target")
    parser.add_argument("--into", type=Path, default=choice.HERE, help="folder of the tables")
    parser.add_argument("--constants", type=Path, default=cost_model.FILE, help="in the place of devices.json")
    parser.add_argument("--correct", nargs="+", type=Path, help="lines of contact.py --timed from such a device")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cost_model.FILE = options.constants
    stand_in(int(options.target.removeprefix("sm_")))
    WideOnCpu.stays_wide = lambda *_: False  # type: ignore[method-assign]
    pieces.cuttable = lambda *_: False
    if options.correct:
        lines = [json.loads(line) for file in options.correct for line in file.read_text().splitlines()]
        corrected(Device.read(options.target), lines, options.target).write(options.target)
    show(options)


def show(options: argparse.Namespace) -> None:
    """Prints the tables and keeps the rows where that is asked for."""
    whole = Table("model", "dtype", "items x s", "floor us", *IMPLS, "chosen", "bar")
    rows: dict[Any, dict[str, Any]] = {}
    for model in options.models:
        for dtype in options.dtype:
            for shape in options.shapes:
                items, seconds = shape_of(shape)
                found, between = layers(model, DTYPES[dtype], items, seconds, options.target)
                if options.layers:
                    one = Table("layer", "op", *IMPLS, "floor us", title=f"{model} {dtype} {shape}")
                    for each in found:
                        times = [_text(each.times.get(impl)) for impl in IMPLS]
                        one.add_row(each.name, each.known.op, *times, _text(each.floor))
                    one.print()
                best = [each.times[each.best()] for each in found]
                by_impl = [[each.times.get(impl, b) for each, b in zip(found, best, strict=True)] for impl in IMPLS]
                sums, chosen = [between + sum(times) for times in by_impl], between + sum(best)
                bar = BARS.get((model, shape)) if dtype == "bf16" else None
                floor = sum(each.floor for each in found)
                whole.add_row(model, dtype, shape, _text(floor), *map(_text, sums), _text(chosen), _text(bar))
                for each in found:
                    row = {"op": each.known.op, "bytes": each.known.itemsize, "weight": list(each.known.weight)}
                    row |= {"items": items, "seconds": seconds, "from": "estimated"}
                    rows.setdefault(str(row), row | {"us": {k: choices.rounded(v) for k, v in each.times.items()}})
    whole.print()
    if options.write:
        choices.merged(options.into / f"{options.target}.json", rows.values())


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    main()
