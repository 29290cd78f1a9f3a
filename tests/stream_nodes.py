"""Counts what a chunk of a live stream launches on a GPU: nodes of its CUDA graph, and those that are our own kernels.

As tests/triton_keys.py on tensors of the CPU, with a driver that launches nothing. Run as a program of its own:

python tests/stream_nodes.py '[["v1", "*=triton", 25]]'  # model, backend, frames
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import triton_keys  # before Triton comes in
from recording import Rerun
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ZOO

import fastvoc
from fastvoc.kernels import launch
from fastvoc.nn.wide import WideOnCpu
from fastvoc.vocoder import Vocoder

# What makes or renames memory and runs nothing.
_NOTHING = ("empty", "new_empty", "empty_like", "empty_strided", "detach", "alias", "lift_fresh", "_unsafe_view")
_FRAMES = 400


class Nodes(TorchDispatchMode):
    """Torch's own ops that would be nodes, by name; those of fastvoc are told by their launches."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        if func.namespace == "aten" and not func.is_view and name not in _NOTHING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Counting(Rerun):
    """Records a chunk's step and counts its nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.own: Counter[str] = Counter()
        self.torchs: Counter[str] = Counter()

    def __call__(self, run: Callable[[], Any]) -> Any:
        captured = super().__call__(run)
        with Nodes() as nodes, launch.record() as recording:
            run()
        self.own = Counter(each.name for each in recording.launches)
        self.torchs = nodes.found
        return captured


def measure(model: str, backend: str, frames: int) -> dict[str, Any]:
    """Nodes of a chunk of `frames` frames far from either end, by name, ours and torch's; and keys."""
    WideOnCpu.stays_wide = lambda *_: False  # type: ignore[method-assign]
    keys, entry, capture = triton_keys.Keys(), ZOO[model], Counting()
    network: Any = entry.model(dtype=torch.bfloat16)
    voc = Vocoder(network, network.config)
    mel = entry.inputs(network, _FRAMES * network.config.hop / network.config.sample_rate, 1)[0].float()[0]
    with fastvoc.use_backend(backend):
        streams = fastvoc.Streams(voc, graphs_mb=64, capture=capture, check=False)
        for begin in range(0, mel.shape[1] - frames + 1, frames):
            streams.step({"a": mel[:, begin : begin + frames]})
            if streams.graphs is not None and streams.graphs.replays > 1:
                break
    assert streams.graphs is not None
    return {
        "captures": streams.graphs.captures,
        "replays": streams.graphs.replays,
        "own": capture.own,
        "torch": capture.torchs,
        "keys": len(keys.found),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([measure(*each) for each in json.loads(sys.argv[1])]))
