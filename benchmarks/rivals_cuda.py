"""On CUDA: our models from graphs, and the rivals with the same weights in the same dtype on the same inputs.

The rivals run a plain graph of the reference's torch operations, without this library's Python around it, with cuDNN
choosing its fastest algorithms: eager, eager captured as one CUDA graph at the exact size (what serving engines ship),
and compiled with mode max-autotune, which captures CUDA graphs itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from rivals import Failed, _Core
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from zoo import Entry

from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.graphs.graphed import Graphed
from fastvoc.vocoder import Vocoder

RIVALS = ("eager", "eager+graph", "max-autotune")
Inputs = tuple[Any, ...]


def graphed(entry: Entry, model: Any, inputs: Inputs, backend: str | None) -> Callable[[], Any]:
    """The model by `fastvoc.Graphed`. Raises ArgumentError for what has no graph, BackendError as its warm-up."""
    x, config = inputs[0], model.config
    if x.is_floating_point() and x.shape[1] == getattr(config, "num_mels", 0):
        graphs = Graphed(Vocoder(model, config, backend=backend), max_mb=32768)
        graphs.warmup([x.shape[2]], len(x))
        return lambda: graphs(x, check=False)
    if config.family == "encodec" and not x.is_floating_point() and len(inputs) == 1:
        graphs = Graphed(Codec(model, config, backend=backend), max_mb=32768)
        graphs.warmup([x.shape[2]], len(x), codebooks=x.shape[1])
        return lambda: graphs(x)
    raise ArgumentError("graphs hold vocoders of mels and decoders of whole signals")


def prepare(rival: str, entry: Entry, model: nn.Module, inputs: Inputs) -> Any:
    """A function without arguments that runs the model once, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run: Callable[[], Any] = _MAKERS[rival](entry, model, inputs)
            run()
            torch.cuda.synchronize()
    except Exception as error:  # whatever a rival stumbles over is its result
        return Failed(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}")
    return run


def _plain(entry: Entry, model: nn.Module, inputs: Inputs) -> Any:
    """The model's torch operations as an fx graph, and all that comes around it."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # in float32 they compute what we compute
    with torch.no_grad():
        middle = entry.split.before(model, *inputs)
        return make_fx(_Core(entry.split.core, model))(*middle)


def _whole(entry: Entry, model: nn.Module, inputs: Inputs, core: Any) -> Callable[[], Any]:
    @torch.no_grad()
    def run() -> Any:
        return entry.split.after(model, core(*entry.split.before(model, *inputs)), *inputs)

    return run


def _eager(entry: Entry, model: nn.Module, inputs: Inputs) -> Callable[[], Any]:
    return _whole(entry, model, inputs, _plain(entry, model, inputs))


def _eager_graph(entry: Entry, model: nn.Module, inputs: Inputs) -> Callable[[], Any]:
    """With what a server adds: inputs copied in, the result copied out."""
    static = tuple(x.clone() for x in inputs)
    run = _whole(entry, model, static, _plain(entry, model, static))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        y = run()

    def replay() -> Any:
        for own, x in zip(static, inputs, strict=True):
            own.copy_(x)
        graph.replay()
        return y.clone()

    return replay


def _autotuned(entry: Entry, model: nn.Module, inputs: Inputs) -> Callable[[], Any]:
    core = torch.compile(_plain(entry, model, inputs), mode="max-autotune", dynamic=False)

    def marked(*middle: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return core(*middle)

    return _whole(entry, model, inputs, marked)


_MAKERS: dict[str, Callable[..., Callable[[], Any]]] = {
    "eager": _eager,
    "eager+graph": _eager_graph,
    "max-autotune": _autotuned,
}
