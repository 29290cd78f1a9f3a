"""The rivals on the CPU, each with the same weights (an export of the torch reference) and the same inputs.

A rival that cannot be had or does not take a model is listed with its error. Where an export stops short of the whole
model (`Split`), torch runs the rest and its time counts.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from zoo import Entry

from fastvoc.exporting.export import write_steps
from fastvoc.exporting.graph import Graph
from fastvoc.nn.network import Trace

RIVALS = ("torch", "compile", "onnxruntime", "openvino")
Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Failed:
    """A rival that did not get as far as a run."""

    error: str


class _Core(nn.Module):
    """What is exported: the part of a model that is a plain network."""

    def __init__(self, run: Callable[..., Any], model: nn.Module) -> None:
        super().__init__()
        self.model, self._run = model, run

    def forward(self, *inputs: Tensor) -> Any:
        return self._run(self.model, *inputs)


def prepare(rival: str, entry: Entry, model: nn.Module, inputs: Inputs, dtype: torch.dtype, threads: int) -> Any:
    """A function without arguments that runs the model once, with its first result, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run: Callable[[], Any] = _MAKERS[rival](entry, model, inputs, dtype, threads)
            return run, run()
    except Exception as error:  # whatever a rival stumbles over is its result
        return Failed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _eager(entry: Entry, model: nn.Module, inputs: Inputs, dtype: torch.dtype, threads: int) -> Any:
    @torch.inference_mode()
    def run() -> Any:
        return entry.run(model, *inputs, backend="torch")

    return run


def _compiled(entry: Entry, model: nn.Module, inputs: Inputs, dtype: torch.dtype, threads: int) -> Any:
    before, after = entry.split.before, entry.split.after
    with torch.no_grad():
        middle = before(model, *inputs)
        # A plain graph of the reference, without the library's own Python around it.
        core = torch.compile(make_fx(_Core(entry.split.core, model))(*middle), dynamic=False)

    @torch.no_grad()
    def run() -> Any:
        return after(model, core(*before(model, *inputs)), *inputs)

    return run


def _onnx(entry: Entry, model: nn.Module, inputs: Inputs) -> bytes:
    """The core as an ONNX file, of torch's exporter where that takes it."""
    with torch.no_grad():
        middle = tuple(
            t.float().clone() if t.is_floating_point() else t.clone() for t in entry.split.before(model, *inputs)
        )
        if entry.split.stated is not None:
            return _stated(entry.split.stated(model), middle)
        core = _Core(entry.split.core, model)
        try:
            file = io.BytesIO()
            torch.onnx.export(core, middle, file, dynamo=False, opset_version=17, do_constant_folding=True)
        except Exception as error:  # such as for shapes that are no constants; as a plain graph they are
            file = io.BytesIO()
            try:
                graph = make_fx(core)(*middle)
                torch.onnx.export(graph, middle, file, dynamo=False, opset_version=17, do_constant_folding=True)
            except Exception as second:
                raise RuntimeError(f"{_short(error)}; as a plain graph {_short(second)}") from second
    return file.getvalue()


def _stated(network: Callable[..., Any], middle: tuple[Tensor, ...]) -> bytes:
    """A network by fastvoc's own exporter, for these shapes alone."""
    trace, graph = Trace({}), Graph({})
    values = [trace.value() for _ in middle]
    output = network(trace, *values)
    given = {v.index: graph.input(f"x{v.index}", t.shape, t.dtype) for v, t in zip(values, middle, strict=True)}
    made = write_steps(graph, trace.steps, given)[output.index]
    return graph.file({"y": (made, [f"d{i}" if n is None else n for i, n in enumerate(made.shape)])}, {})


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _plain(t: Tensor) -> Tensor:
    """Floats as float32, which every export takes."""
    return t.float() if t.is_floating_point() else t


def _onnxruntime(entry: Entry, model: nn.Module, inputs: Inputs, dtype: torch.dtype, threads: int) -> Any:
    import onnxruntime

    if dtype == torch.bfloat16:
        raise NotImplementedError("onnxruntime's CPU provider has no bfloat16 convolutions")

    file = _onnx(entry, model, inputs)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # not beside the next one's call
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    @torch.inference_mode()
    def run() -> Any:
        middle = entry.split.before(model, *inputs)
        fed = {name: np.ascontiguousarray(t.numpy()) for name, t in zip(names, middle, strict=True)}
        made = [torch.from_numpy(array) for array in session.run(None, fed)]
        return entry.split.after(model, made[0] if len(made) == 1 else tuple(made), *inputs)

    return run


def _openvino(entry: Entry, model: nn.Module, inputs: Inputs, dtype: torch.dtype, threads: int) -> Any:
    import openvino

    file = _onnx(entry, model, inputs)
    core = openvino.Core()
    precision = "bf16" if dtype == torch.bfloat16 else "f32"
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(file), "CPU", options)
    request = compiled.create_infer_request()

    @torch.inference_mode()
    def run() -> Any:
        middle = entry.split.before(model, *inputs)
        made = request.infer(
            [np.ascontiguousarray(t.float().numpy() if t.is_floating_point() else t.numpy()) for t in middle]
        )
        found = [torch.from_numpy(made[output]) for output in compiled.outputs]
        return entry.split.after(model, found[0] if len(found) == 1 else tuple(found), *inputs)

    return run


_MAKERS: dict[str, Callable[..., Any]] = {
    "torch": _eager,
    "compile": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
