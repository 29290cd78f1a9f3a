"""Counts what Triton would compile for a model's calls: its own binder and cache keys, on tensors of the CPU.

A driver takes the place of the GPU's, and Triton's hook before a compilation refuses it, so that nothing is compiled or
launched. Run as a program of its own, since Triton reads on import whether it interprets:

python tests/triton_keys.py '[["v1", null, [[1, 1.0], [32, 10.0]]]]'  # model, backend, items x seconds
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import nullcontext
from typing import Any

import stub_driver  # before Triton comes in
import torch
import triton
from recording import Rerun
from zoo import ZOO

import fastvoc
from fastvoc.codec import Codec
from fastvoc.graphs.graphed import Graphed
from fastvoc.kernels import ahead, launch
from fastvoc.nn import pieces
from fastvoc.nn.wide import WideOnCpu
from fastvoc.vocoder import Vocoder


class Keys:
    """The keys of all launches by kernel, and how many launches there were."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()
        self.launches = 0
        stub_driver.stand_in()
        triton.knobs.runtime.jit_cache_hook = self._refuse

    def _refuse(self, *, key: Any, fn: Any, **_: Any) -> bool:
        self.launches += 1
        self.found.add((fn.name, str(key)))
        return True


def measure(model: str, backend: str | None, shapes: list[list[float]]) -> dict[str, Any]:
    """Keys by kernel of direct calls and of graphs, launches, and what `ahead.specialize` tells apart.

    And whether a graph runs the machine code of a direct call of its shape, kernel by kernel.
    """
    WideOnCpu.stays_wide = lambda *_: False  # type: ignore[method-assign]
    pieces.cuttable = lambda *_: False  # as on a GPU with room
    keys, entry = Keys(), ZOO[model]
    network: Any = entry.model(dtype=torch.bfloat16)
    loaded: Any = (Vocoder if hasattr(network.config, "num_mels") else Codec)(network, network.config)
    by_calls: set[tuple[str, str]] = set()
    specialized: set[Any] = set()
    direct: list[list[Any]] = []
    alike = True
    with fastvoc.use_backend(backend) if backend else nullcontext():
        for batch, seconds in shapes:
            inputs = entry.inputs(network, seconds, int(batch))
            x = inputs[0].bfloat16() if inputs[0].is_floating_point() else inputs[0]
            # A graph takes its seeds as an input; a call has them only where it is given some.
            seeds = {"seed": [0] * int(batch)} if "seed" in network.inputs else {}
            with torch.inference_mode(), launch.record() as recording:
                network(x, **seeds) if seeds else entry.run(network, x, *inputs[1:])
            direct.append([ahead.specialize(each) for each in recording.launches])
            specialized |= set(direct[-1])
        by_calls |= keys.found
        for (batch, seconds), wanted in zip(shapes, direct, strict=True):
            x = entry.inputs(network, seconds, int(batch))[0]
            codebooks = {} if x.is_floating_point() else {"codebooks": x.shape[1]}
            with launch.record() as recording:
                graphs = Graphed(loaded, max_mb=1e6, capture=Rerun())
                graphs.warmup([x.shape[2]], int(batch), **codebooks)
            captured = [ahead.specialize(each) for each in recording.launches]
            specialized |= set(captured)
            alike &= captured[-len(wanted) :] == wanted
    return {
        "calls": len(by_calls),
        "keys": len(keys.found),
        "launches": keys.launches,
        "specialized": len(specialized),
        "alike": alike,
        "kernels": Counter(name for name, _ in keys.found),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([measure(*each) for each in json.loads(sys.argv[1])]))
