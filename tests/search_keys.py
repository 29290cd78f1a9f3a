"""What a search for tuned values compiles, and when: with a driver that launches nothing, as tests/triton_keys.py.

Prints the candidates, the kernels compiled before the first trial and in trials, and by how many threads.
"""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import torch
import triton_keys  # before Triton comes in

from fastvoc.kernels import conv1d, tuned
from fastvoc.kernels.tuned import search
from fastvoc.ops.conv1d import Conv1dParams


class Threads(triton_keys.Keys):
    """Keys, and the threads that asked for them; the first two of a pool wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._two, self._turns = threading.Barrier(2), itertools.count()

    def _refuse(self, **named: Any) -> bool:
        self.names.add(threading.current_thread().name)
        if threading.current_thread() is not threading.main_thread() and next(self._turns) < 2:
            self._two.wait(60)
        return super()._refuse(**named)


def main() -> dict[str, int]:
    keys = Threads()
    packed = conv1d.pack(Conv1dParams(torch.zeros(64, 64, 7), None, padding=(3, 3)))
    x, wanted = torch.zeros(1, 100, 64).transpose(1, 2), None
    try:
        with tuned.known_alone():
            conv1d.run(x, packed)
    except tuned.Unknown as unknown:
        wanted = unknown.key
    assert wanted is not None
    tried, before = [], []

    def seconds(call: Any, device: torch.device) -> float:
        before.append(len(keys.found))
        call()
        tried.append(len(keys.found))
        return float(len(tried))

    search.seconds = seconds
    search.best(wanted, lambda: conv1d.run(x, packed), x.device)
    mains = sum(name.startswith("fastvoc-compile") for name in keys.names)
    return {"tried": len(tried), "before": before[0], "after": tried[-1], "threads": mains}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main()))
